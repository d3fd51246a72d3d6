"""Requests that attend in one call get what they would get alone."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nprdsl.runtime.local.attention import (
    FARTHEST,
    MOST_SHARED_ROWS,
    LogAttention,
    RowGroup,
    _entries,
    plan_attention,
)
from nprdsl.runtime.local.forward import Forward
from nprdsl.runtime.local.requests import ScheduledRequest
from nprdsl.runtime.local.scheduler import Scheduler
from nprdsl.runtime.sampling import Sampling
from nprdsl.structure.events import EndReason
from tests.runtime.scripted import Force, Sample, ScriptedMachine, Split
from tests.runtime.tiny_models import WIDTH, largest_error, model

CPU = torch.device("cpu")
LOG = torch.arange(400 * 3, dtype=torch.float32).view(1, 1, 400, 3)


@st.composite
def groups(draw: st.DrawFn) -> list[RowGroup]:
    """Extents that do not overlap, with holes between them, in any order."""
    start, extents = 0, []
    for length, hole in draw(st.lists(st.tuples(st.sampled_from([8, 12]), st.integers(0, 3)))):
        start += hole * 4
        extents.append((start, length))
        start += length
    extents = draw(st.permutations(extents[:14] or [(0, 8)]))
    made, first = [], 0
    for at, length in extents:
        rows = draw(st.sampled_from([1, 2, 3, 7, MOST_SHARED_ROWS + 1]))
        made.append(RowGroup(first, first + rows, at, length, draw(st.integers(1, length))))
        first += rows
    return made


@settings(max_examples=200, deadline=None)
@given(groups())
def test_every_row_is_padded_beside_its_own_entries(made: list[RowGroup]) -> None:
    plan = plan_attention(made, CPU)
    rows = torch.arange(made[-1].last)
    padded = rows if plan.row_of is None else rows[plan.row_of]
    assert torch.equal(padded if plan.padded_of is None else padded[plan.padded_of], rows)
    for group, first, count in zip(made, plan.first, plan.rows, strict=True):
        assert padded[first : first + group.rows].tolist() == list(range(group.first, group.last))
        call = next(call for call in plan.calls if call.first <= first < call.end)
        extent, inside = divmod(first - call.first, call.rows)
        assert (inside, count) == (0, call.rows) and group.rows <= count
        read = _entries(call, LOG)[extent, 0]
        assert torch.equal(read[: group.width], LOG[0, 0, group.start :][: group.width])


@settings(max_examples=100, deadline=None)
@given(groups(), st.integers(1, 3))
def test_groups_that_grow_keep_their_plan(made: list[RowGroup], more: int) -> None:
    wider = [replace(group, width=min(group.length, group.width + more)) for group in made]
    kept, anew = plan_attention(made, CPU), plan_attention(wider, CPU)
    kept.widen(wider)
    assert (kept.calls, kept.first, kept.rows) == (anew.calls, anew.first, anew.rows)
    for a, b in ((kept.row_of, anew.row_of), (kept.padded_of, anew.padded_of)):
        assert (a is None and b is None) or torch.equal(a, b)


def test_equal_extents_share_a_call_but_prompts_and_far_ones_do_not() -> None:
    def calls(*places: tuple[int, int]) -> list[int]:
        made, first = [], 0
        for start, rows in places:
            made.append(RowGroup(first, first + rows, start, 10, 5))
            first += rows
        return sorted(call.count for call in plan_attention(made, CPU).calls)

    assert calls((0, 2), (10, 3), (20, 2)) == [3]
    assert calls((20, 2), (0, 3)) == [3]  # an extent between them is empty
    assert calls((0, 2), (10, 1), (20, 3)) == [1, 3]  # one row would be padded to three
    assert calls((0, 2), (10, MOST_SHARED_ROWS + 1), (20, 2)) == [1, 3]
    assert calls((0, 2), (13, 3)) == [1, 1]
    assert calls((0, 2), (10 * FARTHEST, 2)) == [FARTHEST + 1]
    assert calls((0, 2), (10 * FARTHEST + 10, 2)) == [1, 1]


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_many_requests_equal_one_dense_forward_each(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    attend = LogAttention.attend

    def watched(self: LogAttention, *arguments: object, **options: object) -> object:
        counts.append(max(call.count for call in self.plan.calls))
        return attend(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(LogAttention, "attend", watched)
    scheduler = Scheduler(Forward(model(name), 2000), WIDTH)
    machines, requests = [], []
    for i in range(14):
        machine, request = _submitted(scheduler, i)
        machines.append(machine)
        requests.append(request)
    while scheduler.busy:
        scheduler.round()
        scheduler.check()
    assert all(r.ended is EndReason.COMPLETED for r in requests)
    assert max(counts) >= 10
    for machine in machines:
        assert largest_error(name, machine.fed) <= 1e-4


def _submitted(scheduler: Scheduler, seed: int) -> tuple[ScriptedMachine, ScheduledRequest]:
    """Equal budgets; prompts, numbers of branches and lengths that differ."""
    rng = random.Random(seed)
    branches = tuple((Force((3,)), Sample(rng.randint(1, 9))) for _ in range(rng.randint(1, 4)))
    plan = (Sample(rng.randint(1, 5)), Split(branches), Force((7, 8)), Sample(2))
    prompt = tuple(rng.choices(range(WIDTH), k=rng.randint(1, 8)))
    machine = ScriptedMachine(plan, prompt, WIDTH)
    least = 60 - len(prompt)  # so that all have equal extents
    request = ScheduledRequest(machine, prompt, 60, Sampling(seed=seed), least=least)
    return machine, scheduler.submit(request)
