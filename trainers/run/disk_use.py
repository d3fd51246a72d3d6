"""What the checkpoints of a run take on the disk, told before the first is written.

A disk that is full after hours of training loses them; a sentence at the beginning costs nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

_MUCH: Final = 10**9  # bytes; smaller ones are not worth a sentence


def checkpoint_bytes(model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> int:
    """Of one checkpoint: all weights, and for what is trained the optimizer's numbers, two for
    AdamW and one for Muon."""
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    for optimizer in optimizers:
        numbers = 1 if isinstance(optimizer, torch.optim.Muon) else 2
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        held += sum(numbers * p.numel() * p.element_size() for p in trained)
    return held


def disk_notice(folder: Path, size: int, keep: int) -> str:
    """A sentence on checkpoints of `size` bytes, of which `keep` stay while the next is written;
    "" where they are small and fit."""
    needed, free = (keep + 1) * size, shutil.disk_usage(folder).free
    if needed < _MUCH and needed < free:
        return ""
    told = (
        f"checkpoints take up to {needed / 1e9:.1f} GB ({keep + 1} of {size / 1e9:.1f} GB), of "
        f"{free / 1e9:.1f} GB that are free"
    )
    if needed < free:
        return told
    return f"{told}: that is not enough; free some, or set `run.keep` or `run.output`"
