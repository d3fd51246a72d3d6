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

from nprdsl.trainers.batch.update import Check, LossInputs, UpdateResult, unchecked
from nprdsl.trainers.config.stages import ZeroConfig
from nprdsl.trainers.data.problems import Problem
from nprdsl.trainers.objective.advantages import group_normalised, informative
from nprdsl.trainers.objective.losses import DapoStats, dapo
from nprdsl.trainers.rollout.episodes import Episode
from nprdsl.trainers.run.session import Notify, Watch, no_notice, unwatched
from nprdsl.trainers.stages.data import of_all, own_share
from nprdsl.trainers.stages.reinforcement import Guard, Rounds, train_in_rounds

_DRAWN = "drawn"  # in a session's progress: problems that were drawn so far


def train_zero(
    config: ZeroConfig, *, restart: bool = False, watch: Watch = unwatched, tell: Notify = no_notice
) -> Path:
    """Trains to the end, from the last checkpoint on; gives the folder of the model.

    Raises what `prepare` raises, SourceError, MismatchError, and errors of the engine.
    """
    return train_in_rounds(
        config,
        lambda rounds: _Round(config, rounds).play(),
        updates=-(-config.rollout.prompts // config.minibatch),
        overlong=config.overlong,
        restart=restart,
        watch=watch,
        notify=tell,
    )


@dataclass(frozen=True, slots=True)
class _Round:
    config: ZeroConfig
    rounds: Rounds

    def play(self) -> dict[str, float]:
        """Rollouts, and all updates on them; gives their metrics."""
        started = time.perf_counter()
        session, guard = self.rounds.session, Guard(self.config.rollout, self.rounds.accelerator)
        self.rounds.engine.refresh()
        refreshed = time.perf_counter()
        episodes, kept, problems = self._episodes()
        rolled_out = time.perf_counter()
        self.rounds.keep(episodes)
        metrics = self.rounds.metrics(episodes, problems)
        metrics |= self.rounds.zero_advantage(episodes, len(_teaching(episodes)))
        rate = session.learning_rate
        updates, clips = list[UpdateResult](), list[DapoStats]()
        for number, chunk in enumerate(self._minibatches(kept)):
            update, clip = self._update(chunk, guard.over(chunk) if number == 0 else unchecked)
            updates.append(update)
            clips.append(clip)
        return metrics | {
            "rollout/kept": self._share((len(kept), len(episodes))),
            "loss": _mean([update.loss for update in updates]),
            "gradient_norm": _mean([update.gradient_norm for update in updates]),
            "learning_rate": rate,
            "updates": float(len(updates)),
            "clipped": _mean([one.clipped for one in clips]),
            "dual_clipped": _mean([one.dual_clipped for one in clips]),
            **guard.metrics(),
            "seconds/weights": refreshed - started,
            "seconds/rollout": rolled_out - refreshed,
            "seconds/update": time.perf_counter() - rolled_out,
        }

    def _episodes(self) -> tuple[list[Episode], list[Episode], int]:
        """This process's episodes of a round, those of problems that teach something, and how many
        problems it was given. All processes fill one batch."""
        every: list[Episode] = []
        kept: list[Episode] = []
        problems = 0
        for _ in range(1 + self.config.refills):
            missing = self.config.rollout.prompts - len(self._groups(kept))
            if missing == 0:
                break
            own = self._draw(missing)
            episodes = self.rounds.roller.episodes(own, self.rounds.session.step)
            every += episodes
            problems += len(own)
            kept += _teaching(episodes) if self.config.refills else episodes
        return every, kept, problems

    def _groups(self, episodes: list[Episode]) -> list[int]:
        """The problems of the episodes of all processes, by their places."""
        every = of_all({e.group for e in episodes}, self.rounds.accelerator)
        return sorted(set[int]().union(*every))

    def _draw(self, missing: int) -> dict[int, Problem]:
        """This process's share of the next `missing` problems, by their places in the order of
        all."""
        progress, order = self.rounds.session.progress, self.rounds.order
        begin = int(progress.get(_DRAWN, 0))
        end = progress[_DRAWN] = begin + missing
        own = own_share(range(begin, end), self.rounds.accelerator)
        return {place: self.rounds.problems[order.span(place, 1)[0]] for place in own}

    def _minibatches(self, episodes: list[Episode]) -> Iterator[list[Episode]]:
        """The episodes of `minibatch` problems each, over all processes, which may be none here."""
        groups, size = self._groups(episodes), self.config.minibatch
        for begin in range(0, len(groups), size):
            chosen = set(groups[begin : begin + size])
            yield [e for e in episodes if e.group in chosen]

    def _update(self, episodes: list[Episode], check: Check) -> tuple[UpdateResult, DapoStats]:
        clip, cut = self.config.clip, [0.0, 0.0]
        scores, groups = [e.reward.score for e in episodes], [e.group for e in episodes]
        values = group_normalised(scores, groups).tolist()
        rows = [e.rollout.row.weighted(a) for e, a in zip(episodes, values, strict=True)]

        def loss(inputs: LossInputs) -> torch.Tensor:
            value, clipped = dapo(inputs.logprobs, inputs.old, inputs.weights, inputs.tokens, clip)
            for place, share in enumerate((clipped.clipped, clipped.dual_clipped)):
                cut[place] += share * len(inputs.logprobs)
            return value

        update = self.rounds.session.update(rows, loss, check)
        tokens = sum(e.rollout.row.tokens for e in episodes)
        return update, DapoStats(*(self._share((tokens_cut, tokens)) for tokens_cut in cut))

    def _share(self, own: tuple[float, int]) -> float:
        """A part of a whole, over all processes."""
        every = of_all(own, self.rounds.accelerator)
        return sum(part for part, _ in every) / max(1, sum(whole for _, whole in every))


def _teaching(episodes: list[Episode]) -> list[Episode]:
    """Those of problems whose rewards are not all equal."""
    kept = informative([e.reward.score for e in episodes], [e.group for e in episodes])
    return [episode for episode, keep in zip(episodes, kept, strict=True) if keep]


def _mean(values: list[float]) -> float:
    return fmean(values) if values else 0.0
