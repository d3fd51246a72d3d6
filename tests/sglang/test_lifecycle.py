"""Aborts, pauses, flushes and new weights while traces are on their way: every slot comes back.

The fixture `nothing_left` lets SGLang's own check of leaks run behind every test.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sglang.srt.managers.io_struct import ContinueGenerationReqInput, PauseGenerationReqInput

import nprdsl
from nprdsl.machine.budget import Limits
from nprdsl.runtime import LocalEngine, Sampling
from nprdsl.runtime.sglang.protocol import ForkRequest
from tests.sglang.cases import nesting, same_tokens, spawning
from tests.sglang.models import make_model
from tests.sglang.server import Answer, Server
from tests.sglang.test_same_answers import FORKING, GREEDY, LIMITS, PROMPTS

NPR = nprdsl.load("npr")
LONG = ForkRequest.of(
    NPR,
    limits=Limits(
        max_tokens=700, branches=4, rule_tokens={"guideline": 40, "plan": 8}
    ),  # forks early
    sampling=GREEDY,
    events=True,
)
PROMPT = list(range(202, 214))  # a trace behind it has several branches


async def aborted_at_its_fork(server: Server, rid: str) -> Answer:
    """The last chunk of a request that is aborted once it has forked."""
    followed = server.follow(server.ids(FORKING), LONG, rid=rid)
    await followed.until(lambda chunk: chunk.forked)
    server.abort(rid)
    return await followed.last()


def test_abort_ends_all_branches(server: Server) -> None:
    last = server.run(aborted_at_its_fork(server, "to-abort"))
    assert last.finish["type"] == "abort"
    assert last.final.finish is nprdsl.EndReason.ABORTED
    assert last.ids == last.final.ids
    assert len(last.ids) < 700
    kinds = [event["kind"] for report in last.reports for event in report.events]
    assert "fork" in kinds and kinds[-1] == "end"


def test_abort_of_one_leaves_the_others(server: Server, local: LocalEngine) -> None:
    results = local.generate(NPR, PROMPTS[:4], limits=LIMITS["npr"], sampling=GREEDY)
    request = ForkRequest.of(NPR, limits=LIMITS["npr"], sampling=GREEDY)

    async def both() -> list[Answer]:
        others = [server.send(result.prompt_ids, request) for result in results]
        return (await asyncio.gather(aborted_at_its_fork(server, "one"), *others))[1:]

    for answer, result in zip(server.run(both()), results, strict=True):
        same_tokens(answer, result)


def test_abort_of_requests_that_wait_for_memory(server: Server) -> None:
    """Four fit into the pool; those behind them have not begun when all are aborted, and are told
    the same as others, streamed or not."""
    request = spawning("Wait", 2, length=330, exactly=True).request

    async def some() -> list[Answer]:
        await server.read_schema(request)
        first = server.follow(PROMPT, request)
        streamed = [server.follow(PROMPT, request) for _ in range(6)]
        work = [asyncio.ensure_future(server.send(PROMPT, request)) for _ in range(6)]
        await first.until(lambda chunk: chunk.forked)
        server.abort(everything=True)
        ended = await asyncio.gather(*(one.last() for one in streamed), *work)
        return [await first.last(), *ended]

    ended = server.run(some())
    assert [one.finish["type"] for one in ended] == ["abort"] * 13
    assert [one.final.finish for one in ended] == [nprdsl.EndReason.ABORTED] * 13
    assert [one.final.ids for one in ended] == [one.ids for one in ended]
    assert sum(not one.ids for one in ended) >= 8, "nothing waited"
    kinds = {one.reports[-1].events[-1]["kind"] for one in ended}
    assert kinds == {"end"}


def test_abort_of_a_request_that_is_held_back(server: Server) -> None:
    """SGLang keeps requests from the scheduler while it is paused, and aborts overtake them."""

    async def held() -> list[Answer]:
        manager = server.engine.tokenizer_manager
        await manager.pause_generation(PauseGenerationReqInput(mode="in_place"))
        streamed = server.follow(PROMPT, LONG, rid="held-1")
        whole = asyncio.ensure_future(server.send(PROMPT, LONG, rid="held-2"))
        await asyncio.sleep(0)  # both are known now
        for rid in ("held-1", "held-2"):
            assert rid in manager.rid_to_state
            server.abort(rid)
        await manager.continue_generation(ContinueGenerationReqInput())
        return [await streamed.last(), await whole]

    for answer in server.run(held()):
        assert answer.finish["type"] == "abort"
        assert answer.final.finish is nprdsl.EndReason.ABORTED


def test_clients_that_go_away(server: Server) -> None:
    """A stream that is not read to its end aborts its request."""

    async def leave() -> int:
        count = 0
        stream = server.stream(PROMPT, LONG, rid="left")
        async for _ in stream:
            count += 1
            if count == 40:
                break
        await stream.aclose()  # type: ignore[attr-defined]
        server.abort("left")
        return count

    assert server.run(leave()) == 40
    assert server.is_soon_idle()


def test_a_flush_is_refused_while_traces_run(server: Server) -> None:
    request = ForkRequest.of(NPR, limits=LIMITS["npr"], sampling=GREEDY, events=True)

    async def flush() -> tuple[Answer, bool]:
        work = server.follow(PROMPT, request)
        await work.until(lambda chunk: chunk.written > 40)
        refused = await server.engine.tokenizer_manager.flush_cache()
        return await work.last(), bool(refused.success)

    answer, flushed = server.run(flush())
    assert not flushed
    assert answer.final.error == ""
    assert server.generate([PROMPT], [request])[0].ids == answer.ids


@pytest.mark.parametrize("mode", ["in_place", "retract"])
def test_pauses_change_nothing(server: Server, mode: str) -> None:
    """`retract` frees all KV; what was written is computed again, forks and joins included."""
    limits = Limits(max_tokens=260, branches=4, rule_tokens={"plan": 8})
    request = ForkRequest.of(NPR, limits=limits, sampling=GREEDY, events=True)
    prompts = [PROMPT[i:] for i in range(4)]
    plain = {"temperature": 0, "max_new_tokens": 150, "ignore_eos": True}
    before = server.generate(prompts, [request] * len(prompts))
    alone = server.generate([PROMPT], [plain])[0]
    length = before[0].written
    assert length > 150

    async def pause() -> tuple[list[Answer], list[bool]]:
        clock = server.follow(prompts[0], request)
        work = [asyncio.ensure_future(server.send(p, request)) for p in prompts[1:]]
        work.append(asyncio.ensure_future(server.send(PROMPT, plain)))
        manager, flushed = server.engine.tokenizer_manager, []
        for part in (1, 2, 3):
            await clock.until(lambda chunk, least=part * length // 5: chunk.written >= least)
            await manager.pause_generation(PauseGenerationReqInput(mode=mode))
            await clock.still()
            if not clock.over:
                flushed.append(bool((await manager.flush_cache()).success))
            await manager.continue_generation(ContinueGenerationReqInput())
        return [await clock.last(), *await asyncio.gather(*work)], flushed

    answers, flushed = server.run(pause())
    assert answers[-1].ids == alone.ids
    for answer, other in zip(answers, before, strict=False):
        assert answer.final.ids == other.final.ids
        assert answer.final.sampled == other.final.sampled
        assert answer.final.logprobs == pytest.approx(other.final.logprobs, abs=1e-3)
    assert flushed
    assert all(flushed) if mode == "retract" else not any(flushed)


def test_new_weights_between_requests(
    server: Server, local: LocalEngine, tiny: Path, tmp_path: Path
) -> None:
    other = make_model(tmp_path / "other", seed=8)
    request = ForkRequest.of(NPR, limits=LIMITS["npr"], sampling=GREEDY)
    result = local.generate(NPR, FORKING, limits=LIMITS["npr"], sampling=GREEDY)
    fresh = LocalEngine.from_pretrained(other, dtype="fp32")
    changed = fresh.generate(NPR, FORKING, limits=LIMITS["npr"], sampling=GREEDY)
    assert changed.token_ids != result.token_ids
    try:
        server.settle()
        assert server.engine.update_weights_from_disk(str(other))[0]
        same_tokens(server.generate([changed.prompt_ids], [request])[0], changed)
    finally:
        server.settle()
        assert server.engine.update_weights_from_disk(str(tiny))[0]
    same_tokens(server.generate([result.prompt_ids], [request])[0], result)


def test_seeds_reach_every_branch(server: Server, local: LocalEngine) -> None:
    """One of the trunk alone would not give the branches of the local engine."""
    drawn = []
    for seed in (1, 2):
        sampling = Sampling(seed=seed)
        result = local.generate(NPR, PROMPT, limits=LIMITS["npr"], sampling=sampling)
        request = ForkRequest.of(NPR, limits=LIMITS["npr"], sampling=sampling)
        first, again = server.generate([PROMPT] * 2, [request] * 2)
        same_tokens(first, result)
        assert first.ids == again.ids and nesting(result)
        drawn.append(first.ids)
    assert drawn[0] != drawn[1]
