"""Which requests attend in one call: those whose extents are equal and evenly spaced.

The keys of such requests are one strided view of the log, so that a forward of a hundred requests
costs a few attention calls instead of a hundred, and still moves no key or value. Every request
gets a lane of equally many seats; a seat without a row is hidden everywhere. Requests that feed
many rows (prompts) stand alone, since they would make all lanes as wide as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np
import torch

WIDEST: Final = 16  # rows of a request that shares lanes
FARTHEST: Final = 2  # lanes that may lie between two that are used, plus one


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows `first` to `last` of a forward are of one request, which uses `width` slots of the
    `length` from `start` on."""

    first: int
    last: int
    start: int
    length: int
    width: int

    @property
    def rows(self) -> int:
        return self.last - self.first


@dataclass(frozen=True, slots=True)
class Lanes:
    """`count` extents of `length` slots from `start` on, of which the first `width` are read; each
    has `rows` seats, numbered through from `seat`."""

    start: int
    length: int
    count: int
    width: int
    rows: int
    seat: int

    @property
    def seats(self) -> int:
        return self.count * self.rows


@dataclass(frozen=True, slots=True, eq=False)
class Seating:
    """All lanes of a forward. `seat[i]` is the first seat of group i, `room[i]` the seats of its
    lane. `row_of` int64 [seats] and `seat_of` int64 [rows] lead from seats to rows and back; None
    where both are the same. `places` is where the groups were, `members` which are in each lane."""

    lanes: tuple[Lanes, ...] = ()
    seat: tuple[int, ...] = ()
    room: tuple[int, ...] = ()
    row_of: torch.Tensor | None = None
    seat_of: torch.Tensor | None = None
    places: tuple[tuple[int, int, int, int], ...] = ()
    members: tuple[tuple[int, ...], ...] = ()

    @property
    def seats(self) -> int:
        return self.lanes[-1].seat + self.lanes[-1].seats

    def widened(self, groups: Sequence[RowGroup]) -> Seating:
        """The same seats for groups that have only grown wider."""
        lanes = tuple(
            replace(lane, width=max(groups[i].width for i in members))
            for lane, members in zip(self.lanes, self.members, strict=True)
        )
        return replace(self, lanes=lanes)


NOBODY: Final = Seating()


def seating(groups: Sequence[RowGroup], device: torch.device, before: Seating = NOBODY) -> Seating:
    """Seats for the rows of all groups; those of the forward `before` where nothing has moved."""
    places = tuple([(g.first, g.last, g.start, g.length) for g in groups])
    if places == before.places:
        return before.widened(groups)
    lanes: list[Lanes] = []
    seat, room = [0] * len(groups), [0] * len(groups)
    together = tuple(map(tuple, _together(groups)))
    for members in together:
        first, last = groups[members[0]], groups[members[-1]]
        made = Lanes(
            start=first.start,
            length=first.length,
            count=(last.start - first.start) // first.length + 1,
            width=max(groups[i].width for i in members),
            rows=max(groups[i].rows for i in members),
            seat=lanes[-1].seat + lanes[-1].seats if lanes else 0,
        )
        lanes.append(made)
        for i in members:
            lane = (groups[i].start - first.start) // first.length
            seat[i], room[i] = made.seat + lane * made.rows, made.rows
    total = lanes[-1].seat + lanes[-1].seats
    seat_of = np.concatenate([np.arange(s, s + g.rows) for s, g in zip(seat, groups, strict=True)])
    there = back = None
    if total != len(seat_of) or (seat_of != np.arange(total)).any():
        row_of = np.zeros(total, np.int64)
        row_of[seat_of] = np.arange(len(seat_of))
        back, there = (torch.from_numpy(numbers).to(device) for numbers in (seat_of, row_of))
    return Seating(tuple(lanes), tuple(seat), tuple(room), there, back, places, together)


def _together(groups: Sequence[RowGroup]) -> Iterator[list[int]]:
    """The groups of each call, ascending by their slots.

    Groups of one call have rows of the same power of two, since all lanes are as wide as the
    widest. What decides here may not change while the same branches feed: masks grow in place.
    """
    lattices: dict[tuple[int, int, int], list[int]] = {}
    for i, group in enumerate(groups):
        if group.rows > WIDEST:
            yield [i]
        else:
            kind = (group.length, group.start % group.length, group.rows.bit_length())
            lattices.setdefault(kind, []).append(i)
    for members in lattices.values():
        members.sort(key=lambda i: groups[i].start)
        kept = members[:1]
        for before, after in pairwise(members):
            if groups[after].start - groups[before].start > FARTHEST * groups[after].length:
                yield kept
                kept = []
            kept.append(after)
        yield kept
