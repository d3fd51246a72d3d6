"""Training rows: traces laid out as the input of a model, several packed into one.

A trace comes with a layout (`nprdsl.trace.layout`), or as a plain causal sequence. A training row
holds for every entry what the model reads, its position, and the numbers that decide who sees it:
entry q sees entry k iff k <= q < until[k] and mirror[k] <= mirror[q]. Packed traces do not see each
other, because `until` ends where a trace ends; so packing needs no mask of its own. For the sampled
entries, which carry the loss, the row also holds their weights and the log-probabilities that they
had when they were sampled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nprdsl.trace.layout import Layout
from nprdsl.trainers.objective.advantages import Floats

PADDED: Final = 0.75  # of the longest row of a forward: the shortest that is padded to it

Int32s = NDArray[np.int32]
Bools = NDArray[np.bool_]

ENTRIES: Final = ("ids", "position", "mirror", "until", "segment", "sampled", "trace", "token")
_SAMPLED: Final = ("weights", "logprobs")


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRow:
    """One or several traces as a model input of L entries, N of them sampled.

    Arrays [L]: `ids` int32, what the model reads; `position` int32, from 0 in every trace;
    `mirror`, `until` int32, as the module says; `segment` int32, numbered through the row: entries
    of one segment see the same earlier entries; `sampled` bool, the loss mask; `trace` int32, the
    number of the entry's trace; `token` int32, the entry's place in its trace (copies of `reread`
    joins have the place of what they copy).

    Arrays [N], in the order of the sampled entries: `weights` float64, what the loss gets beside a
    log-probability, such as an advantage; `logprobs` float64, the log-probability under which the
    token was sampled, 0 where nobody knows it.
    """

    ids: Int32s
    position: Int32s
    mirror: Int32s
    until: Int32s
    segment: Int32s
    sampled: Bools
    trace: Int32s
    token: Int32s
    weights: Floats
    logprobs: Floats

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, name)) for name in ENTRIES}
        if len(lengths) != 1:
            raise ValueError(f"the arrays of a row differ in length: {sorted(lengths)}")
        tokens = int(self.sampled.sum())
        for name in _SAMPLED:
            shape = getattr(self, name).shape
            if shape != (tokens,):
                raise ValueError(
                    f"`{name}` has the shape {shape}; the row has {tokens} sampled tokens"
                )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """How many entries are sampled."""
        return len(self.weights)

    @property
    def traces(self) -> int:
        """How many traces the row holds."""
        return int(self.trace[-1]) + 1 if len(self) else 0

    def weighted(self, weight: float) -> TrainingRow:
        """The row with one weight for all its sampled tokens."""
        return replace(self, weights=np.full(self.tokens, weight))

    def with_logprobs(self, logprobs: Sequence[float]) -> TrainingRow:
        """The row whose tokens were sampled with these log-probabilities, [N]."""
        return replace(self, logprobs=np.asarray(logprobs, np.float64))

    def visible(self, entries: NDArray[np.integer] | slice = slice(None)) -> Bools:
        """The mask of some entries, by default of all L, as bool [E, E]: row q, column k."""
        order = np.arange(len(self))[entries]
        mirror, until = self.mirror[order], self.until[order]
        before = (order[None, :] <= order[:, None]) & (order[:, None] < until[None, :])
        seen: Bools = before & (mirror[None, :] <= mirror[:, None])
        return seen


def training_row(ids: Sequence[int] | NDArray[np.integer], layout: Layout) -> TrainingRow:
    """The row of one trace with this layout; `ids` are the trace's ids, prompt included."""
    tokens = np.asarray(ids, np.int32)
    if len(tokens) <= int(layout.token.max(initial=-1)):
        raise ValueError(f"the layout reads token {int(layout.token.max())}, of {len(tokens)} ids")
    count = int(layout.sampled.sum())
    return TrainingRow(
        ids=tokens[layout.token],
        position=layout.position,
        mirror=layout.mirror,
        until=layout.until,
        segment=layout.segment,
        sampled=layout.sampled,
        trace=np.zeros(len(layout), np.int32),
        token=layout.token,
        weights=np.ones(count),
        logprobs=np.zeros(count),
    )


