"""A server under a mixed and partly hostile load: wrong answers, failures, health, memory.

Against a server that runs (`nprdsl serve`, by either engine), best with a pool a quarter of what
its clients want: 40 % plain chats, 40 % traces (chats, responses, AG-UI; whole and streamed), 10 %
of both left or aborted midway, 10 % hostile schemas and wrong fields. Every answer is held against
that of the same request alone. Prints what came of each kind, how long /health took, the memory of
the server's processes (`--pid`), and whether anything was left.

    python -m benchmarks.chaos [--address http://127.0.0.1:30000] [--minutes 10] [--clients 32]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx

KINDS = {"plain": 40, "trace": 40, "left": 10, "hostile": 10}
PROMPTS = ("37*42+85*19?", "60*23+37*42?", "12*13?", "x=20*13+15*27;x*7+x*3?", "85*19+60*23+12*13?")
LARGE = "start: a0\n" + "\n".join(f"a{n}: a{n + 1}" for n in range(3000)) + '\na3000: "{}"\n'
HEALTH_S = 0.25
LONG_S = 600.0


@dataclass
class Seen:
    """What came of all requests. `health`: the seconds of each /health."""

    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    wrong: list[str] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)


class Load:
    """The clients of one server. `is_sglang`: chats have names there, by
    which they are aborted, and idleness is asked for by emptying the cache."""

    def __init__(self, address: str, random: Random) -> None:
        self._http = httpx.AsyncClient(
            base_url=address, timeout=LONG_S, limits=httpx.Limits(max_connections=None)
        )
        self._random = random
        self._number = 0
        self._alone: dict[str, str] = {}  # the answer of each request that is asked again
        self.is_sglang = False
        self.seen = Seen()

    async def learn(self) -> None:
        """Asks everything once, alone."""
        for path, body in everything():
            key, body = json.dumps([path, body]), {**body, "stream": False}
            self._alone[key] = _answer(path, (await self._posted(path, body)).text)
        self.is_sglang = (await self._http.get("/flush_cache")).status_code == 200

    async def client(self, until: float) -> None:
        """One client, who asks one request after another."""
        while time.monotonic() < until:
            self._number += 1
            (kind,) = self._random.choices(list(KINDS), KINDS.values())
            self.seen.outcomes[kind][await getattr(self, f"_{kind}")(self._number)] += 1

    async def watch(self, until: float, pid: int | None) -> None:
        """Asks for the server's health, and looks at its memory."""
        while time.monotonic() < until:
            begin = time.monotonic()
            answer = await self._http.get("/health")
            self.seen.health.append(time.monotonic() - begin)
            if answer.status_code != 200:
                self.seen.wrong.append(f"/health is {answer.status_code}")
            if pid is not None:
                self.seen.memory.append(sum(map(_resident, _tree(pid))))
            await asyncio.sleep(HEALTH_S)

    async def left_over(self) -> str:
        """What is left on the server once nobody asks any more."""
        for _ in range(40):
            if self.is_sglang:
                if (await self._http.get("/flush_cache", params={"timeout": 5})).status_code == 200:
                    return "nothing"
            elif "nprdsl_traces_running 0.0" in (await self._http.get("/metrics")).text:
                return "nothing"
            await asyncio.sleep(0.5)
        return "requests"

    # -- kinds of requests -------------------------------------------------------------------------

    async def _plain(self, number: int) -> str:
        return await self._checked(*self._random.choice(list(plain())))

    async def _trace(self, number: int) -> str:
        return await self._checked(*self._random.choice(list(traces())))

    async def _left(self, number: int) -> str:
        path, body = self._random.choice(list(everything()))
        name = f"chaos-{number}"
        is_named = self.is_sglang and path == "/v1/chat/completions"
        given = {**body, "stream": True, **({"rid": name} if is_named else {})}
        chunks = self._random.randrange(1, 30)
        with suppress(httpx.HTTPError):
            async with self._http.stream("POST", path, json=given) as response:
                if response.status_code != 200:
                    await response.aread()
                    return f"status {response.status_code}"
                lines = response.aiter_lines()
                for _ in range(chunks):
                    if await anext(lines, None) is None:
                        return "ended before"
                if is_named and self._random.random() < 0.5:
                    await self._http.post("/abort_request", json={"rid": name})
                    while await anext(lines, None) is not None:
                        pass
                    return "aborted"
        return "left"

    async def _hostile(self, number: int) -> str:
        path, body = self._random.choice(hostile(number))
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await self._http.post(
            path, content=content, headers={"content-type": "application/json"}
        )
        if answer.status_code not in (400, 422, 429):
            self.seen.wrong.append(f"{path} {content[:120]!r}: {answer.status_code}")
        return f"status {answer.status_code}"

    async def _checked(self, path: str, body: dict[str, Any]) -> str:
        key = json.dumps([path, body])
        is_streamed = self._random.random() < 0.5
        try:
            answer = await self._posted(path, {**body, "stream": is_streamed})
        except httpx.HTTPError as error:
            self.seen.wrong.append(f"{path}: {type(error).__name__}")
            return "failed"
        if answer.status_code != 200:
            self.seen.wrong.append(f"{path}: {answer.status_code} {answer.text[:200]}")
            return f"status {answer.status_code}"
        said = _answer(path, answer.text)
        if said != self._alone[key]:
            self.seen.wrong.append(f"{key}: {said!r} in place of {self._alone[key]!r}")
            return "wrong"
        return "right"

    async def _posted(self, path: str, body: dict[str, Any]) -> httpx.Response:
        given = {
            name: value for name, value in body.items() if path != "/ag-ui" or name != "stream"
        }
        return await self._http.post(path, json=given)


