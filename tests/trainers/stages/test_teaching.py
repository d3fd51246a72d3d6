"""Which samples of a round teach."""

from __future__ import annotations

import numpy as np
import pytest

from nprdsl.trainers.data.problems import Problem
from nprdsl.trainers.rewards import Reward
from nprdsl.trainers.rollout.episodes import Episode
from nprdsl.trainers.rollout.rollout import of_result
from nprdsl.trainers.stages.reinforcement import teaching
from tests.trainers.test_scoring import rollout as written

PROBLEM = Problem("one", "1+1?", "2")


def episodes() -> list[Episode]:
    rollouts = [of_result(0, written("npr", seed)) for seed in range(3)]
    return [Episode(PROBLEM, 0, rollout, False, Reward(0.0), 1) for rollout in rollouts]


def test_samples_without_an_advantage_need_no_forward() -> None:
    every = episodes()
    taught, rows, omitted = teaching(every, np.array([0.0, -0.5, 0.0]))
    assert taught == [every[1]]
    assert np.unique(rows[0].weights).tolist() == [-0.5]
    assert omitted == len(every[0].rollout.row.logprobs) + len(every[2].rollout.row.logprobs) > 0


@pytest.mark.parametrize("count", [0, 3])
def test_one_sample_at_least_takes_part(count: int) -> None:
    every = episodes()[:count]
    taught, rows, _ = teaching(every, np.zeros(count))
    assert len(taught) == len(rows) == min(1, count)
