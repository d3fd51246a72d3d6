"""The additive attention mask of a forward, from the columns that the branches see.

While every request feeds one token on each of the same branches as in the forward before, the mask
grows in place by one visible entry a row; else it is written anew from the branches. Layers with a
sliding window have a mask of their own: there a column is also hidden when its position is `window`
or more behind the row's.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import torch

from nprdsl.runtime.local.attention import AttentionPlan, RowGroup
from nprdsl.runtime.local.trace_log import Bools, Ints, TokenRun, TraceLog

_SPARE = 64  # forwards that a mask may grow before it is written anew


@dataclass(frozen=True, slots=True)
class RequestRows:
    """What one request feeds in a forward: its `runs`, as the rows of `group`."""

    log: TraceLog
    runs: list[TokenRun]
    group: RowGroup


class AttentionMask:
    """Gives the masks `[1, 1, fold * padded rows, width]` of one model's forwards.

    `fold`, the number of query heads of a KV head, may be set between two forwards; `window` is
    the number of positions that sliding layers see.
    """

    def __init__(self, window: int | None, dtype: torch.dtype, device: torch.device) -> None:
        self.fold = 1
        self.window = window
        self._dtype, self._device = dtype, device
        self._hidden = torch.finfo(dtype).min  # not -inf: a block of -inf alone would give NaN
        self._key: Hashable = None
        self._buffer = torch.empty(1, 1, 0, 0, dtype=dtype, device=device)
        self._columns: list[int] = []  # each request's first column in the coming forward
        self._own = torch.empty(0, dtype=torch.long, device=device)  # flat: each row's own column
        self._step = self._own

    def full(self, fed: list[RequestRows], plan: AttentionPlan, key: Hashable) -> torch.Tensor:
        """The mask of layers without a window.

        Equal keys stand for the same branches that feed one token each; None for any other forward.
        """
        widths = [rows.group.width for rows in fed]
        width = max(widths)
        if self._grows(fed, plan, key, width):
            self._buffer.view(-1).index_fill_(0, self._own, 0.0)
        else:
            spare = _SPARE * max([rows.group.rows for rows in fed])
            self._buffer = self.additive(visible(fed, plan, self.fold), spare)
            self._key = key
            if key is not None:
                self._follow(fed, plan)
        if key is not None:
            self._own += self._step
            self._columns = widths
        return self._buffer.narrow(3, 0, width)

    def sliding(self, fed: list[RequestRows], plan: AttentionPlan) -> torch.Tensor:
        """The mask of layers with a sliding window."""
        return self.additive(visible(fed, plan, self.fold, self.window))

    def over_log(self, fed: list[RequestRows], high: int, window: int | None) -> torch.Tensor:
        """`[1, 1, rows, high]`: the mask over the log's first `high` slots, of all requests."""
        seen = np.zeros((fed[-1].group.last, high), dtype=bool)
        for rows in fed:
            group = rows.group
            columns = slice(group.start, group.start + group.width)
            _see(rows, window, seen[group.first : group.last, columns])
        return self.additive(seen)

    def _grows(
        self, fed: list[RequestRows], plan: AttentionPlan, key: Hashable, width: int
    ) -> bool:
        return (
            key is not None
            and key == self._key
            and self._buffer.shape[2] == self.fold * plan.calls[-1].end
            and width <= self._buffer.shape[3]
            and self._columns == [rows.runs[0].column for rows in fed]
        )

    def additive(self, seen: Bools, spare: int = 0) -> torch.Tensor:
        """`[1, 1, rows, columns + spare]`, of bool `[rows, columns]`; spare columns are hidden."""
        rows, width = seen.shape
        shape = (1, 1, rows, width + spare)
        mask = torch.full(shape, self._hidden, dtype=self._dtype, device=self._device)
        mask[..., :width].masked_fill_(torch.from_numpy(seen).to(self._device), 0.0)
        return mask

    def _follow(self, fed: list[RequestRows], plan: AttentionPlan) -> None:
        """Where each row's own column lies in this forward, and how far on it lies in the next."""
        own, steps = [], []
        stride = self._buffer.shape[3]
        copies = np.arange(self.fold)[:, None]
        for rows, first, padded in zip(fed, plan.first, plan.rows, strict=True):
            count = len(rows.runs)
            columns = np.array([run.column for run in rows.runs])
            lines = self.fold * first + copies * padded + np.arange(count)
            own.append((lines * stride + columns).ravel())
            steps.append(np.full(self.fold * count, count))
        self._own = torch.from_numpy(np.concatenate(own)).to(self._device)
        self._step = torch.from_numpy(np.concatenate(steps)).to(self._device)


def visible(
    fed: list[RequestRows], plan: AttentionPlan, fold: int, window: int | None = None
) -> Bools:
    """`[fold * padded rows, width]`: which columns of its request each row sees, its own
    included."""
    width = max(rows.group.width for rows in fed)
    seen = np.zeros((fold * plan.calls[-1].end, width), dtype=bool)
    for rows, first, padded in zip(fed, plan.first, plan.rows, strict=True):
        count, own = rows.group.rows, rows.group.width
        block = seen[fold * first : fold * first + count, :own]
        _see(rows, window, block)
        for copy in range(1, fold):
            seen[fold * first + copy * padded :][:count, :own] = block
    return seen


def _see(rows: RequestRows, window: int | None, seen: Bools) -> None:
    """Into `seen`, `[rows, width]` and False before: what each row sees of its own request."""
    at = 0
    for run in rows.runs:
        count, column = len(run.tokens), run.column
        seen[at : at + count, :column] = run.view.sees[:column]
        if count == 1:  # as nearly always
            seen[at, column] = True
        else:
            seen[at : at + count, column : column + count] = np.tri(count, dtype=bool)
        at += count
    if window is not None:
        behind = _positions(rows.runs)[:, None] - rows.log.positions[: rows.group.width]
        seen &= behind < window


def _positions(runs: list[TokenRun]) -> Ints:
    return np.concatenate([np.arange(r.position, r.position + len(r.tokens)) for r in runs])
