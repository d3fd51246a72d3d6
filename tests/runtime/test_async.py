"""Calls from asyncio: they share rounds, none blocks the loop, what is cancelled stops at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from functools import cache
from typing import Any

import pytest

import nprdsl
from nprdsl import LimitError, Limits
from nprdsl.runtime.local import LocalEngine
from nprdsl.runtime.results import GenerationError, Result
from nprdsl.runtime.sampling import Sampling
from nprdsl.structure.events import EndEvent, EndReason, TokenEvent
from tests.machines import told_text
from tests.runtime.tiny_models import byte_tokenizer, model

NPR = nprdsl.load("npr")
SHORT = Limits(max_tokens=90, branches=2, blocks=1)
LONG = Limits(max_tokens=1900, branches=2, blocks=1)


@cache
def engine() -> LocalEngine:
    return LocalEngine(model("llama", 320), byte_tokenizer(NPR.tags))


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs it, and asserts that nothing of it is left: no thread, no task, no open request."""
    before = set(threading.enumerate())

    async def main() -> Any:
        try:
            return await coroutine
        finally:
            assert asyncio.all_tasks() == {asyncio.current_task()}

    try:
        return asyncio.run(main())
    finally:
        assert set(threading.enumerate()) <= before
        assert not engine()._open and not engine()._scheduler.busy and not engine()._news


def test_results_are_those_of_other_calls() -> None:
    async def work() -> list[Result]:
        many = [
            engine().agenerate(NPR, "q", limits=SHORT, sampling=Sampling(seed=i)) for i in range(6)
        ]
        return await asyncio.gather(*many)

    rounds = engine().timings.rounds
    results = run(work())
    shared = engine().timings.rounds - rounds
    same = [engine().generate(NPR, "q", limits=SHORT, sampling=Sampling(seed=i)) for i in range(6)]
    assert [r.token_ids for r in results] == [r.token_ids for r in same]
    assert shared < sum(r.usage.forwards for r in same) / 2


def test_a_list_of_prompts_gives_a_list() -> None:
    results = run(engine().agenerate(NPR, ["a", "b"], limits=SHORT))
    assert [r.finish for r in results] == [
        r.finish for r in engine().generate(NPR, ["a", "b"], limits=SHORT)
    ]


def test_streams_of_several_tasks_tell_all() -> None:
    async def read(seed: int) -> list[Any]:
        how = Sampling(seed=seed)
        return [
            e async for e in engine().astream(NPR, "q", limits=SHORT, sampling=how, logprobs=True)
        ]

    async def work() -> list[list[Any]]:
        return await asyncio.gather(*map(read, range(4)))

    for *events, result in run(work()):
        assert isinstance(result, Result) and isinstance(events[-1], EndEvent)
        assert told_text(events) == result.text
        told = sorted(
            p for e in events if isinstance(e, TokenEvent) for p in e.logprobs if p is not None
        )
        assert told == sorted(p for p in result.logprobs if p is not None)


