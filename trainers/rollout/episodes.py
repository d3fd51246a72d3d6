"""Episodes: rollouts of problems, graded, with the reward that trains."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from nprdsl.machine.budget import Limits
from nprdsl.runtime.engine import Engine
from nprdsl.schema import Schema
from nprdsl.trace.graph import Role
from nprdsl.trainers.config.stages import OverlongSection, ReinforcementConfig
from nprdsl.trainers.data.problems import Problem
from nprdsl.trainers.evaluate.samples import Mode, wide_forks
from nprdsl.trainers.objective.advantages import overlong
from nprdsl.trainers.rewards import Reason, Reward
from nprdsl.trainers.rewards.presets import PRESETS, GradedTrace
from nprdsl.trainers.rewards.roles import wrapper_of
from nprdsl.trainers.rollout.rollout import Rollout, rollouts

OFF: Final = OverlongSection(buffer=0)
Quotient = tuple[float, float]  # dividend and divisor, to be summed over processes


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """One graded rollout. `group` numbers its problem in the whole batch; `critical_path` counts
    the tokens that were written one after another."""

    problem: Problem
    group: int
    rollout: Rollout
    right: bool
    reward: Reward
    critical_path: int

    def record(self) -> dict[str, Any]:
        """What people look at, as JSON values."""
        rollout = self.rollout
        return {
            "problem": self.problem.id,
            "prompt": self.problem.prompt,
            "reward": round(self.reward.score, 4),
            "right": self.right,
            "answer": rollout.answer,
            "finish": rollout.finish.value,
            "tokens": len(rollout.token_ids),
            "critical_path": self.critical_path,
            "faults": ", ".join(dict.fromkeys(v.code.value for v in rollout.violations)),
            "text": rollout.text,
        }


@dataclass(frozen=True, slots=True)
class Roller:
    """Puts problems to an engine and grades what comes back."""

    engine: Engine
    schema: Schema
    config: ReinforcementConfig
    overlong: OverlongSection = OFF

    def episodes(self, problems: Mapping[int, Problem], batch: int) -> list[Episode]:
        """`rollout.samples` episodes of each problem. The numbers of the problems and that of the
        batch decide what is drawn. Requests that failed are missing."""
        section, prompt = self.config.rollout, self.config.prompt
        numbers = list(problems)
        finished = rollouts(
            self.engine,
            self.schema,
            [problems[number].prompt for number in numbers],
            section.samples,
            mode=section.mode,
            seeds=[seed_of(self.config.run.seed, batch, str(number)) for number in numbers],
            limits=Limits(
                max_tokens=section.max_tokens,
                depth=section.depth,
                branches=section.branches,
                blocks=section.blocks,
            ),
            chat=prompt.chat,
            instructions=prompt.instructions,
        )
        groups = [numbers[rollout.group] for rollout in finished]
        return [
            self._graded(group, problems[group], rollout, batch)
            for group, rollout in zip(groups, finished, strict=True)
        ]

    def _graded(self, group: int, problem: Problem, rollout: Rollout, batch: int) -> Episode:
        section, graph = self.config.rollout, rollout.graph
        right = problem.is_answered_by(rollout.text, marked=rollout.answer)
        if self.config.reward == "random":
            reward = _random(rollout, self.config.run.seed, batch)
        else:
            grammar = self.schema.grammar
            graded = GradedTrace(
                grammar,
                rollout.text,
                problem.answer,
                right,
                rollout.violations,
                graph,
                wrapper_of(grammar).tokens,
            )
            reward = PRESETS[self.config.reward](graded)
        length = len(rollout.token_ids)
        if self.overlong.buffer:
            score = overlong(length, section.max_tokens, self.overlong.buffer, self.overlong.factor)
            reward += Reward(score, (Reason("overlong", score, f"{length} tokens"),))
        path = length
        if graph is not None and section.mode is Mode.PARALLEL:
            path = graph.critical_path
        return Episode(problem, group, rollout, right, reward, path)


def _random(rollout: Rollout, seed: int, batch: int) -> Reward:
    """A control: +1 or -1 whatever was written."""
    score = 1.0 if seed_of(seed, batch, repr(rollout.token_ids)) % 2 else -1.0
    return Reward(score, (Reason("random", score, "drawn"),))


def seed_of(seed: int, batch: int, name: str) -> int:
    """The seed of a problem's samples; it does not depend on what else is sampled."""
    data = f"{seed} {batch} {name}".encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _mean(value: Callable[[Episode], float]) -> Callable[[Sequence[Episode]], Quotient]:
    return lambda episodes: (float(sum(map(value, episodes))), float(len(episodes)))


def _degree(episodes: Sequence[Episode]) -> Quotient:
    """Tokens over those of the longest paths."""
    tokens = sum(len(e.rollout.token_ids) for e in episodes)
    return float(tokens), float(sum(e.critical_path for e in episodes))


def _entropy(episodes: Sequence[Episode]) -> Quotient:
    """Nats for each token, estimated by what was drawn: the mean of -log pi."""
    logprobs = [e.rollout.row.logprobs for e in episodes]
    return -float(sum(one.sum() for one in logprobs)), float(sum(map(len, logprobs)))


def _forced(episode: Episode) -> int:
    """Tokens of the trace that nobody chose: headers, labels, glue."""
    return len(episode.rollout.token_ids) - episode.rollout.row.tokens


def _prompt(episode: Episode) -> int:
    row = episode.rollout.row
    return int(row.token.max()) + 1 - len(episode.rollout.token_ids)


def _in_branches(episodes: Sequence[Episode]) -> Quotient:
    """Tokens of traces that lie in a branch, over all of them; text that is no trace has none."""
    inside = 0
    for rollout in (episode.rollout for episode in episodes):
        if rollout.graph is not None and rollout.graph.unit == "tokens":
            lying = (one for one in rollout.graph.segments if one.path and one.role != Role.REREAD)
            inside += sum(one.source_end - one.source_start for one in lying)
    return float(inside), float(sum(len(e.rollout.token_ids) for e in episodes))


_FIGURES: Final[Mapping[str, Callable[[Sequence[Episode]], Quotient]]] = MappingProxyType(
    {
        "reward": _mean(lambda e: e.reward.score),
        "accuracy": _mean(lambda e: e.right),
        "legal": _mean(lambda e: e.rollout.graph is not None),
        "parallel": _mean(lambda e: wide_forks(e.rollout.graph) > 0),
        "degree": _degree,
        "tokens": _mean(lambda e: len(e.rollout.token_ids)),
        "tokens_prompt": _mean(_prompt),
        "tokens_forced": _mean(_forced),
        "in_branches": _in_branches,
        "critical_path": _mean(lambda e: e.critical_path),
        "entropy": _entropy,
    }
)


def figures(episodes: Sequence[Episode]) -> dict[str, Quotient]:
    """What some episodes add to each figure of a batch."""
    return {name: quotient(episodes) for name, quotient in _FIGURES.items()}
