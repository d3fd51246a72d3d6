"""Applies masks to a model's logits, as torch has them.

Logits float `[B, width]` and one packed mask for each row go in; every forbidden entry is -inf
behind it. Masks are applied by index, not as dense rows. This stands below the engines because
`nprdsl.export.logits_processor` needs it too; like that module it imports torch, and
`import nprdsl` loads neither.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nprdsl.tokens.bitmask import Mask

_KEPT_MASKS = 4096
_KEPT_BATCHES = 512  # sequences of masks


@dataclass(frozen=True, slots=True)
class Allowance:
    """One mask as ids: those it allows, or those it forbids, whichever are fewer. `source` keeps
    the array, so that its address stands for it."""

    source: Mask
    ids: NDArray[np.int64]
    allows: bool


@dataclass(frozen=True, slots=True)
class _FlatMasks:
    """Flat indices into `[B, width]` logits for one sequence of masks."""

    allowances: tuple[Allowance, ...]  # kept, so that no other mask gets their addresses
    forbidden: torch.Tensor | None
    narrow_rows: torch.Tensor | None
    allowed: torch.Tensor | None


class LogitMasks:
    """Applies packed masks to logits of `width` tokens on `device`; tokens beyond a mask's words
    are forbidden.

    Nearly all masks forbid a few tokens or allow a few. So each is turned once into a short list of
    ids, and a batch of them into flat indices; both are kept while the automaton hands out the same
    arrays.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self.width = width
        self._device = device
        self._masks: OrderedDict[int, Allowance] = OrderedDict()
        self._batches: OrderedDict[tuple[int, ...], _FlatMasks] = OrderedDict()

    def apply(self, logits: torch.Tensor, masks: list[Mask]) -> None:
        """Sets forbidden entries of `logits` `[B, width]` to -inf, in place; one mask a row."""
        batch = self._batch(masks)
        flat = logits.view(-1)
        if batch.allowed is not None and batch.narrow_rows is not None:
            values = flat[batch.allowed]
            logits.index_fill_(0, batch.narrow_rows, -torch.inf)
            flat[batch.allowed] = values
        if batch.forbidden is not None:
            flat.index_fill_(0, batch.forbidden, -torch.inf)

    def allowance(self, mask: Mask) -> Allowance:
        """The mask as ids; the same object while the automaton gives the same array."""
        known = self._masks.get(id(mask))
        if known is None:
            known = self._masks[id(mask)] = self._read(mask)
            if len(self._masks) > _KEPT_MASKS:
                self._masks.popitem(last=False)
        return known

    def _read(self, mask: Mask) -> Allowance:
        bits = np.unpackbits(mask.view(np.uint8), bitorder="little")[: self.width]
        bits = np.pad(bits, (0, self.width - len(bits)))
        count = int(np.count_nonzero(bits))
        if count == 0:
            raise ValueError("the mask allows no token of the model")
        allows = count <= self.width - count
        return Allowance(mask, np.flatnonzero(bits == allows), allows)

    def _batch(self, masks: list[Mask]) -> _FlatMasks:
        key = tuple(map(id, masks))
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = self._compose([self.allowance(mask) for mask in masks])
            if len(self._batches) > _KEPT_BATCHES:
                self._batches.popitem(last=False)
        return batch

    def _compose(self, allowances: list[Allowance]) -> _FlatMasks:
        rows = list(enumerate(allowances))
        return _FlatMasks(
            allowances=tuple(allowances),
            forbidden=self._indices([a.ids + i * self.width for i, a in rows if not a.allows]),
            narrow_rows=self._indices([np.array([i]) for i, a in rows if a.allows]),
            allowed=self._indices([a.ids + i * self.width for i, a in rows if a.allows]),
        )

    def _indices(self, lists: list[NDArray[np.int64]]) -> torch.Tensor | None:
        if not any(len(ids) for ids in lists):
            return None
        return torch.from_numpy(np.concatenate(lists)).to(self._device)
