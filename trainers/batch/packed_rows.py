"""Training rows: token traces laid out for a model, several packed into one.

A row holds, for every entry, what the model reads, its position, and the numbers that say who sees
it: q sees k iff k <= q < until[k] and mirror[k] <= mirror[q]. Traces in one row do not see each
other, because an entry is dropped (`until`) where its trace ends; so packing needs no mask of its
own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nprdsl.trace.layout import Layout

LIKE: Final = 0.75  # of the longest row of a forward: the shortest that is padded to it

Int32s = NDArray[np.int32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """Arrays of shape [L], one value for every entry of a row.

    ids: int32, what the model reads. position: int32, from 0 in every trace. mirror, until: int32,
    see above. segment: int32, numbered through the row: entries of one segment see the same earlier
    entries. sampled: bool, the loss mask. trace: int32, the trace of an entry, numbered from 0.
    token: int32, the entry's place in its own trace (an entry of a reread copy has the place of
    what it copies).
    """

    ids: Int32s
    position: Int32s
    mirror: Int32s
    until: Int32s
    segment: Int32s
    sampled: Bools
    trace: Int32s
    token: Int32s

    def __post_init__(self) -> None:
        lengths = {len(array) for array in self._arrays()}
        if len(lengths) != 1:
            raise ValueError(f"the arrays of a row differ in length: {sorted(lengths)}")

    def _arrays(self) -> tuple[NDArray[np.generic], ...]:
        return (
            self.ids,
            self.position,
            self.mirror,
            self.until,
            self.segment,
            self.sampled,
            self.trace,
            self.token,
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def traces(self) -> int:
        """How many traces the row holds."""
        return int(self.trace[-1]) + 1 if len(self) else 0

    def visible(self) -> Bools:
        """The whole mask, bool [L, L]: row q, column k. The oracle of every attention."""
        order = np.arange(len(self), dtype=np.int32)
        earlier = order[None, :] <= order[:, None]
        kept = order[:, None] < self.until[None, :]
        found: Bools = earlier & kept & (self.mirror[None, :] <= self.mirror[:, None])
        return found


def row(ids: Sequence[int] | NDArray[np.integer], layout: Layout) -> Row:
    """The row of one trace; `ids` are the trace's ids, prompt included."""
    found = np.asarray(ids, np.int32)
    if len(found) <= int(layout.token.max(initial=-1)):
        raise ValueError(f"the layout reads token {int(layout.token.max())}, of {len(found)} ids")
    return Row(
        ids=found[layout.token],
        position=layout.position,
        mirror=layout.mirror,
        until=layout.until,
        segment=layout.segment,
        sampled=layout.sampled,
        trace=np.zeros(len(layout), np.int32),
        token=layout.token,
    )


def sequence(ids: Sequence[int] | NDArray[np.integer], sampled: Sequence[bool] | Bools) -> Row:
    """The row of a plain causal sequence: every entry sees all before it."""
    places = np.arange(len(ids), dtype=np.int32)
    return Row(
        ids=np.asarray(ids, np.int32),
        position=places,
        mirror=places,
        until=np.full(len(ids), len(ids), np.int32),
        segment=np.zeros(len(ids), np.int32),
        sampled=np.asarray(sampled, np.bool_),
        trace=np.zeros(len(ids), np.int32),
        token=places,
    )


def pack(rows: Iterable[Row]) -> Row:
    """Several rows as one; positions start again with every trace."""
    parts = list(rows)
    if not parts:
        raise ValueError("there is nothing to pack: give at least one row")
    begins = np.cumsum([0, *(len(part) for part in parts[:-1])])
    traces = np.cumsum([0, *(part.traces for part in parts[:-1])])
    segments = np.cumsum([0, *(_count(part.segment) for part in parts[:-1])])
    return Row(
        ids=np.concatenate([part.ids for part in parts]),
        position=np.concatenate([part.position for part in parts]),
        mirror=_shifted([part.mirror for part in parts], begins),
        until=_shifted([part.until for part in parts], begins),
        segment=_shifted([part.segment for part in parts], segments),
        sampled=np.concatenate([part.sampled for part in parts]),
        trace=_shifted([part.trace for part in parts], traces),
        token=np.concatenate([part.token for part in parts]),
    )


def last_seen(row: Row) -> NDArray[np.int64]:
    """int64 [L]: for every entry the last one before it that it sees; -1 if it sees none."""
    found = np.arange(-1, len(row) - 1)
    begins = np.concatenate([[0], np.flatnonzero(np.diff(row.segment)) + 1])
    ends = np.append(begins[1:], len(row)) - 1
    for number, begin in enumerate(begins.tolist()):
        before = ends[:number]
        sees = (begin < row.until[before]) & (row.mirror[before] <= row.mirror[begin])
        seen = np.flatnonzero(sees)
        found[begin] = before[seen[-1]] if len(seen) else -1
    return found


def bins(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Which rows go together so that no bin is longer than `room`: first fit, longest first.

    Raises ValueError for a row that is longer than `room`. The order inside a bin is that given.
    """
    places: list[list[int]] = []
    left: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        if length > room:
            raise ValueError(f"row {index} has {length} entries; a bin holds {room}")
        at = next((i for i, free in enumerate(left) if free >= length), None)
        if at is None:
            places.append([])
            left.append(room)
            at = len(places) - 1
        places[at].append(index)
        left[at] -= length
    return [sorted(place) for place in places]


def alike(lengths: Sequence[int], room: int, rows: int) -> list[list[int]]:
    """Which rows, at most `rows`, share a forward that pads them to the longest: those of like
    length, longest first. Raises ValueError for a row that is longer than `room`."""
    groups: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        if length > room:
            raise ValueError(f"row {index} has {length} entries; there is room for {room}")
        if not groups or len(groups[-1]) == rows or length < LIKE * longest:
            groups.append([])
            longest = length
        groups[-1].append(index)
    return groups


def _count(segment: Int32s) -> int:
    return int(segment.max(initial=-1)) + 1


def _shifted(arrays: Sequence[Int32s], by: NDArray[np.int64]) -> Int32s:
    shifted = [array + shift for array, shift in zip(arrays, by, strict=True)]
    return np.concatenate(shifted).astype(np.int32)