def causal_row(prompt: Sequence[int], ids: Sequence[int]) -> TrainingRow:
    """The row of a plain sequence: every entry sees all before it, all behind the prompt are
    sampled."""
    length = len(prompt) + len(ids)
    order = np.arange(length, dtype=np.int32)
    layout = Layout(
        position=order,
        order=order,
        mirror=order,
        until=np.full(length, length, np.int32),
        segment=np.zeros(length, np.int32),
        sampled=order >= len(prompt),
        token=order,
        prompt=len(prompt),
    )
    return training_row([*prompt, *ids], layout)


def blank_row() -> TrainingRow:
    """One entry that carries no loss: the row of a process that has none for a forward of all."""
    return causal_row([0], [])


def pack(rows: Iterable[TrainingRow]) -> TrainingRow:
    """Several rows as one; positions start again with every trace."""
    parts = list(rows)
    if not parts:
        raise ValueError("there is nothing to pack: give at least one row")
    entries = [len(part) for part in parts]
    counts = {
        "mirror": entries,
        "until": entries,
        "segment": [int(part.segment.max(initial=-1)) + 1 for part in parts],
        "trace": [part.traces for part in parts],
    }
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in (*ENTRIES, *_SAMPLED)
        if name not in counts
    }
    for name, numbers in counts.items():
        shifts = np.cumsum([0, *numbers[:-1]])
        shifted = [getattr(part, name) + by for part, by in zip(parts, shifts, strict=True)]
        arrays[name] = np.concatenate(shifted).astype(np.int32)
    return TrainingRow(**arrays)


def last_seen(row: TrainingRow) -> NDArray[np.int64]:
    """int64 [L]: for every entry the last one before it that it sees; -1 if it sees none."""
    last = np.arange(-1, len(row) - 1)
    begins = np.concatenate([[0], np.flatnonzero(np.diff(row.segment)) + 1])
    ends = np.append(begins[1:], len(row)) - 1
    for number, begin in enumerate(begins.tolist()):
        before = ends[:number]
        sees = (begin < row.until[before]) & (row.mirror[before] <= row.mirror[begin])
        seen = np.flatnonzero(sees)
        last[begin] = before[seen[-1]] if len(seen) else -1
    return last


def bins(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Which rows are packed together, so that no bin holds more than `room` entries: first fit,
    longest first. Gives indices, ascending in every bin.

    Raises ValueError for a row that is longer than `room`.
    """
    packed: list[list[int]] = []
    left: list[int] = []
    for index in _longest_first(lengths, room):
        at = next((i for i, free in enumerate(left) if free >= lengths[index]), None)
        if at is None:
            packed.append([])
            left.append(room)
            at = len(packed) - 1
        packed[at].append(index)
        left[at] -= lengths[index]
    return [sorted(indices) for indices in packed]


def length_groups(lengths: Sequence[int], room: int, rows: int) -> list[list[int]]:
    """Which rows, at most `rows`, share a forward that pads them to the longest: those of like
    length, longest first. Gives indices.

    Raises ValueError for a row that is longer than `room`.
    """
    groups: list[list[int]] = []
    longest = 0
    for index in _longest_first(lengths, room):
        if not groups or len(groups[-1]) == rows or lengths[index] < PADDED * longest:
            groups.append([])
            longest = lengths[index]
        groups[-1].append(index)
    return groups


def _longest_first(lengths: Sequence[int], room: int) -> list[int]:
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    if order and lengths[order[0]] > room:
        raise ValueError(
            f"row {order[0]} has {lengths[order[0]]} entries; there is room for {room}"
        )
    return order
