"""Stage 3: PAPO, reinforcement learning of native parallel reasoning (arXiv:2512.07461, section
2.4).

The engine writes the rollouts with forks and joins, so every one that ends is legal; the reward is
that of the answer. Advantages are divided by the standard deviation of the whole batch, and there
is exactly one optimizer step for each batch of rollouts: no clip, no reference model, no old
policy. Samples whose advantage is 0 count in the mean over tokens, but need no forward. Before each
step the log-probabilities of rollout and trainer are compared, for the tokens that teach. What the
two differ by may be weighed back by `importance_cap`; that is off unless asked for.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from nprdsl.trainers.batch.update import LossInputs
from nprdsl.trainers.config.stages import PapoConfig
from nprdsl.trainers.objective.losses import papo, truncated_importance
from nprdsl.trainers.run.session import Notify, Watch, no_notice, unwatched
from nprdsl.trainers.stages.data import own_share
from nprdsl.trainers.stages.reinforcement import (
    Guard,
    Rounds,
    advantages,
    teaching,
    train_in_rounds,
)


def train_papo(
    config: PapoConfig, *, restart: bool = False, watch: Watch = unwatched, tell: Notify = no_notice
) -> Path:
    """Trains to the end, from the last checkpoint on; gives the folder of the model.

    Raises what `prepare` raises, SourceError, MismatchError, and errors of the engine.
    """

    def play(rounds: Rounds) -> dict[str, float]:
        return _round(rounds, config)

    return train_in_rounds(config, play, updates=1, restart=restart, watch=watch, notify=tell)


def _round(rounds: Rounds, config: PapoConfig) -> dict[str, float]:
    """Rollouts, and one update on them; gives their metrics."""
    started = time.perf_counter()
    session, guard = rounds.session, Guard(config.rollout, rounds.accelerator)
    rounds.engine.refresh()
    refreshed = time.perf_counter()
    batch = list(enumerate(rounds.problems[i] for i in rounds.order.batch(session.step)))
    own = dict(own_share(batch, session.accelerator))
    episodes = rounds.roller.episodes(own, session.step)
    rolled_out = time.perf_counter()
    values = advantages(episodes, session.accelerator)
    taught, rows, omitted = teaching(episodes, values)
    rate = session.learning_rate

    def loss(inputs: LossInputs) -> torch.Tensor:
        weights = inputs.weights
        if config.importance_cap is not None:
            weights = weights * truncated_importance(
                inputs.logprobs, inputs.old, config.importance_cap
            )
        return papo(inputs.logprobs, weights, inputs.tokens)

    update = session.update(
        rows,
        loss,
        guard.over(taught),
        omitted=omitted,
    )
    rounds.keep(episodes)
    metrics = rounds.metrics(episodes, len(own))
    metrics |= rounds.zero_advantage(episodes, int(np.count_nonzero(values)))
    return metrics | {
        "loss": update.loss,
        "gradient_norm": update.gradient_norm,
        "learning_rate": rate,
        **guard.metrics(),
        "seconds/weights": refreshed - started,
        "seconds/rollout": rolled_out - refreshed,
        "seconds/update": time.perf_counter() - rolled_out,
    }
