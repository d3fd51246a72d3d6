"""From a prompt and a trace, as text or as ids, to the training row of an imitation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.runtime.prompts import Ids
from nprdsl.trace.encoding import spell_text
from nprdsl.trainers.batch.training_rows import TrainingRow, causal_row, training_row
from nprdsl.trainers.config.stages import LossTokens, TrainingLayout


def trace_row(
    bound: BoundSchema,
    prompt: Ids,
    trace: str,
    *,
    layout: TrainingLayout = TrainingLayout.PARALLEL,
    loss: LossTokens = LossTokens.WRITTEN,
    legal: bool = True,
) -> TrainingRow:
    """The trace, and the end token if the model has one: with branches that do not see each other,
    or as causal text, every token of it chosen. Raises TraceError, unless `legal` is False, and
    UnspellableError."""
    vocabulary, tags = bound.vocabulary, bound.grammar.tags
    ids = bound.encode(trace) if legal else spell_text(vocabulary, trace, tags)
    ids = bound.with_end(ids)
    if layout is TrainingLayout.CAUSAL:
        return causal_row(prompt, ids)
    whole = (*prompt, *ids)
    if loss is LossTokens.WRITTEN:
        return written_row(bound, whole, len(prompt))
    return training_row(whole, bound.parse(whole, prompt=len(prompt)).layout)


def written_row(bound: BoundSchema, ids: Sequence[int], prompt: int) -> TrainingRow:
    """The row of a trace's ids behind `prompt` ids of a prompt, every one of them chosen; of the
    prompt alone where there is no trace. Raises TraceError."""
    if len(ids) == prompt:
        return causal_row(ids, [])
    parsed = bound.parse(ids, prompt=prompt)
    written = (np.arange(len(ids)) >= prompt).astype(np.uint8)
    return training_row(ids, replace(parsed, sampled=written).layout)