def test_the_loop_goes_on_while_a_round_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while a call is aborted, and another is submitted, in the middle of a round."""
    running, go = threading.Event(), threading.Event()
    plain = engine()._scheduler.round

    def held() -> Any:
        running.set()
        assert go.wait(20)
        return plain()

    async def work() -> None:
        first = asyncio.create_task(engine().agenerate(NPR, "q", limits=SHORT))
        await asyncio.to_thread(running.wait, 20)
        second = asyncio.create_task(engine().agenerate(NPR, "r", limits=SHORT))
        while len(engine()._open) < 2:  # it gets in
            await asyncio.sleep(0.001)
        first.cancel()
        await asyncio.sleep(0.01)
        assert not first.done()  # its thread has to come back
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await second).finish in (EndReason.COMPLETED, EndReason.BUDGET)

    monkeypatch.setattr(engine()._scheduler, "round", held)
    run(work())


async def timed_out() -> None:
    async with asyncio.timeout(0.05):
        await engine().agenerate(NPR, "q", limits=LONG)


async def stream_timed_out() -> None:
    async with asyncio.timeout(0.05):
        async for _ in engine().astream(NPR, "q", limits=LONG):
            pass


async def cancelled() -> None:
    task = asyncio.create_task(engine().agenerate(NPR, ["q", "r"], limits=LONG))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    raise TimeoutError


async def closed() -> None:
    async with aclosing(engine().astream(NPR, "q", limits=LONG)) as events:
        async for event in events:
            if isinstance(event, TokenEvent) and not event.forced:
                break
    raise TimeoutError


async def cancelled_at_once() -> None:
    task = asyncio.create_task(engine().agenerate(NPR, "q", limits=LONG))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    raise TimeoutError


async def cancelled_twice() -> None:
    task = asyncio.create_task(engine().agenerate(NPR, "q", limits=LONG))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while engine()._open:  # nobody waited for its thread
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    raise TimeoutError


STOPS = [timed_out, stream_timed_out, cancelled, closed, cancelled_at_once, cancelled_twice]


@pytest.mark.parametrize("stop", STOPS, ids=lambda stop: stop.__name__)
def test_what_nobody_waits_for_stops(stop: Callable[[], Coroutine[Any, Any, None]]) -> None:
    rounds = engine().timings.rounds
    with pytest.raises(TimeoutError):
        run(stop())
    assert engine().timings.rounds - rounds < 900  # of about 1,800


def test_a_stream_that_is_left_open_when_the_loop_ends_is_closed_without_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def left_open() -> Any:
        events = engine().astream(NPR, "q", limits=LONG)
        async for _ in events:
            break
        return events  # so that nothing collects it

    kept = asyncio.run(left_open())
    assert not caplog.records
    assert not engine()._open and kept.ag_frame is None


def test_an_abort_takes_effect_with_the_round_that_runs() -> None:
    async def work() -> int:
        events = engine().astream(NPR, "q", limits=LONG)
        async for event in events:
            if isinstance(event, TokenEvent) and not event.forced:
                break
        before = engine().timings.rounds
        await events.aclose()
        return engine().timings.rounds - before

    assert run(work()) <= 2


def test_refusals_and_failures_are_raised() -> None:
    with pytest.raises(LimitError, match="shortest legal trace"):
        run(engine().agenerate(NPR, "q", limits=Limits(max_tokens=3)))

    async def read() -> None:
        async for _ in engine().astream(NPR, "q", limits=Limits(max_tokens=3)):
            pass

    with pytest.raises(LimitError, match="shortest legal trace"):
        run(read())


def test_a_request_that_fails_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise ArithmeticError("it broke")

    monkeypatch.setattr(engine()._scheduler, "_draw", broken)
    with pytest.raises(GenerationError, match="it broke"):
        run(engine().agenerate(NPR, "q", limits=SHORT))


def test_threads_and_tasks_share_one_engine() -> None:
    found: dict[int, Result] = {}

    def ask(seed: int) -> None:
        *_, last = engine().stream(NPR, "q", limits=SHORT, sampling=Sampling(seed=seed))
        assert isinstance(last, Result)
        found[seed] = last

    async def work() -> list[Result]:
        many = (
            engine().agenerate(NPR, "q", limits=SHORT, sampling=Sampling(seed=i)) for i in (4, 5)
        )
        threads = (asyncio.to_thread(ask, seed) for seed in range(4))
        results, *_ = await asyncio.gather(asyncio.gather(*many), *threads)
        return results

    async def main() -> list[Result]:
        try:
            return await work()
        finally:
            await asyncio.get_running_loop().shutdown_default_executor()

    found |= dict(zip((4, 5), run(main()), strict=True))
    for seed, result in found.items():
        same = engine().generate(NPR, "q", limits=SHORT, sampling=Sampling(seed=seed))
        assert same.token_ids == result.token_ids
