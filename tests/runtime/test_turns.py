"""Traces and plain requests share memory by weight: the mechanism alone, without SGLang."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nprdsl.runtime.sglang.plugin.turns import RequestKind, Turns

TRACE, PLAIN = RequestKind.TRACE, RequestKind.PLAIN


def served(
    turns: Turns, waiting: dict[RequestKind, int], cost: dict[RequestKind, int]
) -> RequestKind:
    """Lets the next request in, of so many that wait."""
    turns.wait(waiting)
    kind = turns.due
    turns.let_in(kind, cost[kind])
    return kind


@pytest.mark.parametrize("share", [None, 0.5, 0.1, 0.9])
@pytest.mark.parametrize("alone", [TRACE, PLAIN])
def test_one_that_comes_to_a_crowd_of_the_other_kind_is_next(
    share: float | None, alone: RequestKind
) -> None:
    """However long the crowd has run before, and however large the newcomer is."""
    turns, crowd = Turns(share), TRACE if alone is PLAIN else PLAIN
    cost = {crowd: 2000, alone: 4000}
    for _ in range(500):
        assert served(turns, {crowd: 64, alone: 0}, cost) is crowd
    assert served(turns, {crowd: 64, alone: 1}, cost) is alone


@given(
    share=st.floats(0.05, 0.95),
    costs=st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), min_size=1, max_size=20),
)
def test_slots_are_shared_by_weight(share: float, costs: list[tuple[int, int]]) -> None:
    """While both kinds wait, what each was given by its weight differs by a request at most."""
    turns, weight, clock = Turns(share), {TRACE: share, PLAIN: 1 - share}, {TRACE: 0.0, PLAIN: 0.0}
    for i in range(200):
        cost = dict(zip((TRACE, PLAIN), costs[i % len(costs)], strict=True))
        kind = served(turns, {TRACE: 9, PLAIN: 9}, cost)
        clock[kind] += cost[kind] / weight[kind]
        assert abs(clock[TRACE] - clock[PLAIN]) <= 3000 / min(weight.values())


def test_growth_counts_and_makes_nobody_wait_longer() -> None:
    """A trace that grows takes from the turns of other traces; who comes later is next all the
    same."""
    turns = Turns(0.5)
    turns.wait({TRACE: 5, PLAIN: 5})
    turns.let_in(TRACE, 100)
    turns.let_in(PLAIN, 150)
    assert turns.due is TRACE
    turns.takes(TRACE, 100)
    assert turns.due is PLAIN
    turns.takes(TRACE, -100)
    assert turns.due is TRACE
    for _ in range(9):
        assert served(turns, {TRACE: 5, PLAIN: 0}, {TRACE: 100}) is TRACE
        turns.takes(TRACE, 0)
    turns.wait({TRACE: 5, PLAIN: 1})
    assert turns.due is PLAIN


def test_by_default_all_requests_count_alike() -> None:
    turns, cost = Turns(), {TRACE: 1000, PLAIN: 1000}
    kinds = [served(turns, {TRACE: 30, PLAIN: 10}, cost) for _ in range(400)]
    assert kinds.count(TRACE) == pytest.approx(300, abs=2)


@pytest.mark.parametrize(("share", "first"), [(0.0, PLAIN), (1.0, TRACE)])
def test_a_kind_without_weight_waits_for_the_other(share: float, first: RequestKind) -> None:
    turns, cost = Turns(share), {TRACE: 1000, PLAIN: 10}
    other = TRACE if first is PLAIN else PLAIN
    assert [served(turns, {TRACE: 3, PLAIN: 3}, cost) for _ in range(50)] == [first] * 50
    assert served(turns, {first: 0, other: 3}, cost) is other
    assert served(turns, {TRACE: 3, PLAIN: 3}, cost) is first


def test_a_kind_that_was_away_saves_nothing_up() -> None:
    turns, cost = Turns(0.5), {TRACE: 100, PLAIN: 100}
    for _ in range(100):
        served(turns, {TRACE: 5, PLAIN: 0}, cost)
    kinds = [served(turns, {TRACE: 5, PLAIN: 5}, cost) for _ in range(20)]
    assert kinds.count(PLAIN) == 10
