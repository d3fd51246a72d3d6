"""Episodes: rollouts of problems, graded, with the reward that trains."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from nprdsl.machine.budget import Limits
from nprdsl.runtime.engine import Engine
from nprdsl.schema import Schema
from nprdsl.trainers.config.sections import PromptSection, RolloutSection
from nprdsl.trainers.config.stages import OverlongSection
from nprdsl.trainers.data.problems import Problem
from nprdsl.trainers.evaluate.samples import Mode
from nprdsl.trainers.grading.grading import is_right
from nprdsl.trainers.objective.advantages import overlong
from nprdsl.trainers.rewards.presets import PRESETS, Judged
from nprdsl.trainers.rewards.reasons import Reason, Reward
from nprdsl.trainers.rollout.rollout import Rollout, free_rollouts, rollouts

OFF: Final = OverlongSection(buffer=0)
Sums = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """One rollout of one problem. `group` numbers the problem in the whole batch; `critical_path`
    counts the tokens that were written one after another."""

    group: int
    problem: Problem
    rollout: Rollout
    right: bool
    reward: Reward
    critical_path: int


@dataclass(frozen=True, slots=True)
class Roller:
    """Puts problems to an engine and grades what comes back."""

    engine: Engine
    schema: Schema
    section: RolloutSection
    prompt: PromptSection
    reward: str
    seed: int
    long: OverlongSection = OFF

    def episodes(self, problems: Mapping[int, Problem], batch: int) -> list[Episode]:
        """`samples` episodes of each problem; the numbers of the problems, with that of the batch,
        decide what is drawn. Requests that failed are missing."""
        numbers = list(problems)
        seeds = [seed_of(self.seed, batch, str(number)) for number in numbers]
        asked = [problems[number].prompt for number in numbers]
        found = self._rollouts(asked, seeds)
        return [self._graded(numbers[one.group], problems, one, batch) for one in found]

    def _rollouts(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Rollout]:
        section, chat, instructions = self.section, self.prompt.chat, self.prompt.instructions
        if section.mode is Mode.FREE:
            return free_rollouts(
                self.engine, self.schema, prompts, section.samples, seeds=seeds,
                max_tokens=section.max_tokens, chat=chat, instructions=instructions,
            )  # fmt: skip
        limits = Limits(
            max_tokens=section.max_tokens,
            depth=section.depth,
            branches=section.branches,
            blocks=section.blocks,
        )
        return rollouts(
            self.engine, self.schema, prompts, section.samples, seeds=seeds,
            limits=limits, chat=chat, instructions=instructions,
        )  # fmt: skip

    def _graded(
        self, group: int, problems: Mapping[int, Problem], one: Rollout, batch: int
    ) -> Episode:
        problem = problems[group]
        right = is_right(one.text, problem.answer, choices=problem.choices)
        if self.reward == "random":
            reward = _random(one, self.seed, batch)
        else:
            judged = Judged(
                self.schema.grammar, one.text, problem.answer, right, one.violations, one.graph
            )
            reward = PRESETS[self.reward](judged)
        if self.long.buffer:
            score = overlong(
                len(one.token_ids), self.section.max_tokens, self.long.buffer, self.long.factor
            )
            reward += Reward(score, (Reason("overlong", score, f"{len(one.token_ids)} tokens"),))
        path = len(one.token_ids)
        if one.graph is not None and self.section.mode is Mode.PARALLEL:
            path = one.graph.critical_path
        return Episode(group, problem, one, right, reward, path)


def _random(one: Rollout, seed: int, batch: int) -> Reward:
    """A control: +1 or -1 whatever was written."""
    score = 1.0 if seed_of(seed, batch, repr(one.token_ids)) % 2 else -1.0
    return Reward(score, (Reason("random", score, "drawn"),))


def seed_of(seed: int, batch: int, name: str) -> int:
    """The seed of a problem's samples; it does not depend on what else is sampled."""
    told = f"{seed} {batch} {name}".encode()
    return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "little")


def _mean(of: Callable[[Episode], float]) -> Callable[[Sequence[Episode]], Sums]:
    return lambda es: (float(sum(map(of, es))), float(len(es)))


def _degree(episodes: Sequence[Episode]) -> Sums:
    """Tokens over those of the longest paths."""
    tokens = sum(len(e.rollout.token_ids) for e in episodes)
    return float(tokens), float(sum(e.critical_path for e in episodes))


def _entropy(episodes: Sequence[Episode]) -> Sums:
    """Nats for each token, estimated by what was drawn: the mean of -log pi."""
    drawn = [e.rollout.logprobs for e in episodes]
    return -float(sum(one.sum() for one in drawn)), float(sum(map(len, drawn)))


_FIGURES: Final[Mapping[str, Callable[[Sequence[Episode]], Sums]]] = MappingProxyType(
    {
        "reward": _mean(lambda e: e.reward.score),
        "accuracy": _mean(lambda e: e.right),
        "legal": _mean(lambda e: e.rollout.graph is not None),
        "parallel": _mean(lambda e: _forks(e) > 0),
        "degree": _degree,
        "tokens": _mean(lambda e: len(e.rollout.token_ids)),
        "critical_path": _mean(lambda e: e.critical_path),
        "entropy": _entropy,
    }
)


def figures(episodes: Sequence[Episode]) -> dict[str, Sums]:
    """What some episodes add to the figures of a batch: sums above and below the line, so that
    those of several processes can be added up."""
    return {name: find(episodes) for name, find in _FIGURES.items()}


def _forks(episode: Episode) -> int:
    """Forks into two or more branches (arXiv:2512.07461, eq. 8)."""
    graph = episode.rollout.graph
    return 0 if graph is None else sum(len(fork.after) >= 2 for fork in graph.forks)
