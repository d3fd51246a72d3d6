"""Block masks for FlexAttention, from the two orders.

The mask of entries is three comparisons; of a pair of blocks of entries the extremes decide: it is
skipped where no entry can see any, full where all see all, else masked entry by entry. The
metadata takes O(L + (L / block)^2) time and memory: 65,536 pairs at 32k entries.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention.flex_attention import BlockMask

from nprdsl.trainers.batch.packed_rows import Row

BLOCK: Final = 128


def block_mask(row: Row, device: torch.device | str = "cpu", block: int = BLOCK) -> BlockMask:
    """The mask of a row as FlexAttention takes it: [1, 1, L, L] in blocks of `block` entries."""
    some, full = block_kinds(row, block)
    mirror = torch.tensor(row.mirror, device=device)
    until = torch.tensor(row.until, device=device)

    def sees(
        batch: torch.Tensor, head: torch.Tensor, q: torch.Tensor, k: torch.Tensor
    ) -> torch.Tensor:
        return (k <= q) & (q < until[k]) & (mirror[k] <= mirror[q])

    partial_count, partial = _listed(some & ~full, device)
    full_count, whole = _listed(full, device)
    found: BlockMask = BlockMask.from_kv_blocks(
        partial_count, partial, full_count, whole, block, sees, (len(row), len(row))
    )
    return found


def block_kinds(row: Row, block: int = BLOCK) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
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


def _listed(
    pairs: NDArray[np.bool_], device: torch.device | str
) -> tuple[torch.Tensor, torch.Tensor]:
    """How many key blocks each query block has, and their numbers first in each row."""
    counts = pairs.sum(axis=1, dtype=np.int32)
    numbers = np.argsort(~pairs, axis=1, kind="stable").astype(np.int32)
    return (
        torch.from_numpy(counts).to(device)[None, None],
        torch.from_numpy(numbers).to(device)[None, None],
    )
