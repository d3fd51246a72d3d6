"""SGLang's engine as tests use it, in this process and without HTTP: many requests at once, results
and reports taken apart. `served` has the server of `nprdsl serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import psutil
from sglang.srt.entrypoints.engine import Engine

from nprdsl.runtime.sglang.http.intake_hooks import intake_of
from nprdsl.runtime.sglang.protocol import ForkRequest, TraceReport, read_reports
from nprdsl.structure.events import Event, ForkEvent, JoinEvent, TokenEvent
from tests.sglang.forks import WithEnvironment, forking

T = TypeVar("T")
POOL = 3000  # tokens
ROWS = 24
CHUNK = 64  # tokens of a prompt that one forward computes
SECONDS = 90


@dataclass(frozen=True)
class Answer:
    """What a client receives."""

    ids: list[int]
    meta: dict[str, Any]
    reports: list[TraceReport]

    @property
    def final(self) -> TraceReport:
        assert self.reports and self.reports[-1].final, self.meta
        return self.reports[-1]

    @property
    def finish(self) -> dict[str, Any]:
        found: dict[str, Any] = self.meta["finish_reason"]
        return found

    @property
    def events(self) -> list[Event]:
        """What happened so far, of a trace whose events are wanted."""
        return [event for report in self.reports for event in report.read_events()]

    @property
    def written(self) -> int:
        """Tokens of all branches, those included that are not settled yet."""
        told = sum(len(e.tokens) for e in self.events if isinstance(e, TokenEvent))
        return max(told, len(self.ids))

    @property
    def forked(self) -> bool:
        return any(isinstance(event, ForkEvent) for event in self.events)

    @property
    def joined(self) -> bool:
        return any(isinstance(event, JoinEvent) for event in self.events)

    @property
    def branches_run(self) -> bool:
        """Some branch has written more than its header."""
        return any(isinstance(e, TokenEvent) and e.branch and not e.forced for e in self.events)


class Followed:
    """A streamed request that others can wait for: its progress is their clock, so that what they
    do comes at the same step on every machine."""

    def __init__(self, stream: AsyncIterator[Answer]) -> None:
        self._answers: list[Answer] = []
        self._over = False
        self._moved = asyncio.Condition()
        self._task = asyncio.ensure_future(self._read(stream))

    async def until(self, holds: Callable[[Answer], bool]) -> Answer:
        """The first chunk of which that holds; fails where the request ends before."""
        seen = 0
        async with self._moved:
            while True:
                for chunk in self._answers[seen:]:
                    if holds(chunk):
                        return chunk
                seen = len(self._answers)
                assert not self._over, "the request ended before that"
                await self._moved.wait()

    async def still(self, seconds: float = 0.3) -> None:
        """Waits until nothing has come for that long: all that a paused server sent is here then,
        however far this process had lagged behind it."""
        seen = -1
        while seen != len(self._answers):
            seen = len(self._answers)
            await asyncio.sleep(seconds)

    @property
    def over(self) -> bool:
        """Whether the request has ended."""
        return self._over

    async def last(self) -> Answer:
        """The last chunk, once the request has ended."""
        await self._task
        return self._answers[-1]

    async def _read(self, stream: AsyncIterator[Answer]) -> None:
        try:
            async for chunk in stream:
                async with self._moved:
                    self._answers.append(chunk)
                    self._moved.notify_all()
        finally:
            async with self._moved:
                self._over = True
                self._moved.notify_all()


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def answer(output: dict[str, Any]) -> Answer:
    return Answer(
        list(output["output_ids"]), output["meta_info"], read_reports(output["meta_info"])
    )


class ForkedEngine(Engine):  # type: ignore[misc]
    """Its processes are forked from one that has imported SGLang."""

    run_scheduler_process_func = WithEnvironment(Engine.run_scheduler_process_func)
    run_detokenizer_process_func = WithEnvironment(Engine.run_detokenizer_process_func)


class Server:
    """An engine with a small pool; the overlap scheduler is off."""

    def __init__(self, model: Path, **options: Any) -> None:
        self.pool = int(options.get("max_total_tokens", POOL))
        self.rows = int(options.get("max_running_requests", ROWS))
        with forking():
            others = set(_children())
            self.engine = ForkedEngine(
                **{
                    "model_path": str(model),
                    "device": "cpu",
                    "attention_backend": "torch_native",
                    "sampling_backend": "pytorch",
                    "dtype": "float32",
                    "mem_fraction_static": 0.1,
                    "max_total_tokens": POOL,
                    "max_running_requests": ROWS,
                    "chunked_prefill_size": CHUNK,
                    "disable_overlap_schedule": True,
                    "page_size": 1,
                    "sleep_on_idle": True,  # else each server of the session keeps a core busy
                    "log_level": "error",
                    **options,
                }
            )
        self._members = [child for child in _children() if child not in others]

    def stop(self) -> None:
        """Ends this engine's processes: SGLang would end all children of the tests, among them the
        servers that other tests still use."""
        with mock.patch("sglang.srt.entrypoints.engine.kill_process_tree", self._end_members):
            self.engine.shutdown()

    def _end_members(self, *_: object, **__: object) -> None:
        for member in self._members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(self._members, timeout=60)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the engine's loop."""
        return self.engine.loop.run_until_complete(asyncio.wait_for(work, SECONDS))

    async def read_schema(self, request: ForkRequest) -> None:
        """The server knows the request's schema: its next requests wait for no worker, which on a
        busy machine may take longer than others take to run."""
        await intake_of(self.engine.tokenizer_manager).packed(request.language, "")

    async def send(
        self, prompt: Sequence[int], request: ForkRequest | dict[str, Any], **options: Any
    ) -> Answer:
        """One request, with a schema, or plain with stock sampling parameters."""
        settings = request if isinstance(request, dict) else request.sampling_params()
        output = await self.engine.async_generate(
            input_ids=list(prompt), sampling_params=settings, **options
        )
        return answer(output)

    async def stream(
        self, prompt: Sequence[int], request: ForkRequest | dict[str, Any], **options: Any
    ) -> AsyncIterator[Answer]:
        """Chunks, each with all that came so far."""
        settings = request if isinstance(request, dict) else request.sampling_params()
        chunks = await self.engine.async_generate(
            input_ids=list(prompt), sampling_params=settings, stream=True, **options
        )
        async for chunk in chunks:
            yield answer(chunk)

    def follow(
        self, prompt: Sequence[int], request: ForkRequest | dict[str, Any], **options: Any
    ) -> Followed:
        """A streamed request that has begun."""
        return Followed(self.stream(prompt, request, **options))

    def generate(
        self, prompts: Sequence[Sequence[int]], requests: Sequence[ForkRequest | dict[str, Any]]
    ) -> list[Answer]:
        """All at once."""

        async def together() -> list[Answer]:
            pairs = zip(prompts, requests, strict=True)
            return list(await asyncio.gather(*(self.send(p, r) for p, r in pairs)))

        return self.run(together())

    def ids(self, text: str) -> list[int]:
        """A prompt as tokens."""
        spelling = self.engine.tokenizer_manager.tokenizer
        return list(spelling.encode(text, add_special_tokens=False))

    def text(self, ids: Sequence[int]) -> str:
        """Tokens as text, tags as they are; the end token left out."""
        spelling = self.engine.tokenizer_manager.tokenizer
        kept = [token for token in ids if token != spelling.eos_token_id]
        return str(spelling.decode(kept, skip_special_tokens=False))

    def abort(self, rid: str = "", *, everything: bool = False) -> None:
        self.engine.tokenizer_manager.abort_request(rid=rid, abort_all=everything)

    def flush(self) -> bool:
        """Whether the server was idle, and its cache is empty now."""
        return bool(self.run(self.engine.tokenizer_manager.flush_cache()).success)

    def is_soon_idle(self) -> bool:
        """Whether nothing runs any more a few steps from now."""
        return any(self.flush() for _ in range(8))

    def settle(self) -> None:
        """Waits until the server is idle. SGLang's own check of leaks runs then."""
        flushed = self.run(self.engine.tokenizer_manager.flush_cache(timeout_s=5.0))
        assert flushed.success, "requests are left on the server"
