"""Stage 1: NPR-Zero, the format by reinforcement learning (arXiv:2512.07461, section 2.2).

The model writes freely, one token after another; the reward is what its violations of the schema
cost, and that of the answer where there are none. DAPO (arXiv:2503.14476): clip-higher with a dual
clip, token mean, problems whose samples all have one reward drawn again, overlong answers shaped.
A batch of rollouts makes several optimizer steps, of `minibatch` problems each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from nprdsl.trainers.batch.update import Batch, Step
from nprdsl.trainers.config.stages import ZeroConfig
from nprdsl.trainers.data.problems import Problem
from nprdsl.trainers.objective.advantages import group_normalised, informative
from nprdsl.trainers.objective.losses import Clip, DapoStats, dapo
from nprdsl.trainers.rollout.engines import Sampler, sampler
from nprdsl.trainers.rollout.episodes import Episode, Roller
from nprdsl.trainers.run.session import Session, Watch, unwatched
from nprdsl.trainers.stages import rounds, setup
from nprdsl.trainers.stages.order import Order
from nprdsl.trainers.stages.setup import Told, silent
from nprdsl.trainers.stages.validation import Validation

_DRAWN = "drawn"  # in a session's progress: problems that were drawn so far


def train_zero(
    config: ZeroConfig, *, restart: bool = False, watch: Watch = unwatched, tell: Told = silent
) -> Path:
    """Trains to the end, from the last checkpoint on; gives the folder of the model.

    Raises what `setup.begin` raises, SourceError, MismatchError, and errors of the engine.
    """
    begun = setup.begin(config, config.model, config.run, config.language, restart=restart)
    if begun.directory.complete:
        return begun.directory.model
    problems = setup.asked(begun, config.data, config.prompt, config.rollout, config.run.room, tell)
    section = config.rollout
    order = Order(len(problems), section.prompts, config.run.seed, config.shuffle)
    total = config.steps or order.batches(1.0)
    updates = total * -(-section.prompts // config.minibatch)
    session = setup.session(
        begun, config.model, config.run, config.optimizer, total=total, updates=updates, watch=watch
    )
    engine = sampler(
        config.engine, begun.accelerator, session.model, session.wrapped, session.tokenizer
    )
    roller = Roller(
        engine.engine, begun.schema, section, config.prompt, config.reward, config.run.seed,
        config.overlong,
    )  # fmt: skip
    stage = _Stage(config, session, engine, roller, problems, order)
    validation = Validation(config.evaluation, config.prompt, begun, session, engine)
    while session.step < total:
        metrics = validation.metrics()
        session.end_step(metrics | stage.round())
    validation.last()
    return session.finish()


@dataclass(slots=True)
class _Stage:
    config: ZeroConfig
    session: Session
    engine: Sampler
    roller: Roller
    problems: list[Problem]
    order: Order

    def round(self) -> dict[str, float]:
        """Rollouts, and all updates on them; gives their metrics."""
        since = time.perf_counter()
        accelerator = self.session.accelerator
        self.engine.refresh()
        episodes, kept, asked = self._episodes()
        rolled = time.perf_counter()
        metrics = rounds.told(episodes, self.config.rollout, asked, accelerator)
        metrics["rollout/kept"] = len(kept) / max(1, len(episodes))
        guard = rounds.Guard(self.config.rollout.mismatch)
        steps, clips = [], []
        rate = self.session.learning_rate
        for number, chunk in enumerate(self._chunks(kept)):
            done, clip = self._update(chunk, guard if number == 0 else None)
            steps.append(done)
            clips.append(clip)
        return metrics | {
            "loss": fmean(step.loss for step in steps) if steps else 0.0,
            "gradient_norm": fmean(step.gradient_norm for step in steps) if steps else 0.0,
            "learning_rate": rate,
            "updates": float(len(steps)),
            "clipped": fmean(c.clipped for c in clips) if clips else 0.0,
            "dual_clipped": fmean(c.dual_clipped for c in clips) if clips else 0.0,
            "mismatch/largest": guard.found.largest,
            "mismatch/mean": guard.found.mean,
            "seconds/rollout": rolled - since,
            "seconds/update": time.perf_counter() - rolled,
        }

    def _episodes(self) -> tuple[list[Episode], list[Episode], int]:
        """All episodes of a round, those of problems that teach something, and the problems asked
        of this process. Every process fills its own part of the batch."""
        room = -(-self.config.rollout.prompts // self.session.accelerator.num_processes)
        every: list[Episode] = []
        kept: list[Episode] = []
        asked = 0
        for _ in range(1 + self.config.refills):
            missing = room - len({e.group for e in kept})
            most = max(rounds.of_all(missing, self.session.accelerator))
            if most == 0:
                break
            own = self._draw(missing, most)
            found = self.roller.episodes(own, self.session.step)
            every += found
            asked += len(own)
            kept += _teaching(found) if self.config.refills else found
        return every, kept, asked

    def _draw(self, missing: int, most: int) -> dict[int, Problem]:
        """The next problems for this process, where one misses `most`, by their places in the order
        of all."""
        accelerator, progress = self.session.accelerator, self.session.progress
        begin = int(progress.get(_DRAWN, 0))
        end = progress[_DRAWN] = begin + most * accelerator.num_processes
        places = range(begin + accelerator.process_index, end, accelerator.num_processes)
        return {at: self.problems[self.order.span(at, 1)[0]] for at in places[:missing]}

    def _chunks(self, episodes: list[Episode]) -> Iterator[list[Episode]]:
        """The episodes of `minibatch` problems each; as many for every process."""
        accelerator = self.session.accelerator
        groups = sorted({e.group for e in episodes})
        size = max(1, self.config.minibatch // accelerator.num_processes)
        for number in range(min(rounds.of_all(-(-len(groups) // size), accelerator))):
            chosen = set(groups[number * size : (number + 1) * size])
            yield [e for e in episodes if e.group in chosen]

    def _update(
        self, episodes: list[Episode], guard: rounds.Guard | None
    ) -> tuple[Step, DapoStats]:
        session, stats = self.session, list[DapoStats]()
        clip = Clip(self.config.clip.low, self.config.clip.high, self.config.clip.dual)
        found = group_normalised([e.reward.score for e in episodes], [e.group for e in episodes])
        items = [rounds.item(e, float(a)) for e, a in zip(episodes, found, strict=True)]

        def loss(batch: Batch) -> torch.Tensor:
            value, told = dapo(batch.logprobs, batch.old, batch.weights, batch.tokens, clip)
            stats.append(told)
            return value

        if guard is None:
            done = session.updater.step(items, loss)
        else:
            done = session.updater.step(items, loss, guard.over(episodes))
        session.updated()
        return done, DapoStats(
            fmean(one.clipped for one in stats), fmean(one.dual_clipped for one in stats)
        )


def _teaching(episodes: list[Episode]) -> list[Episode]:
    """Those of problems whose rewards are not all equal."""
    kept = informative([e.reward.score for e in episodes], [e.group for e in episodes])
    return [episode for episode, keep in zip(episodes, kept, strict=True) if keep]
