"""One round of reinforcement learning, the parts that both stages share: problems to episodes to
rows, over all processes.

Every process rolls out its share of the problems with its own engine; rewards are compared over
all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray

from nprdsl.trainers.batch.update import Check, Item
from nprdsl.trainers.config.sections import RolloutSection
from nprdsl.trainers.data.problems import Problem
from nprdsl.trainers.rollout.episodes import Episode, figures
from nprdsl.trainers.rollout.rollout import Mismatch, mismatch

Floats = NDArray[np.float64]
NOTHING: Final = Mismatch(0.0, 0.0, 0)
_Value = TypeVar("_Value")
Advantages = Callable[[Sequence[float], Sequence[int]], Floats]


def mine(problems: Mapping[int, Problem], accelerator: Accelerator) -> dict[int, Problem]:
    """This process's share of numbered problems."""
    numbers = sorted(problems)[accelerator.process_index :: accelerator.num_processes]
    return {number: problems[number] for number in numbers}


def of_all(value: _Value, accelerator: Accelerator) -> list[_Value]:
    """A value of every process, in their order."""
    found: list[_Value] = gather_object([value]) if accelerator.num_processes > 1 else [value]
    return found


def advantages(episodes: Sequence[Episode], find: Advantages, accelerator: Accelerator) -> Floats:
    """float64 [N]: the advantages of this process's episodes; `find` sees the rewards of all."""
    parts = of_all([(e.reward.score, e.group) for e in episodes], accelerator)
    every = [one for part in parts for one in part]
    found = find([score for score, _ in every], [group for _, group in every])
    first = sum(map(len, parts[: accelerator.process_index]))
    return found[first : first + len(episodes)]


def item(episode: Episode, advantage: float) -> Item:
    """A row whose sampled tokens all have the advantage of their episode."""
    rollout = episode.rollout
    weights = np.full(len(rollout.logprobs), advantage)
    return Item(rollout.row, weights, rollout.logprobs)


def teaching(
    episodes: Sequence[Episode], advantages: Floats
) -> tuple[list[Episode], list[Item], int]:
    """The episodes whose advantage is not 0 with their rows, and how many tokens the others
    sampled. One episode at least: every process has to take part in a step."""
    kept = np.flatnonzero(advantages).tolist() or list(range(min(1, len(episodes))))
    taught = [episodes[i] for i in kept]
    items = [item(episodes[i], float(advantages[i])) for i in kept]
    tokens = sum(len(e.rollout.logprobs) for e in episodes)
    return taught, items, tokens - sum(len(e.rollout.logprobs) for e in taught)


@dataclass(slots=True)
class Guard:
    """Compares the log-probabilities of rollout and trainer before an update; `found` is what it
    measured last. Raises MismatchError where they differ by more than `limit`."""

    limit: float
    found: Mismatch = NOTHING

    def over(self, episodes: Sequence[Episode]) -> Check:
        """The check of an update over these episodes."""

        def check(trained: list[Floats]) -> None:
            self.found = mismatch([e.rollout for e in episodes], trained, self.limit)

        return check


def told(
    episodes: Sequence[Episode], section: RolloutSection, problems: int, accelerator: Accelerator
) -> dict[str, float]:
    """Figures of a round over all processes, and how many requests failed."""
    every = of_all((figures(episodes), len(episodes), problems), accelerator)
    count = sum(number for _, number, _ in every)
    asked = section.samples * sum(number for _, _, number in every)
    means = {}
    for name in every[0][0]:
        over, under = (sum(one[name][place] for one, _, _ in every) for place in (0, 1))
        if under:
            means[f"rollout/{name}"] = over / under
    return {**means, "rollout/failed": float(asked - count)}
