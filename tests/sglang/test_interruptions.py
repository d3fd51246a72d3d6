"""Clients and operators that interfere while branches run: aborts, clients that go away, flushes,
pauses, new weights. Every slot comes back, and what goes on is not changed.

Right answers are the local engine's. `test_pressure` has what does not fit.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from sglang.srt.managers import tokenizer_manager
from sglang.srt.managers.io_struct import (
    ContinueGenerationReqInput,
    GenerateReqInput,
    PauseGenerationReqInput,
    UpdateWeightFromDiskReqInput,
)

from nprdsl.runtime import LocalEngine
from nprdsl.structure.events import EndReason
from tests.sglang.cases import (
    Case,
    agree,
    all_agree,
    ids_of,
    own_schema,
    plain,
    spawning,
)
from tests.sglang.models import make_model
from tests.sglang.server import Answer, Server
from tests.sglang.tight import CHUNK
from tests.sglang.tight import all_is_back as all_is_back

# -- clients that go away --------------------------------------------------------------------------


def test_an_abort_ends_all_branches(tight: Server, local: LocalEngine) -> None:
    case = spawning("Stop", 4, length=90)

    async def stopped() -> Answer:
        followed = tight.follow(ids_of(local, case.prompt), case.request, rid="stopped")
        await followed.until(lambda chunk: chunk.branches_run)
        tight.abort("stopped")
        return await followed.last()

    answer = tight.run(stopped())
    assert answer.finish["type"] == "abort"
    assert answer.final.finish is EndReason.ABORTED
    assert answer.ids == answer.final.ids
    assert 0 < len(answer.ids) < 4 * 92
    tight.settle()
    all_agree(tight, local, [case])


def test_aborts_at_every_stage(tight: Server, local: LocalEngine) -> None:
    """While a request waits for memory, in its prompt, in the queue, at its forks and joins."""
    case = spawning("stage " * 12, 4, length=30)
    prompt = ids_of(local, case.prompt)

    silent: set[int] = set()  # those that had written nothing when they were aborted

    async def all_of_them() -> list[str]:
        steps, moved = 0, asyncio.Condition()
        begun: set[int] = set()

        async def one(number: int) -> str:
            nonlocal steps
            last = None
            async for chunk in tight.stream(prompt, case.request, rid=f"stage-{number}"):
                last = chunk
                async with moved:
                    steps += 1
                    begun.add(number)
                    moved.notify_all()
            assert last is not None
            assert last.ids == last.final.ids
            return str(last.finish["type"])

        async def abort(number: int) -> None:
            async with moved:
                await moved.wait_for(lambda: steps > number)  # all are on the server
            if number not in begun:
                silent.add(number)
            tight.abort(f"stage-{number}")

        count = range(24)
        aborts = [asyncio.ensure_future(abort(number)) for number in count]
        ended = await asyncio.gather(*map(one, count))
        for task in aborts:
            task.cancel()
        return list(ended)

    ends = tight.run(all_of_them())
    assert set(ends) <= {"abort", "stop", "length"}, ends
    assert len(silent) > 2, "all had begun"
    assert [number for number in silent if ends[number] != "abort"] == []
    assert ends.count("abort") > 12, ends
    tight.settle()
    all_agree(tight, local, [case])


def test_aborts_of_prompts_that_are_computed_in_pieces(tight: Server, local: LocalEngine) -> None:
    """Before the first chunk, between chunks, behind the last one: all are told the same."""
    case = spawning("pieces " * 50, 2, length=30)
    prompt = ids_of(local, case.prompt)
    assert len(prompt) > 10 * CHUNK

    async def one(number: int) -> Answer:
        rid = f"pieces-{number}"
        followed = tight.follow(prompt, case.request, rid=rid)
        await asyncio.sleep(0.004 * number)
        while not followed.over:
            tight.abort(rid)
            await asyncio.sleep(0.01)
        return await followed.last()

    for number in range(12):
        answer = tight.run(one(number))
        assert answer.finish["type"] == "abort"
        assert answer.final.finish is EndReason.ABORTED
        assert answer.final.ids == answer.ids
        tight.settle()
    all_agree(tight, local, [case])


def test_an_abort_of_all(tight: Server, local: LocalEngine) -> None:
    cases = [spawning(f"All {i}", 4, length=60) for i in range(6)]

    async def aborted() -> list[Answer]:
        await tight.read_schema(cases[0].request)
        first = tight.follow(ids_of(local, cases[0].prompt), cases[0].request)
        tasks = [tight.send(ids_of(local, case.prompt), case.request) for case in cases[1:]]
        tasks += [tight.send(ids_of(local, "plain"), plain(200))]
        waiting = asyncio.gather(*tasks)
        await first.until(lambda chunk: chunk.branches_run)
        tight.abort(everything=True)
        return [await first.last(), *await waiting]

    ended = tight.run(aborted())
    assert [end.finish["type"] for end in ended] == ["abort"] * 7


class Client:
    """An HTTP client, as far as SGLang looks at one, that has gone when it looks again."""

    client = None  # its address

    def __init__(self) -> None:
        self.looks = 0

    async def is_disconnected(self) -> bool:
        self.looks += 1
        return self.looks > 1


def test_a_client_that_goes_away_frees_everything(
    tight: Server, local: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = spawning("Away", 4, length=50, tokens=100)
    request = GenerateReqInput(
        input_ids=ids_of(local, case.prompt), sampling_params=case.request.sampling_params()
    )

    async def left() -> None:
        monkeypatch.setattr(tokenizer_manager, "_REQUEST_STATE_WAIT_TIMEOUT", 0.05)
        outputs = tight.engine.tokenizer_manager.generate_request(request, Client())
        await outputs.__anext__()

    with pytest.raises(ValueError, match="disconnected"):
        tight.run(left())
    assert tight.is_soon_idle()


def test_a_stream_that_is_closed_by_its_reader(
    tight: Server, local: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SGLang's HTTP server runs this task of its tokenizer manager when a stream's client goes."""
    case = spawning("Closed", 4, length=50, tokens=100)
    request = GenerateReqInput(
        input_ids=ids_of(local, case.prompt),
        sampling_params=case.request.sampling_params(),
        stream=True,
    )

    async def closed() -> None:
        manager = tight.engine.tokenizer_manager
        outputs = manager.generate_request(request, None)
        await outputs.__anext__()
        await outputs.aclose()
        real = asyncio.sleep
        monkeypatch.setattr(asyncio, "sleep", lambda _: real(0))  # it waits for two seconds
        await manager.create_abort_task(request)()

    tight.run(closed())
    assert tight.is_soon_idle()


