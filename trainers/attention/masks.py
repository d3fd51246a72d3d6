"""The mask of a training row in two forms: dense for PyTorch's attention, in blocks for
FlexAttention.

Dense masks have [L, L] values, 4 GB in bf16 at 32k entries: for short rows, and as the reference of
the other forms. In blocks, the mask of entries is three comparisons, and of a pair of blocks the
extremes decide: it is skipped where no entry can see any, full where all see all, else masked entry
by entry. That takes O(L + (L / block)^2) time and memory: 65,536 pairs at 32k entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention.flex_attention import BlockMask

from nprdsl.trainers.batch.training_rows import TrainingRow

BLOCK: Final = 128
Device = torch.device | str


def visible(row: TrainingRow, device: Device = "cpu") -> torch.Tensor:
    """bool [L, L]: row q, column k, True where q sees k."""
    mirror = torch.tensor(row.mirror, device=device)
    until = torch.tensor(row.until, device=device)
    order = torch.arange(len(row), device=device, dtype=torch.int32)
    seen = order[None, :] <= order[:, None]
    seen &= order[:, None] < until[None, :]
    return seen & (mirror[None, :] <= mirror[:, None])


def dense_masks(
    rows: Sequence[TrainingRow], dtype: torch.dtype, device: Device = "cpu"
) -> torch.Tensor:
    """[B, 1, L, L] of `dtype`, as Hugging Face models take it: 0 where q sees k, the least number
    elsewhere. Rows are padded to the longest; padding is never seen."""
    longest = max(map(len, rows))
    shape = (len(rows), 1, longest, longest)
    masks = torch.full(shape, torch.finfo(dtype).min, dtype=dtype, device=device)
    for mask, row in zip(masks, rows, strict=True):
        mask[0, : len(row), : len(row)].masked_fill_(visible(row, device), 0)
    return masks


def block_mask(row: TrainingRow, device: Device = "cpu", block: int = BLOCK) -> BlockMask:
    """The mask of a row as FlexAttention takes it: [1, 1, L, L] in blocks of `block` entries."""
    some, full = block_kinds(row, block)
    mirror = torch.tensor(row.mirror, device=device)
    until = torch.tensor(row.until, device=device)

    def sees(
        batch: torch.Tensor, head: torch.Tensor, q: torch.Tensor, k: torch.Tensor
    ) -> torch.Tensor:
        return (k <= q) & (q < until[k]) & (mirror[k] <= mirror[q])

    partial_count, partial = _key_blocks(some & ~full, device)
    full_count, whole = _key_blocks(full, device)
    mask: BlockMask = BlockMask.from_kv_blocks(
        partial_count, partial, full_count, whole, block, sees, (len(row), len(row))
    )
    return mask


def block_kinds(
    row: TrainingRow, block: int = BLOCK
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """bool [B, B] twice, row of queries, column of keys: some entries may see some, all see all."""
    starts = np.arange(0, len(row), block)
    ends = np.minimum(starts + block, len(row)) - 1
    least, most = _extremes(row.mirror, starts)
    soonest, latest = _extremes(row.until, starts)
    q, k = (slice(None), None), (None, slice(None))
    some = (starts[k] <= ends[q]) & (starts[q] < latest[k]) & (least[k] <= most[q])
    full = (ends[k] <= starts[q]) & (ends[q] < soonest[k]) & (most[k] <= least[q])
    full[-1:, :] &= len(row) % block == 0  # a block that is not whole is masked by entry
    return some, full


def _extremes(
    values: NDArray[np.int32], starts: NDArray[np.int64]
) -> tuple[NDArray[np.int32], ...]:
    return np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)


def _key_blocks(pairs: NDArray[np.bool_], device: Device) -> tuple[torch.Tensor, torch.Tensor]:
    """How many key blocks each query block has, and their numbers first in each row."""
    counts = pairs.sum(axis=1, dtype=np.int32)
    numbers = np.argsort(~pairs, axis=1, kind="stable").astype(np.int32)
    return (
        torch.from_numpy(counts).to(device)[None, None],
        torch.from_numpy(numbers).to(device)[None, None],
    )
