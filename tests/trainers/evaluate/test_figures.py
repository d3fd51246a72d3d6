"""Figures against values worked out by hand, and best@k against counting subsets."""

from __future__ import annotations

from itertools import combinations
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nprdsl.structure.events import EndReason
from nprdsl.trainers.evaluate.figures import best_at, by_problem, figures
from nprdsl.trainers.evaluate.samples import Mode
from tests.trainers.evaluate.made import failed, graded, sample


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_best_at_counts_the_subsets_with_a_right_sample(
    rights: list[bool], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(rights)))
    subsets = list(combinations(rights, k))
    wanted = sum(map(any, subsets)) / len(subsets)
    assert best_at(k, len(rights), sum(rights)) == pytest.approx(wanted)


@pytest.mark.parametrize(("k", "samples", "right"), [(0, 3, 1), (4, 3, 1), (2, 3, 4), (2, 3, -1)])
def test_best_at_that_has_no_meaning(k: int, samples: int, right: int) -> None:
    with pytest.raises(ValueError, match=f"best@{k} of {samples} samples, {right} of them right"):
        best_at(k, samples, right)


def test_accuracy_and_best() -> None:
    found = figures(graded([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]))
    assert (found.problems, found.samples) == (3, 4)
    assert found.accuracy.value == pytest.approx(5 / 12)
    assert {k: round(one.value, 4) for k, one in found.best.items()} == {
        1: round(5 / 12, 4),
        2: 0.5,
        4: round(2 / 3, 4),
    }
    assert 0 <= found.accuracy.low < found.accuracy.value < found.accuracy.high <= 1


@pytest.mark.parametrize(("samples", "sizes"), [(1, [1]), (3, [1, 2, 3]), (8, [1, 2, 4, 8])])
def test_best_is_told_for_powers_of_two_and_for_all(samples: int, sizes: list[int]) -> None:
    assert list(figures(graded([[1] * samples, [0] * samples])).best) == sizes


def test_rates_and_lengths() -> None:
    samples = [
        sample("a", 0, tokens=100, critical_path=50, time_s=1.0, wall_s=1.0),
        sample("a", 1, tokens=300, critical_path=100, time_s=2.0, wall_s=2.0, forks=0),
        sample("b", 0, tokens=50, critical_path=50, time_s=9.0, wall_s=1.0, legal=False, forks=2),
        sample(
            "b", 1, tokens=150, critical_path=50, finish=EndReason.BUDGET, time_s=4.0, wall_s=2.0
        ),
    ]
    found = figures(samples)
    assert found.legal_rate == found.trigger_rate.value == found.completed_rate == 0.75
    assert found.tokens.value == 150
    assert found.critical_path.value == 62.5
    assert found.degree.value == pytest.approx(600 / 250)
    assert found.speed.tokens_per_s == pytest.approx(600 / 6)
    assert found.speed.time_to_answer_s == 3.0
    assert (found.failed, found.baseline) == (0, None)


def test_a_failed_sample_is_wrong_illegal_and_sequential_but_has_no_length() -> None:
    samples = [sample("a"), failed(sample("b"))]
    found = figures(samples)
    assert found.accuracy.value == found.legal_rate == found.trigger_rate.value == 0.5
    assert (found.failed, found.tokens.value, found.degree.value) == (1, 100, 2.0)
    assert found.speed.time_to_answer_s == 1.0


def test_the_baseline() -> None:
    fast = [sample("a", n, wall_s=1.0, time_s=1.0, trace=f"{n}") for n in range(2)]
    slow = [
        sample("a", n, wall_s=3.0, time_s=2.0, trace=f"{2 * n}", mode=Mode.IN_TURN)
        for n in range(2)
    ]
    found = figures([*slow, *fast])
    assert found.samples == 2
    assert found.baseline is not None
    assert found.baseline.speed_up == pytest.approx(3.0)
    assert found.baseline.time_speed_up == pytest.approx(2.0)
    assert found.baseline.same_traces == 0.5
    alone = figures(slow, Mode.IN_TURN)
    assert alone.baseline is None and alone.speed == found.baseline.speed


def test_problems_with_unequal_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="some problems have 1 samples, others 2"):
        figures([sample("a", 0), sample("a", 1), sample("b", 0)])
    with pytest.raises(ValueError, match="no samples to take figures of"):
        figures([sample(mode=Mode.IN_TURN)])


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=12))
def test_figures_hold_together(rights: list[list[bool]]) -> None:
    samples = graded([[int(right) for right in row] for row in rights])
    found = figures(samples)
    values = [found.best[k].value for k in sorted(found.best)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(found.accuracy.value)
    assert values[-1] == pytest.approx(fmean(any(row) for row in rights))
    assert found.accuracy.low <= found.accuracy.value + 1e-12
    assert found.accuracy.value <= found.accuracy.high + 1e-12
    assert figures(samples[::-1]).accuracy.value == pytest.approx(found.accuracy.value)


def test_samples_by_problem_keep_their_order() -> None:
    groups = by_problem([sample("b", 0), sample("a", 0), sample("b", 1)])
    assert {name: [s.number for s in group] for name, group in groups.items()} == {
        "b": [0, 1],
        "a": [0],
    }
