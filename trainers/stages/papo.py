"""Stage 3: PAPO, reinforcement learning of native parallel reasoning (arXiv:2512.07461, section
2.4).

The engine writes the rollouts with forks and joins, so every one that ends is legal; the reward is
that of the answer. Advantages are divided by the standard deviation of the whole batch, and there
is exactly one optimizer step for each batch of rollouts: no clip, no reference model, no old
policy. Samples whose advantage is 0 count in the mean over tokens, but need no forward. Before each
step the log-probabilities of rollout and trainer are compared, for the tokens that teach.
"""

from __future__ import annotations

import time
from pathlib import Path

from nprdsl.trainers.config.stages import PapoConfig
from nprdsl.trainers.objective.losses import papo
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
    return train_in_rounds(config, _round, updates=1, restart=restart, watch=watch, notify=tell)


def _round(rounds: Rounds) -> dict[str, float]:
    """Rollouts, and one update on them; gives their metrics."""
    started = time.perf_counter()
    session, guard = rounds.session, Guard(rounds.roller.config.rollout.mismatch)
    rounds.engine.refresh()
    batch = list(enumerate(rounds.problems[i] for i in rounds.order.batch(session.step)))
    own = dict(own_share(batch, session.accelerator))
    episodes = rounds.roller.episodes(own, session.step)
    rolled_out = time.perf_counter()
    values = advantages(episodes, session.accelerator)
    taught, rows, omitted = teaching(episodes, values)
    rate = session.learning_rate
    update = session.update(
        rows,
        lambda inputs: papo(inputs.logprobs, inputs.weights, inputs.tokens),
        guard.over(taught),
        omitted=omitted,
    )
    return rounds.metrics(episodes, len(own)) | {
        "loss": update.loss,
        "gradient_norm": update.gradient_norm,
        "learning_rate": rate,
        **guard.metrics(),
        "seconds/rollout": rolled_out - started,
        "seconds/update": time.perf_counter() - rolled_out,
    }
