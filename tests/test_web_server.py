"""The web application in `examples/`: results, events, refusals, and clients that go away."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
ClientDisconnect = pytest.importorskip("starlette.requests").ClientDisconnect

FILE = Path(__file__).parents[1] / "examples" / "web_server.py"
QUESTION = {"prompt": "37*42+85*19?"}


@cache
def server() -> Any:
    spec = importlib.util.spec_from_file_location("web_server", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def post(path: str, *questions: dict[str, Any]) -> list[Any]:
    async def work() -> list[Any]:
        transport = httpx.ASGITransport(app=server().app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await asyncio.gather(*(client.post(path, json=q) for q in questions))

    return asyncio.run(work())


def idle() -> bool:
    return not server().engine._open and not server().engine._scheduler.busy


def test_clients_get_their_results_together() -> None:
    before = server().engine.timings.rounds
    first, second = post("/generate", QUESTION, {"prompt": "12*34+56*78?"})
    assert first.json()["answer"] == r"\boxed{3169}" and second.json()["kind"] == "result"
    forwards = [r.json()["usage"]["forwards"] for r in (first, second)]
    assert server().engine.timings.rounds - before < sum(forwards)


def test_events_are_server_sent() -> None:
    (answer,) = post("/stream", QUESTION)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n")[:-1]]
    kinds = [event["kind"] for event in events]
    assert set(kinds) == {"token", "fork", "branch_end", "join", "end", "result"}
    assert kinds[-2:] == ["end", "result"] and events[-1]["answer"] == r"\boxed{3169}"


@pytest.mark.parametrize("path", ["/generate", "/stream"])
def test_what_cannot_run_is_a_bad_request(path: str) -> None:
    (answer,) = post(path, QUESTION | {"max_tokens": 3})
    assert answer.status_code == 400 and "max_tokens is 3" in answer.json()["error"]
    assert idle()


@pytest.mark.parametrize(
    ("path", "version", "sent"),
    [("/stream", "2.3", 4), ("/stream", "2.4", 4), ("/generate", "2.3", 0)],
)
def test_a_client_that_goes_away_aborts(path: str, version: str, sent: int) -> None:
    """Servers say so by a message, or (2.4) by refusing to send."""
    rounds = server().engine.timings.rounds
    asyncio.run(left_after(path, version, sent))
    assert idle()
    assert server().engine.timings.rounds - rounds < 100


async def left_after(path: str, version: str, sent: int) -> None:
    """A request whose client leaves when it has read that many chunks."""
    left = asyncio.Event()
    bodies = [{"type": "http.request", "body": json.dumps(QUESTION).encode(), "more_body": False}]
    chunks = 0

    async def receive() -> dict[str, Any]:
        if bodies:
            return bodies.pop()
        if sent:
            await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal chunks
        chunks += message["type"] == "http.response.body"
        if chunks >= sent and sent:
            left.set()
            if version == "2.4":
                raise OSError("the client has gone")

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": version}, "method": "POST",
             "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers,
             "scheme": "http", "server": ("here", 80), "client": ("there", 1),
             "http_version": "1.1", "root_path": ""}  # fmt: skip
    with suppress(ClientDisconnect):  # nothing else, which a server would log
        await server().app(scope, receive, send)
    for _ in range(200):
        if idle():
            return
        await asyncio.sleep(0.01)
