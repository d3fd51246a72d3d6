"""The log-probabilities that a model gives to the sampled tokens of a row.

A token is predicted by the last entry before it that it sees: the one before it in its branch, and
behind a join the last one of the last branch, as in generation. So the numbers are those of the
rollout, up to rounding. Traces are packed into rows; several short rows may share a forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from nprdsl.trainers.attention.blocks import block_mask
from nprdsl.trainers.attention.dense import dense_masks
from nprdsl.trainers.attention.segments import ARGUMENT, plan
from nprdsl.trainers.batch.packed_rows import Row, last_seen
from nprdsl.trainers.objective.losses import token_logprobs


class Attention(StrEnum):
    """How a row's mask reaches the model, which must have been loaded for it."""

    DENSE = "sdpa"
    BLOCKS = "flex_attention"
    SEGMENTS = "nprdsl_segments"


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """The sampled entries of a row, `entry` int64 [N], what stands there, `ids` int64 [N], and the
    entries that predict them, `query` int64 [N]."""

    entry: NDArray[np.int64]
    query: NDArray[np.int64]
    ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.entry)


def targets(row: Row) -> Targets:
    """Which entries carry loss, and what predicts them. Raises ValueError if one is the first of
    its trace: nothing predicts it."""
    entry = np.flatnonzero(row.sampled)
    query = last_seen(row)[entry]
    if (query < 0).any():
        first = int(entry[np.flatnonzero(query < 0)[0]])
        raise ValueError(f"entry {first} is sampled, but nothing stands before it; give a prompt")
    return Targets(entry, query, row.ids[entry].astype(np.int64))


def inputs(rows: Sequence[Row], model: PreTrainedModel, attention: Attention) -> dict[str, object]:
    """What the model's forward takes for a batch of rows, padded to the longest; more than one
    needs dense masks."""
    device = model.device
    given: dict[str, object] = {
        "input_ids": _padded([row.ids for row in rows], device),
        "position_ids": _padded([row.position for row in rows], device),
        "use_cache": False,
    }
    match attention:
        case Attention.DENSE:
            given["attention_mask"] = dense_masks(rows, model.dtype, device)
        case Attention.BLOCKS:
            given["attention_mask"] = block_mask(_single(rows, attention), device)
        case Attention.SEGMENTS:
            given[ARGUMENT] = plan(_single(rows, attention), device)
    return given


def score(
    model: PreTrainedModel,
    rows: Row | Sequence[Row],
    wanted: Targets | Sequence[Targets],
    attention: Attention = Attention.DENSE,
    *,
    through: torch.nn.Module | None = None,
) -> torch.Tensor:
    """float32 [N]: log pi of every target of a row, or of several one after another, with its
    gradient. For one row logits are made for the entries that predict a target only. `through` is
    the module to call where the model is wrapped."""
    batch = [rows] if isinstance(rows, Row) else list(rows)
    each = [wanted] if isinstance(wanted, Targets) else list(wanted)
    width = max(map(len, batch))
    query = np.concatenate([one.query + i * width for i, one in enumerate(each)])
    places = torch.from_numpy(query).to(model.device)
    call = model if through is None else through
    given = inputs(batch, model, attention)
    if len(batch) == 1:
        logits = call(**given, logits_to_keep=places).logits[0]
    else:
        logits = call(**given).logits.flatten(0, 1)[places]
    ids = torch.from_numpy(np.concatenate([one.ids for one in each]))
    return token_logprobs(logits, ids.to(logits.device))


def _padded(arrays: Sequence[NDArray[np.int32]], device: torch.device) -> torch.Tensor:
    """int64 [rows, longest]; 0 where a row has no entry."""
    found = np.zeros((len(arrays), max(map(len, arrays))), np.int64)
    for line, array in zip(found, arrays, strict=True):
        line[: len(array)] = array
    return torch.from_numpy(found).to(device)


def _single(rows: Sequence[Row], attention: Attention) -> Row:
    if len(rows) != 1:
        raise ValueError(f"{len(rows)} rows in one forward need dense masks, not {attention.name}")
    return rows[0]
