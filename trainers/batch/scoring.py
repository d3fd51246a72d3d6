"""The log-probabilities that a model gives to the sampled tokens of training rows.

A token is predicted by the last entry before it that it sees: the one before it in its branch, and
behind a join the last one of the last branch, as in generation. So the numbers are those of the
rollout, up to rounding. One forward takes a packed row, or several rows padded to the longest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from nprdsl.trainers.attention.masks import block_mask, dense_masks
from nprdsl.trainers.attention.segments import ARGUMENT, plan
from nprdsl.trainers.batch.output_head import scored_at_the_head
from nprdsl.trainers.batch.training_rows import TrainingRow, last_seen
from nprdsl.trainers.config.stages import Attention
from nprdsl.trainers.objective.losses import token_logprobs


def predictors(row: TrainingRow) -> NDArray[np.int64]:
    """int64 [N]: the entries whose logits predict the sampled ones. Raises ValueError if a sampled
    entry is the first of its trace: nothing predicts it."""
    sampled = np.flatnonzero(row.sampled)
    predicting = last_seen(row)[sampled]
    if (predicting < 0).any():
        first = int(sampled[np.flatnonzero(predicting < 0)[0]])
        raise ValueError(f"entry {first} is sampled, but nothing stands before it; give a prompt")
    return predicting


def inputs(
    rows: Sequence[TrainingRow], model: PreTrainedModel, attention: Attention
) -> dict[str, object]:
    """What the model's forward takes for a batch of rows, padded to the longest. Raises ValueError
    for more than one row with another attention than the dense one."""
    if len(rows) != 1 and attention is not Attention.DENSE:
        raise ValueError(f"{len(rows)} rows in one forward need dense masks, not {attention.name}")
    device = model.device
    arguments: dict[str, object] = {
        "input_ids": _padded([row.ids for row in rows], device),
        "position_ids": _padded([row.position for row in rows], device),
        "use_cache": False,
    }
    match attention:
        case Attention.DENSE:
            arguments["attention_mask"] = dense_masks(rows, model.dtype, device)
        case Attention.BLOCKS:
            arguments["attention_mask"] = block_mask(rows[0], device)
        case Attention.SEGMENTS:
            arguments[ARGUMENT] = plan(rows[0], device)
    return arguments


def score(
    model: PreTrainedModel,
    rows: Sequence[TrainingRow],
    attention: Attention = Attention.DENSE,
    *,
    through: torch.nn.Module | None = None,
) -> torch.Tensor:
    """float32 [N]: log pi of every sampled token of the rows, one row after another, with its
    gradient. `through` is the module to call where the model is wrapped.

    No logits are kept, whatever the number of tokens; a model that treats them in its own way has
    them made, for one row of the entries that predict something, for several rows of all.
    """
    width = max(map(len, rows))
    queries = np.concatenate([predictors(row) + i * width for i, row in enumerate(rows)])
    kept = torch.from_numpy(queries).to(model.device)
    chosen = np.concatenate([row.ids[row.sampled] for row in rows])
    ids = torch.from_numpy(chosen).to(model.device)
    call = model if through is None else through
    arguments = inputs(rows, model, attention)
    scored = scored_at_the_head(model, call, arguments, kept, ids)
    if scored is not None:
        return scored
    if len(rows) == 1:
        logits = call(**arguments, logits_to_keep=kept).logits[0]
    else:
        logits = call(**arguments).logits.flatten(0, 1)[kept]
    return token_logprobs(logits, ids.to(logits.device))


def _padded(arrays: Sequence[NDArray[np.int32]], device: torch.device) -> torch.Tensor:
    """int64 [rows, longest]; 0 where a row has no entry."""
    padded = np.zeros((len(arrays), max(map(len, arrays))), np.int64)
    for line, array in zip(padded, arrays, strict=True):
        line[: len(array)] = array
    return torch.from_numpy(padded).to(device)
