"""Dense masks: [1, 1, L, L], for scaled-dot-product attention on short rows, and as the oracle.

Memory is O(L^2): 4 GB in bf16 at 32k entries; longer rows take `blocks` or `segments`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nprdsl.trainers.batch.packed_rows import Row


def visible(row: Row, device: torch.device | str = "cpu") -> torch.Tensor:
    """bool [L, L]: row q, column k, True where q sees k."""
    mirror = torch.tensor(row.mirror, device=device)
    until = torch.tensor(row.until, device=device)
    order = torch.arange(len(row), device=device, dtype=torch.int32)
    seen = order[None, :] <= order[:, None]
    seen &= order[:, None] < until[None, :]
    return seen & (mirror[None, :] <= mirror[:, None])


def dense_mask(row: Row, dtype: torch.dtype, device: torch.device | str = "cpu") -> torch.Tensor:
    """[1, 1, L, L] of `dtype`: 0 where q sees k, the least number elsewhere. Hugging Face models
    take it as `attention_mask`."""
    seen = visible(row, device)
    mask = torch.zeros(seen.shape, dtype=dtype, device=device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[None, None]


def dense_masks(
    rows: Sequence[Row], dtype: torch.dtype, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """[B, 1, L, L]: the masks of several rows, padded to the longest; padding is never seen."""
    longest = max(map(len, rows))
    shape = (len(rows), 1, longest, longest)
    masks = torch.full(shape, torch.finfo(dtype).min, dtype=dtype, device=device)
    for mask, row in zip(masks, rows, strict=True):
        mask[0, : len(row), : len(row)] = dense_mask(row, dtype, device)[0, 0]
    return masks
