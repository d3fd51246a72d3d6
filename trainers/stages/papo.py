"""Stage 3: PAPO, reinforcement learning of native parallel reasoning (arXiv:2512.07461, section
2.4).

The engine writes the rollouts with forks and joins, so every one that ends is legal; the reward is
that of the answer. Advantages are (R - mean of the group) / std of the batch (eq. 5), the loss
-(1 / sum |y|) sum pi / sg(pi) A (eq. 6 and 7), and there is exactly one optimizer step for each
batch of rollouts: no clip, no reference model, no old policy. Samples whose advantage is 0 count
among the |y|, but need no forward. Before each step, what rollout and trainer say of the tokens
that teach is compared.
"""

from __future__ import annotations

import time
from pathlib import Path

from nprdsl.trainers.config.stages import PapoConfig
from nprdsl.trainers.objective.advantages import batch_normalised
from nprdsl.trainers.objective.losses import papo
from nprdsl.trainers.rollout.engines import sampler
from nprdsl.trainers.rollout.episodes import Roller
from nprdsl.trainers.run.session import Watch, unwatched
from nprdsl.trainers.stages import rounds, setup
from nprdsl.trainers.stages.order import Order
from nprdsl.trainers.stages.setup import Told, silent
from nprdsl.trainers.stages.validation import Validation


def train_papo(
    config: PapoConfig, *, restart: bool = False, watch: Watch = unwatched, tell: Told = silent
) -> Path:
    """Trains to the end, from the last checkpoint on; gives the folder of the model.

    Raises what `setup.begin` raises, SourceError, MismatchError, and errors of the engine.
    """
    begun = setup.begin(config, config.model, config.run, config.language, restart=restart)
    if begun.directory.complete:
        return begun.directory.model
    accelerator, section = begun.accelerator, config.rollout
    problems = setup.asked(begun, config.data, config.prompt, config.rollout, config.run.room, tell)
    order = Order(len(problems), section.prompts, config.run.seed, config.shuffle)
    total = config.steps or order.batches(1.0)
    session = setup.session(
        begun, config.model, config.run, config.optimizer, total=total, updates=total, watch=watch
    )
    engine = sampler(config.engine, accelerator, session.model, session.wrapped, session.tokenizer)
    roller = Roller(
        engine.engine, begun.schema, section, config.prompt, config.reward, config.run.seed
    )
    validation = Validation(config.evaluation, config.prompt, begun, session, engine)
    guard = rounds.Guard(section.mismatch)
    while session.step < total:
        metrics, since = validation.metrics(), time.perf_counter()
        batch = dict(enumerate(problems[i] for i in order.batch(session.step)))
        engine.refresh()
        own = rounds.mine(batch, accelerator)
        episodes = roller.episodes(own, session.step)
        rolled = time.perf_counter()
        found = rounds.advantages(episodes, batch_normalised, accelerator)
        taught, items, silent = rounds.teaching(episodes, found)
        rate = session.learning_rate
        done = session.updater.step(
            items,
            lambda b: papo(b.logprobs, b.weights, b.tokens),
            guard.over(taught),
            silent=silent,
        )
        session.updated()
        metrics |= rounds.told(episodes, section, len(own), accelerator)
        metrics |= {
            "loss": done.loss,
            "gradient_norm": done.gradient_norm,
            "learning_rate": rate,
            "mismatch/largest": guard.found.largest,
            "mismatch/mean": guard.found.mean,
            "seconds/rollout": rolled - since,
            "seconds/update": time.perf_counter() - rolled,
        }
        session.end_step(metrics)
    validation.last()
    return session.finish()
