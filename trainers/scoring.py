"""The log-probabilities that a model gives to the sampled tokens of a row.

A token is predicted by the last entry before it that it sees: the one before it in its branch, and
behind a join the last one of the last branch, as in generation. So the numbers are those of the
rollout, up to rounding. Non-goals: losses, batches of rows (pack them).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from nprdsl.trainers.attention.blocks import block_mask
from nprdsl.trainers.attention.dense import dense_mask
from nprdsl.trainers.attention.segments import ARGUMENT, plan
from nprdsl.trainers.losses import token_logprobs
from nprdsl.trainers.rows import Row, last_seen


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


def inputs(row: Row, model: PreTrainedModel, attention: Attention) -> dict[str, object]:
    """What the model's forward takes for the row."""
    device = model.device
    given: dict[str, object] = {
        "input_ids": torch.tensor(row.ids, dtype=torch.int64, device=device)[None],
        "position_ids": torch.tensor(row.position, dtype=torch.int64, device=device)[None],
        "use_cache": False,
    }
    match attention:
        case Attention.DENSE:
            given["attention_mask"] = dense_mask(row, model.dtype, device)
        case Attention.BLOCKS:
            given["attention_mask"] = block_mask(row, device)
        case Attention.SEGMENTS:
            given[ARGUMENT] = plan(row, device)
    return given


def score(
    model: PreTrainedModel,
    row: Row,
    wanted: Targets,
    attention: Attention = Attention.DENSE,
    *,
    through: torch.nn.Module | None = None,
) -> torch.Tensor:
    """float32 [N]: log pi of every target, with its gradient. Logits are made for the entries that
    predict a target only. `through` is the module to call where the model is wrapped."""
    query = torch.from_numpy(wanted.query).to(model.device)
    call = model if through is None else through
    output = call(**inputs(row, model, attention), logits_to_keep=query)
    logits = output.logits[0]
    return token_logprobs(logits, torch.from_numpy(wanted.ids).to(logits.device))