# -- operators -------------------------------------------------------------------------------------


async def undisturbed(tight: Server, case: Case, ids: list[int], disturb: object) -> Answer:
    """An answer of a request in the middle of which something happens."""
    followed = tight.follow(ids, case.request)
    begun = await followed.until(lambda chunk: chunk.branches_run)
    await disturb(begun)  # type: ignore[operator]
    return await followed.last()


def test_the_cache_is_not_flushed_under_branches(tight: Server, local: LocalEngine) -> None:
    case = spawning("Flush", 4, length=40)
    result = case.result(local)

    async def flush(begun: Answer) -> None:
        told = await tight.engine.tokenizer_manager.flush_cache()
        assert not told.success

    agree(tight.run(undisturbed(tight, case, list(result.prompt_ids), flush)), result)
    tight.settle()


@pytest.mark.parametrize("mode", ["in_place", "retract"])
def test_a_pause_changes_nothing(tight: Server, local: LocalEngine, mode: str) -> None:
    """`retract` frees all KV: prompt, branches and joined trunk are computed again."""
    case = spawning("Pause", 4, length=40)
    others = [spawning(f"Beside {i}", 3, length=20) for i in range(2)]
    result, rest = case.result(local), [other.result(local) for other in others]
    manager = tight.engine.tokenizer_manager

    async def pause(begun: Answer) -> None:
        await manager.pause_generation(PauseGenerationReqInput(mode=mode))
        await asyncio.sleep(0.2)
        if mode == "retract":
            assert (await manager.flush_cache()).success, "slots are held by nobody"
        await manager.continue_generation(ContinueGenerationReqInput())

    async def together() -> list[Answer]:
        tasks = [
            asyncio.ensure_future(tight.send(r.prompt_ids, other.request))
            for other, r in zip(others, rest, strict=True)
        ]
        ids = list(result.prompt_ids)
        return [await undisturbed(tight, case, ids, pause), *await asyncio.gather(*tasks)]

    for answer, wanted in zip(tight.run(together()), [result, *rest], strict=True):
        agree(answer, wanted)


@pytest.mark.parametrize("join", ["reduce", "reread"])
def test_a_pause_behind_a_join(tight: Server, local: LocalEngine, join: str) -> None:
    """Branches that a join has dropped need no KV when the trace is computed again; others do."""
    case = spawning("Go", 3, length=16, tokens=150)
    source = case.schema.grammar.source.replace("reduce", join)
    case = replace(case, schema=own_schema(source, join))
    result = case.result(local)
    manager = tight.engine.tokenizer_manager

    async def retracted() -> Answer:
        followed = tight.follow(result.prompt_ids, case.request)
        await followed.until(lambda chunk: chunk.joined and chunk.written > 100)
        await manager.pause_generation(PauseGenerationReqInput(mode="retract"))
        await manager.continue_generation(ContinueGenerationReqInput())
        return await followed.last()

    agree(tight.run(retracted()), result)


def test_new_weights_under_parked_requests(
    tight: Server, local: LocalEngine, tiny: Path, tmp_path: Path
) -> None:
    """After a retracting pause the new weights compute all anew; what was written stays."""
    other = make_model(tmp_path, seed=11)
    case = spawning("Weights", 4, length=40)
    ids = ids_of(local, case.prompt)
    manager = tight.engine.tokenizer_manager

    async def load(model: Path) -> None:
        told = await manager.update_weights_from_disk(
            UpdateWeightFromDiskReqInput(model_path=str(model), flush_cache=True)
        )
        assert told[0], told

    async def swap(begun: Answer) -> None:
        await manager.pause_generation(PauseGenerationReqInput(mode="retract"))
        await load(other)
        await manager.continue_generation(ContinueGenerationReqInput())

    try:
        answer = tight.run(undisturbed(tight, case, ids, swap))
        assert answer.final.finish in (EndReason.BUDGET, EndReason.COMPLETED)
        assert local.bind(case.schema).check([*ids, *answer.ids], prompt=len(ids)) == []
        tight.settle()
        renewed = LocalEngine.from_pretrained(other, dtype="fp32")
        all_agree(tight, renewed, [case])
        assert case.result(renewed).token_ids != case.result(local).token_ids
    finally:
        tight.run(load(tiny))
    tight.settle()
    all_agree(tight, local, [case])
