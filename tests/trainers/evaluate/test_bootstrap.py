"""Intervals: they repeat, they cover, pairs make them narrow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nprdsl.trainers.evaluate.bootstrap import DRAWS, Estimate, difference, mean, ratio

VALUES = st.lists(st.floats(-100, 100), min_size=1, max_size=20)


@given(VALUES)
def test_the_mean_lies_in_the_range_of_its_draws(values: list[float]) -> None:
    found = mean(values)
    assert found.value == pytest.approx(np.mean(values), abs=1e-9)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert mean(values) == found


def test_the_interval_is_that_of_drawing_again() -> None:
    """The plain way: draw problems with replacement, take the mean, sort, cut."""
    values = np.random.default_rng(3).exponential(size=40)
    random = np.random.default_rng(1)
    means = np.sort([random.choice(values, 40).mean() for _ in range(DRAWS)])
    found = mean(values.tolist())
    assert found.low == pytest.approx(means[int(0.025 * DRAWS)], rel=0.03)
    assert found.high == pytest.approx(means[int(0.975 * DRAWS)], rel=0.03)


def test_the_interval_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    covered = [
        found.low <= 0.3 <= found.high
        for found in (mean((random.random(100) < 0.3).astype(float).tolist()) for _ in range(300))
    ]
    assert 0.90 <= np.mean(covered) <= 0.99


def test_a_ratio_is_of_sums_not_of_ratios() -> None:
    assert ratio([100.0, 1.0], [50.0, 1.0]).value == pytest.approx(101 / 51)
    assert ratio([0.0, 0.0], [0.0, 0.0]) == Estimate(0.0, 0.0, 0.0)


def test_pairs_are_drawn_together() -> None:
    hard = np.random.default_rng(2).random(200)
    ones = [1.0] * 200
    better = (hard + 0.05).tolist()
    paired = difference((better, ones), (hard.tolist(), ones))
    assert paired.value == pytest.approx(0.05)
    assert paired.high - paired.low < 1e-9 and paired.differs
    shuffled = np.random.default_rng(4).permutation(hard).tolist()
    assert not difference((better, ones), (shuffled, ones)).differs


def test_nothing_differs_from_itself() -> None:
    found = difference(([1.0, 0.0], [1.0, 1.0]), ([1.0, 0.0], [1.0, 1.0]))
    assert found == Estimate(0.0, 0.0, 0.0) and not found.differs


def test_many_problems_are_drawn_in_parts() -> None:
    found = mean([0.0, 1.0] * 2500)
    assert found.value == 0.5 and 0.48 < found.low < 0.5 < found.high < 0.52


def test_no_problems_no_mean() -> None:
    with pytest.raises(ValueError, match="there are no problems to take a mean of"):
        mean([])
    with pytest.raises(ValueError, match=r"the interval from 2\.0 to 1\.0 is empty"):
        Estimate(1.0, 2.0, 1.0)
