"""Requests that attend in one call get what they would get alone."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nprdsl.runtime.local.attention import LogAttention, _entries
from nprdsl.runtime.local.attention_batches import FARTHEST, WIDEST, RowGroup, seating
from nprdsl.runtime.local.forward import Forward
from nprdsl.runtime.local.requests import Job, Request
from nprdsl.runtime.local.scheduler import Scheduler
from nprdsl.runtime.sampling import Sampling
from nprdsl.structure.events import EndReason
from tests.runtime.scripted import Force, Sample, ScriptedMachine, Split
from tests.runtime.tiny_models import WIDTH, dense_logprobs, model

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
        rows = draw(st.sampled_from([1, 2, 3, 7, WIDEST + 1]))
        made.append(RowGroup(first, first + rows, at, length, draw(st.integers(1, length))))
        first += rows
    return made


@settings(max_examples=200, deadline=None)
@given(groups())
def test_every_row_has_a_seat_beside_its_own_entries(made: list[RowGroup]) -> None:
    seats = seating(made, CPU)
    rows = torch.arange(made[-1].last)
    seated = rows if seats.row_of is None else rows[seats.row_of]
    assert torch.equal(seated if seats.seat_of is None else seated[seats.seat_of], rows)
    for group, seat, room in zip(made, seats.seat, seats.room, strict=True):
        assert seated[seat : seat + group.rows].tolist() == list(range(group.first, group.last))
        lanes = next(x for x in seats.lanes if x.seat <= seat < x.seat + x.seats)
        lane, inside = divmod(seat - lanes.seat, lanes.rows)
        assert (inside, room) == (0, lanes.rows) and group.rows <= room
        read = _entries(lanes, LOG)[lane, 0]
        assert torch.equal(read[: group.width], LOG[0, 0, group.start :][: group.width])


@settings(max_examples=100, deadline=None)
@given(groups(), st.integers(1, 3))
def test_groups_that_grow_keep_their_seats(made: list[RowGroup], more: int) -> None:
    wider = [replace(group, width=min(group.length, group.width + more)) for group in made]
    before = seating(made, CPU)
    kept, anew = seating(wider, CPU, before), seating(wider, CPU)
    assert (kept.lanes, kept.seat, kept.room) == (anew.lanes, anew.seat, anew.room)
    assert (kept.row_of is before.row_of) and (kept.seat_of is before.seat_of)
    moved = [replace(group, start=group.start + 400) for group in made]
    assert seating(moved, CPU, before).lanes == seating(moved, CPU).lanes != before.lanes


def test_equal_extents_share_a_call_but_prompts_and_far_ones_do_not() -> None:
    def calls(*places: tuple[int, int]) -> list[int]:
        made, first = [], 0
        for start, rows in places:
            made.append(RowGroup(first, first + rows, start, 10, 5))
            first += rows
        return sorted(lanes.count for lanes in seating(made, CPU).lanes)

    assert calls((0, 2), (10, 3), (20, 2)) == [3]
    assert calls((20, 2), (0, 3)) == [3]  # a lane between them is empty
    assert calls((0, 2), (10, 1), (20, 3)) == [1, 3]  # one row would get three seats
    assert calls((0, 2), (10, WIDEST + 1), (20, 2)) == [1, 3]
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
        counts.append(max(lanes.count for lanes in self.seating.lanes))
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
        oracle = dense_logprobs(name, machine.fed)
        for i, fed in enumerate(machine.fed):
            if fed.logprob is not None:
                before = max(j for j in fed.sees if j < i and machine.fed[j].branch == fed.branch)
                assert abs(float(oracle[before, fed.token]) - fed.logprob) <= 1e-4


def _submitted(scheduler: Scheduler, seed: int) -> tuple[ScriptedMachine, Request]:
    """Equal budgets; prompts, numbers of branches and lengths that differ."""
    rng = random.Random(seed)
    branches = tuple((Force((3,)), Sample(rng.randint(1, 9))) for _ in range(rng.randint(1, 4)))
    plan = (Sample(rng.randint(1, 5)), Split(branches), Force((7, 8)), Sample(2))
    prompt = tuple(rng.choices(range(WIDTH), k=rng.randint(1, 8)))
    machine = ScriptedMachine(plan, prompt, WIDTH)
    return machine, scheduler.submit(Job(machine, prompt, 60, Sampling(seed=seed)))
