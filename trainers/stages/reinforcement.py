"""Reinforcement learning, what both of its stages share: rounds of rollouts and updates.

In a round every process puts its share of the problems to its own engine, grades the rollouts, and
updates the weights on the training rows of those that teach something; rewards are compared over
all processes. Which problems are drawn, which advantage a rollout has and which loss is minimised
is the stage's own (`zero`, `papo`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from accelerate import Accelerator

from nprdsl.trainers.batch.training_rows import TrainingRow
from nprdsl.trainers.batch.update import Check
from nprdsl.trainers.config.stages import OverlongSection, ReinforcementConfig, RolloutSection
from nprdsl.trainers.data.problems import Problem
from nprdsl.trainers.objective.advantages import Floats, batch_normalised
from nprdsl.trainers.rollout.engines import RolloutEngine, rollout_engine
from nprdsl.trainers.rollout.episodes import OFF, Episode, Roller, figures
from nprdsl.trainers.rollout.mismatch import Mismatch, compare, gaps_between
from nprdsl.trainers.run.session import Notify, Session, Watch, prepare
from nprdsl.trainers.stages.data import Order, of_all, rollout_problems
from nprdsl.trainers.stages.validation import Validation

_KEPT: Final = 2  # episodes of each step, of the best and of the worst
NO_TOKENS: Final = Mismatch()


@dataclass(slots=True)
class Guard:
    """Compares the log-probabilities of rollout and trainer before an update; `measured` is what it
    found last, over all processes."""

    section: RolloutSection
    accelerator: Accelerator
    measured: Mismatch = NO_TOKENS

    def over(self, episodes: Sequence[Episode]) -> Check:
        """The check of an update over these episodes of this process. Raises MismatchError."""

        def check(trained: list[Floats]) -> None:
            gaps = gaps_between([e.rollout for e in episodes], trained)
            self.measured = compare(gaps, self.section, self.accelerator)

        return check

    def metrics(self) -> dict[str, float]:
        return self.measured.metrics()


@dataclass(frozen=True, slots=True)
class Rounds:
    """What a stage needs for its rounds."""

    session: Session
    engine: RolloutEngine
    roller: Roller
    problems: list[Problem]
    order: Order

    @property
    def accelerator(self) -> Accelerator:
        return self.session.accelerator

    def keep(self, episodes: Sequence[Episode]) -> None:
        """The episodes of the main process with the greatest and the least rewards of the step go
        into the run's folder."""
        if not self.accelerator.is_main_process:
            return
        ordered = sorted(episodes, key=lambda episode: -episode.reward.score)
        kept = ordered if len(ordered) <= 2 * _KEPT else [*ordered[:_KEPT], *ordered[-_KEPT:]]
        name = self.roller.schema.name
        rows = ({"schema": name, **episode.record()} for episode in kept)
        self.session.setup.directory.keep_rollouts(self.session.step + 1, rows)

    def metrics(self, episodes: Sequence[Episode], problems: int) -> dict[str, float]:
        """Figures of a round over all processes, and how many requests failed; `episodes` are
        those of this process, `problems` how many it was given."""
        every = of_all((figures(episodes), len(episodes), problems), self.accelerator)
        count = sum(number for _, number, _ in every)
        requests = self.roller.config.rollout.samples * sum(number for _, _, number in every)
        means = {}
        for name in every[0][0]:
            over, under = (sum(own[name][place] for own, _, _ in every) for place in (0, 1))
            if under:
                means[f"rollout/{name}"] = over / under
        return {**means, "rollout/failed": float(requests - count)}

    def zero_advantage(self, episodes: Sequence[Episode], taught: int) -> dict[str, float]:
        """The share of the episodes of all processes that teach nothing; `taught` of these do."""
        every = of_all((taught, len(episodes)), self.accelerator)
        learned, count = (sum(own[place] for own in every) for place in (0, 1))
        return {"rollout/zero_advantage": 1 - learned / count} if count else {}


def train_in_rounds(
    config: ReinforcementConfig,
    play: Callable[[Rounds], dict[str, float]],
    *,
    updates: int,
    overlong: OverlongSection = OFF,
    restart: bool,
    watch: Watch,
    notify: Notify,
) -> Path:
    """Trains to the end, from the last checkpoint on; gives the folder of the model. `play` is a
    round and gives its metrics, `updates` how many optimizer steps it makes at most."""
    setup = prepare(config, restart=restart)
    if setup.directory.complete:
        return setup.directory.model
    problems = rollout_problems(setup, config, notify)
    order = Order(len(problems), config.rollout.prompts, config.run.seed, config.shuffle)
    total = config.steps or order.batches(1.0)
    session = Session(setup, total=total, updates=total * updates, watch=watch, notify=notify)
    engine = rollout_engine(config.engine, session)
    roller = Roller(engine.engine, setup.schema, config, overlong)
    rounds = Rounds(session, engine, roller, problems, order)
    validation = Validation(session, engine)
    while session.step < total:
        metrics = validation.metrics()
        session.end_step(metrics | play(rounds))
    validation.last()
    return session.finish()


def advantages(episodes: Sequence[Episode], accelerator: Accelerator) -> Floats:
    """float64 [N]: the advantages of this process's episodes in the batch of all processes."""
    parts = of_all([(e.reward.score, e.group) for e in episodes], accelerator)
    every = [pair for part in parts for pair in part]
    values = batch_normalised([score for score, _ in every], [group for _, group in every])
    first = sum(map(len, parts[: accelerator.process_index]))
    return values[first : first + len(episodes)]


def teaching(
    episodes: Sequence[Episode], advantages: Floats
) -> tuple[list[Episode], list[TrainingRow], int]:
    """The episodes whose advantage is not 0 with their rows, and how many tokens the others
    sampled. One episode at least: every process has to take part in a step."""
    kept = np.flatnonzero(advantages).tolist() or list(range(min(1, len(episodes))))
    taught = [episodes[i] for i in kept]
    rows = [episodes[i].rollout.row.weighted(float(advantages[i])) for i in kept]
    omitted = sum(e.rollout.row.tokens for e in episodes) - sum(row.tokens for row in rows)
    return taught, rows, omitted
