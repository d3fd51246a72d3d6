"""Imitation of given traces: stage 2 of NPR (arXiv:2512.07461, section 2.3), and its baselines.

The loss is the mean of -log pi over the tokens of a batch that carry it: all that a trace is made
of, or (`loss = "sampled"`) those that masks would not have forced. In the layout `parallel` a trace
is its execution graph: branches do not see each other, and stand at the positions at which they are
generated. In the layout `causal` it is one plain sequence. A trace that cannot be trained on is
listed with its reason.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.runtime.local.model_facts import most_positions
from nprdsl.runtime.prompts import PromptError
from nprdsl.structure.violations import TraceError
from nprdsl.tokens.vocabulary import UnspellableError
from nprdsl.trainers.batch.trace_rows import trace_row
from nprdsl.trainers.batch.training_rows import TrainingRow
from nprdsl.trainers.config.stages import SftConfig
from nprdsl.trainers.data.problems import TraceExample
from nprdsl.trainers.data.sources import RejectedRow
from nprdsl.trainers.objective.losses import sft
from nprdsl.trainers.run.session import Notify, Session, Setup, Watch, no_notice, prepare, unwatched
from nprdsl.trainers.stages.data import Order, list_rejected, own_share, section_traces
from nprdsl.trainers.stages.validation import Validation


def train_sft(
    config: SftConfig, *, restart: bool = False, watch: Watch = unwatched, tell: Notify = no_notice
) -> Path:
    """Trains to the end, from the last checkpoint on; gives the folder of the model.

    Raises what `prepare` raises, SourceError, and ValueError where no trace can be used.
    """
    setup = prepare(config, restart=restart)
    if setup.directory.complete:
        return setup.directory.model
    rows = _rows(config, setup, tell)
    order = Order(len(rows), config.batch, config.run.seed, config.shuffle)
    total = order.batches(config.epochs)
    session = Session(setup, total=total, updates=total, watch=watch, notify=tell)
    validation = Validation(session)
    while session.step < total:
        started = time.perf_counter()
        metrics = validation.metrics()
        batch = [rows[i] for i in own_share(order.batch(session.step), setup.accelerator)]
        rate = session.learning_rate
        update = session.update(batch, lambda inputs: sft(inputs.logprobs, inputs.tokens))
        metrics |= {
            "loss": update.loss,
            "gradient_norm": update.gradient_norm,
            "learning_rate": rate,
            "tokens": update.tokens,
            "seconds": time.perf_counter() - started,
        }
        session.end_step(metrics)
    validation.last()
    return session.finish()


def _rows(config: SftConfig, setup: Setup, notify: Notify) -> list[TrainingRow]:
    """All rows to train on; what is none is listed in the run's folder."""
    examples, rejected = section_traces(config.data)
    longest = min(config.run.room, most_positions(setup.model))
    rows, untrainable = _to_rows(examples, setup, config, longest)
    list_rejected(setup, [*rejected, *untrainable], "rows not trained on", notify)
    if not rows:
        first = (*untrainable, *rejected)[0]
        raise ValueError(f"no trace of `{config.data.source}` can be trained on; {first}")
    return rows


def _to_rows(
    examples: Sequence[TraceExample], setup: Setup, config: SftConfig, longest: int
) -> tuple[list[TrainingRow], list[RejectedRow]]:
    """The rows of all examples, of `longest` entries at most, and the examples that give none."""
    bound: BoundSchema = setup.schema.bind(setup.vocabulary)
    rows: list[TrainingRow] = []
    rejected: list[RejectedRow] = []
    for example in examples:
        try:
            row = trace_row(
                bound,
                setup.encode(example.prompt),
                example.trace,
                layout=config.layout,
                loss=config.loss,
                legal=config.legal,
            )
            if len(row) > longest:
                raise ValueError(f"it has {len(row)} tokens, prompt included; {longest} fit")
            rows.append(row)
        except (TraceError, UnspellableError, PromptError, ValueError) as error:
            rejected.append(RejectedRow(example.id, _reason(error)))
    return rows, rejected


def _reason(error: Exception) -> str:
    if not isinstance(error, TraceError):
        return str(error)
    first, more = error.violations[0], len(error.violations) - 1
    others = f", and {more} more" if more else ""
    return f"line {first.line}, column {first.column}: {first.message}{others}"
