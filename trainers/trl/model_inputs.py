"""Training rows as what TRL's models take: ids, positions, labels, and who sees whom.

TRL's models give the log-probability of one label for each entry (`shift_labels`: of the token that
the entry predicts), so rows are `PredictionRow`s. Who sees whom is said in the form that the
model's attention understands: a dense mask, our plan of segments, or the segments of TRL's own tree
attention. The last two pack all rows into one, and need no memory of the length's square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from nprdsl.runtime.local.model_facts import layer_kinds
from nprdsl.trace.segment_keys import segment_keys
from nprdsl.trainers.attention.masks import visible
from nprdsl.trainers.attention.segments import ARGUMENT, NAME, plan
from nprdsl.trainers.batch.predictions import IGNORED, PredictionRow, prediction_row
from nprdsl.trainers.batch.training_rows import TrainingRow, pack

FULL: Final = frozenset({"full_attention"})


class MaskForm(StrEnum):
    """How a model is told who sees whom, named by its `attn_implementation`."""

    DENSE = "sdpa"  # bool [B, 1, L, L]
    SEGMENTS = NAME  # our plan of segments: `trainers.attention.segments.register`
    TREE = "tree_fa3"  # TRL's: `trl.experimental.async_grpo.packing.register_tree_attention`


class MaskFormError(ValueError):
    """A model in a trainer of TRL whose attention cannot be told who sees whom."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelInputs:
    """`arguments` of a model's forward on B rows of L entries, packed ones counted as one row;
    `predicting` int64 [N]: for every sampled token of the rows, one row after another, the place
    of the entry that predicts it in what the forward gives, flattened [B * L]."""

    arguments: dict[str, object]
    predicting: NDArray[np.int64]


def mask_form(model: PreTrainedModel) -> MaskForm:
    """The form that the model's attention understands. Raises MaskFormError where it has none."""
    name = model.config._attn_implementation
    if name not in list(MaskForm):
        raise MaskFormError(
            f"attn_implementation is `{name}`, which takes no mask of branches: load the model "
            f"with `sdpa`, or with `{MaskForm.SEGMENTS}` after "
            "`nprdsl.trainers.attention.segments.register()`"
        )
    if strange := sorted(layer_kinds(model) - FULL):
        raise MaskFormError(
            f"{type(model).__name__} has layers of {', '.join(strange)}: one mask for all layers "
            "would change what they see; train a model with full attention in every layer"
        )
    return MaskForm(name)


def model_inputs(rows: Sequence[TrainingRow], form: MaskForm) -> ModelInputs:
    """What a model of this form takes for some rows, on the CPU. Raises ValueError for a sampled
    token with nothing before it."""
    if form is not MaskForm.DENSE:
        rows = [pack(rows)]
    made = [prediction_row(row) for row in rows]
    read = [one.row for one in made]
    width = max(map(len, read))
    arguments: dict[str, object] = {
        "input_ids": _padded([row.ids for row in read], width, 0),
        "position_ids": _padded([row.position for row in read], width, 0),
        **_labels(made, width),
    }
    match form:
        case MaskForm.DENSE:
            arguments["attention_mask"] = _masks(read, width)
        case MaskForm.SEGMENTS:
            arguments[ARGUMENT] = plan(read[0])
        case MaskForm.TREE:
            arguments |= _tree(read[0])
    places = [one.predicting + number * width for number, one in enumerate(made)]
    return ModelInputs(arguments, np.concatenate(places))


def _labels(made: Sequence[PredictionRow], width: int) -> dict[str, torch.Tensor]:
    """Those that are read as they stand, and the same one entry later, as trainers count them."""
    shifted = _padded([one.labels for one in made], width, IGNORED)
    labels = torch.full_like(shifted, IGNORED)
    labels[:, 1:] = shifted[:, :-1]  # the last entry of a row predicts nothing
    return {"labels": labels, "shift_labels": shifted}


def _masks(rows: Sequence[TrainingRow], width: int) -> torch.Tensor:
    """bool [B, 1, L, L]; padding sees itself, since a query without a key has no attention."""
    masks = torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1, 1)
    for mask, row in zip(masks, rows, strict=True):
        mask[0, : len(row), : len(row)] = visible(row)
    return masks


def _tree(row: TrainingRow) -> dict[str, object]:
    """The arguments of TRL's `tree_attention`, as its collator and trainer give them."""
    keys = segment_keys(row.mirror, row.until, row.segment)
    return {
        "tree_kv_index": torch.from_numpy(keys.entries),
        "tree_cu_seqlens_q": torch.from_numpy(keys.query_ends),
        "tree_cu_seqlens_k": torch.from_numpy(keys.key_ends),
        "tree_max_seqlen_q": keys.longest_query,
        "tree_max_seqlen_k": keys.longest_key,
    }


def _padded(arrays: Sequence[NDArray[np.integer]], width: int, filler: int) -> torch.Tensor:
    padded = np.full((len(arrays), width), filler, np.int64)
    for line, array in zip(padded, arrays, strict=True):
        line[: len(array)] = array
    return torch.from_numpy(padded)
