"""Imitation of given traces: stage 2 of NPR (arXiv:2512.07461, section 2.3), and its baselines.

The loss is the mean of -log pi over the sampled tokens of a batch; what a generation would have
forced carries none. Layout `parallel` trains branches that do not see each other, at the positions
at which they are generated; layout `causal` trains plain sequences.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.trainers.batch.examples import Lay, as_graph, as_sequence, as_text, prepare
from nprdsl.trainers.batch.packed_rows import Row
from nprdsl.trainers.batch.update import Item
from nprdsl.trainers.config.stages import Layout, SftConfig
from nprdsl.trainers.objective.losses import sft
from nprdsl.trainers.run.session import Watch, unwatched
from nprdsl.trainers.stages import setup
from nprdsl.trainers.stages.order import Order
from nprdsl.trainers.stages.setup import Setup, Told, silent
from nprdsl.trainers.stages.validation import Validation


def train_sft(
    config: SftConfig, *, restart: bool = False, watch: Watch = unwatched, tell: Told = silent
) -> Path:
    """Trains to the end, from the last checkpoint on; gives the folder of the model.

    Raises what `setup.begin` raises, SourceError, and ValueError where no trace can be used.
    """
    begun = setup.begin(config, config.model, config.run, config.language, restart=restart)
    if begun.directory.complete:
        return begun.directory.model
    rows = _rows(config, begun, tell)
    order = Order(len(rows), config.batch, config.run.seed, config.shuffle)
    total = order.batches(config.epochs)
    session = setup.session(
        begun, config.model, config.run, config.optimizer, total=total, updates=total, watch=watch
    )
    validation = Validation(config.evaluation, config.prompt, begun, session)
    while session.step < total:
        since = time.perf_counter()
        metrics = validation.metrics()
        mine = setup.share(order.batch(session.step), begun.accelerator)
        items = [Item(rows[i], np.ones(int(rows[i].sampled.sum()))) for i in mine]
        rate = session.learning_rate
        done = session.updater.step(items, lambda b: sft(b.logprobs, b.tokens))
        session.updated()
        metrics |= {
            "loss": done.loss,
            "gradient_norm": done.gradient_norm,
            "learning_rate": rate,
            "tokens": done.tokens,
            "seconds": time.perf_counter() - since,
        }
        session.end_step(metrics)
    validation.last()
    return session.finish()


def _rows(config: SftConfig, begun: Setup, tell: Told) -> list[Row]:
    """All rows to train on; what is none is listed in the run's folder."""
    found, bad = setup.traces(config.data)
    bound: BoundSchema = begun.schema.bind(begun.vocabulary)
    longest = min(config.run.room, begun.model.config.get_text_config().max_position_embeddings)

    def encode(prompt: str) -> tuple[int, ...]:
        return begun.prompts.read(
            begun.schema, prompt, chat=config.prompt.chat, instructions=config.prompt.instructions
        )

    made = prepare(found, bound, encode, _laid(config), longest)
    refused = setup.write_rejected(begun, bad, made.rejected)
    if not made.rows:
        first = f"{made.rejected[0][0]}: {made.rejected[0][1]}" if made.rejected else bad[0]
        raise ValueError(f"no trace of `{config.data.source}` can be trained on; {first}")
    if refused:
        tell(f"rows not trained on: {refused}; {begun.directory.path / setup.REJECTED}")
    return list(made.rows)


def _laid(config: SftConfig) -> Lay:
    if config.layout is Layout.PARALLEL:
        return as_graph
    return as_sequence if config.legal else as_text
