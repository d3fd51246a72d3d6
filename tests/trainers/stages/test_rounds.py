"""Which samples of a round teach."""

from __future__ import annotations

import numpy as np
import pytest

from nprdsl.trainers.data.problems import Problem
from nprdsl.trainers.rewards.reasons import Reward
from nprdsl.trainers.rollout.episodes import Episode
from nprdsl.trainers.rollout.rollout import rollout
from nprdsl.trainers.stages.rounds import teaching
from tests.trainers.test_scoring import rollout as written


def episodes() -> list[Episode]:
    problem = Problem("p", "1+1?", "2")
    return [
        Episode(0, problem, rollout(0, written("npr", seed)), False, Reward(0.0, ()), 1)
        for seed in range(3)
    ]


def test_samples_without_an_advantage_need_no_forward() -> None:
    every = episodes()
    taught, items, silent = teaching(every, np.array([0.0, -0.5, 0.0]))
    assert taught == [every[1]]
    assert np.unique(items[0].weights).tolist() == [-0.5]
    assert silent == len(every[0].rollout.logprobs) + len(every[2].rollout.logprobs) > 0


@pytest.mark.parametrize("count", [0, 3])
def test_one_sample_at_least_takes_part(count: int) -> None:
    every = episodes()[:count]
    taught, items, _ = teaching(every, np.zeros(count))
    assert len(taught) == len(items) == min(1, count)
