"""The additive mask of a forward, from the columns that the branches see.

While every request feeds one token on the same branches as in the forward before, the mask grows by
one visible entry a row, in place; else it is written anew from the branches. Sliding-window layers
have a mask of their own: a column is also hidden when its position is `window` or more behind the
row's.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import torch

from nprdsl.runtime.local.attention_batches import RowGroup, Seating
from nprdsl.runtime.local.trace_log import Bools, Ints, Run, TraceLog

_ROOM = 64  # forwards that a mask may grow before it is written anew


@dataclass(frozen=True, slots=True)
class Part:
    """What one request feeds in a forward: its `runs`, at the rows of `group`."""

    log: TraceLog
    runs: list[Run]
    group: RowGroup


class MaskBuilder:
    """Builds `[1, 1, fold * seats, width]` masks of one model.

    `fold` is the number of query heads of a KV head; `window` the positions that sliding layers
    see.
    """

    def __init__(
        self, fold: int, window: int | None, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.fold = fold
        self.window = window
        self._dtype, self._device = dtype, device
        self._hidden = torch.finfo(dtype).min  # not -inf: a block of -inf alone would give NaN
        self._key: Hashable = None
        self._buffer = torch.empty(1, 1, 0, 0, dtype=dtype, device=device)
        self._columns: list[int] = []  # each part's first column in the coming forward
        self._next = torch.empty(0, dtype=torch.long, device=device)  # flat places to make visible
        self._step = self._next

    def full(self, parts: list[Part], seats: Seating, key: Hashable) -> torch.Tensor:
        """The mask of layers without a window.

        `key` stands for the branches that feed and what they see; None when a branch feeds two
        tokens or more.
        """
        width = max(part.group.width for part in parts)
        if not self._grows(parts, key, width):
            seen = visible(parts, seats, self.fold)
            self._buffer = self._additive(seen, _ROOM * _most_rows(parts))
            self._key = key
            if key is not None:
                self._plan(parts, seats)
        else:
            self._buffer.view(-1).index_fill_(0, self._next, 0.0)
        if key is not None:
            self._next += self._step
            self._columns = [p.group.width for p in parts]
        return self._buffer.narrow(3, 0, width)

    def sliding(self, parts: list[Part], seats: Seating) -> torch.Tensor:
        """The mask of sliding-window layers."""
        return self._additive(visible(parts, seats, self.fold, self.window), 0)

    def _grows(self, parts: list[Part], key: Hashable, width: int) -> bool:
        return (
            key is not None
            and key == self._key
            and width <= self._buffer.shape[3]
            and self._columns == [part.runs[0].column for part in parts]
        )

    def _additive(self, seen: Bools, room: int) -> torch.Tensor:
        rows, width = seen.shape
        shape = (1, 1, rows, width + room)
        mask = torch.full(shape, self._hidden, dtype=self._dtype, device=self._device)
        mask[..., :width].masked_fill_(torch.from_numpy(seen).to(self._device), 0.0)
        return mask

    def _plan(self, parts: list[Part], seats: Seating) -> None:
        """Where each row's own entry lies in this forward, and how far on it lies in the next."""
        places, steps = [], []
        stride = self._buffer.shape[3]
        copies = np.arange(self.fold)[:, None]
        for part, seat, room in zip(parts, seats.seat, seats.room, strict=True):
            rows = len(part.runs)
            columns = np.array([run.column for run in part.runs])
            lines = self.fold * seat + copies * room + np.arange(rows)
            places.append((lines * stride + columns).ravel())
            steps.append(np.full(self.fold * rows, rows))
        self._next = torch.from_numpy(np.concatenate(places)).to(self._device)
        self._step = torch.from_numpy(np.concatenate(steps)).to(self._device)


def visible(parts: list[Part], seats: Seating, fold: int, window: int | None = None) -> Bools:
    """`[fold * seats, width]`: which column of its request the row on each seat sees, itself
    included."""
    width = max(part.group.width for part in parts)
    seen = np.zeros((fold * seats.seats, width), dtype=bool)
    for part, seat, room in zip(parts, seats.seat, seats.room, strict=True):
        group = part.group
        block = seen[fold * seat : fold * seat + group.rows]
        at = 0
        for run in part.runs:
            count, column = len(run.tokens), run.column
            block[at : at + count, :column] = run.branch.sees[:column]
            if count == 1:  # as nearly always
                block[at, column] = True
            else:
                block[at : at + count, column : column + count] = np.tri(count, dtype=bool)
            at += count
        if window is not None:
            behind = _positions(part)[:, None] - part.log.positions[: group.width]
            block[:, : group.width] &= behind < window
        for copy in range(1, fold):
            seen[fold * seat + copy * room :][: group.rows] = block
    return seen


def _positions(part: Part) -> Ints:
    spans = [np.arange(r.position, r.position + len(r.tokens)) for r in part.runs]
    return np.concatenate(spans)


def _most_rows(parts: list[Part]) -> int:
    return max(part.group.rows for part in parts)