def plain() -> Iterator[tuple[str, dict[str, Any]]]:
    for prompt in PROMPTS:
        message = {"role": "user", "content": prompt}
        settings = {"temperature": 0, "max_tokens": 24}
        yield "/v1/chat/completions", {"messages": [message], **settings}


def traces() -> Iterator[tuple[str, dict[str, Any]]]:
    asked: dict[str, Any] = {"schema": "arith", "temperature": 0}
    for prompt in PROMPTS:
        message = {"id": "m", "role": "user", "content": prompt}
        yield "/v1/chat/completions", {"messages": [message], **asked}
        yield "/v1/chat/completions", {"messages": [message], **asked, "max_tokens": 60}
        yield "/v1/responses", {"input": prompt, **asked}
        run = {"threadId": "t", "runId": "r", "messages": [message]}
        yield "/ag-ui", {**run, "forwardedProps": asked}


def everything() -> Iterator[tuple[str, dict[str, Any]]]:
    yield from plain()
    yield from traces()


def hostile(number: int) -> list[tuple[str, Any]]:
    """Requests that nobody may be hurt by; those with the number are new to the server."""
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": "3*4?"}]}
    sources = ['start: "1"~1000000000', LARGE.format(number), "start: (", "start: a\na: b\nb: a"]
    path = "/v1/chat/completions"
    return [
        *((path, {**chat, "schema": {"name": "x", "source": source}}) for source in sources),
        (path, {**chat, "schema": "no such"}),
        (path, {**chat, "schema": "arith", "no_such": 1}),
        (path, {**chat, "schema": "arith", "temperature": 1e308}),
        (path, {**chat, "schema": "arith", "max_tokens": 1}),
        (path, {**chat, "schema": "arith", "limits": {"branches": -1}}),
        (path, {"messages": [], "schema": "arith"}),
        (path, {"messages": [{}] * 50_000}),
        (path, {"messages": [{"role": "user", "content": ""}] * 50_000}),
        ("/v1/completions", {"prompt": [None] * 50_000}),
        (path, b'{"schema": "arith", "messages": '),
        ("/v1/responses", {"input": [{"type": "function_call"}], "schema": "arith"}),
        ("/ag-ui", {"threadId": 1}),
        ("/ag-ui", b"[" * 100_000),
    ]


def _answer(path: str, text: str) -> str:
    """The answer in a whole reply, or in the events of one."""
    if path == "/ag-ui" or text.startswith(("data:", "event:")):
        lines = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
        return "".join(map(_delta, map(json.loads, lines)))
    whole = json.loads(text)
    if path == "/v1/responses":
        texts = [item["content"] for item in whole["output"] if item["type"] == "message"]
        return "".join(part["text"] for parts in texts for part in parts)
    return "".join(choice["message"]["content"] or "" for choice in whole["choices"])


def _delta(event: dict[str, Any]) -> str:
    if "choices" in event:
        return "".join(choice["delta"].get("content") or "" for choice in event["choices"])
    is_text = event.get("type") in ("response.output_text.delta", "TEXT_MESSAGE_CONTENT")
    return str(event["delta"]) if is_text else ""


def _tree(pid: int) -> list[int]:
    """A process and all below it, as Linux tells them."""
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        with suppress(OSError):
            for task in Path(f"/proc/{found[-1]}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
    return found


def _resident(pid: int) -> int:
    """Bytes; 0 where it has ended."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    return 0


async def run(options: argparse.Namespace) -> Seen:
    load = Load(options.address, Random(options.seed))
    await load.learn()
    until = time.monotonic() + 60 * options.minutes
    clients = [load.client(until) for _ in range(options.clients)]
    await asyncio.gather(load.watch(until, options.pid), *clients)
    print("left on the server:", await load.left_over())
    return load.seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="http://127.0.0.1:30000")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pid", type=int, help="of the server, whose memory is looked at")
    seen = asyncio.run(run(parser.parse_args()))
    for kind, outcomes in seen.outcomes.items():
        print(f"{kind:8}", ", ".join(f"{what} {n}" for what, n in sorted(outcomes.items())))
    health = sorted(seen.health)
    middle, late = health[len(health) // 2], health[-1 - len(health) // 100]
    print(f"/health: median {middle:.3f} s, p99 {late:.3f} s, greatest {health[-1]:.3f} s")
    if seen.memory:
        tenth = max(1, len(seen.memory) // 10)
        early, last = (
            max(part) >> 20 for part in (seen.memory[tenth:][:tenth], seen.memory[-tenth:])
        )
        print(f"memory: {early:,} MiB in the second tenth of the time, {last:,} MiB in the last")
    print(f"wrong: {len(seen.wrong)}")
    for what in seen.wrong[:20]:
        print(" ", what)


if __name__ == "__main__":
    main()
