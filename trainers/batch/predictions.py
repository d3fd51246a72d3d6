"""A training row in which every entry predicts one token at most.

Trainers for plain sequences hold one label for each entry: the token that is predicted there. At a
fork the last entry before it predicts the first token of every branch, and a row of one label
cannot say so. Here that entry is read again, once for each further branch: the copy has its token
and its position and sees what it sees, nobody sees the copy, so its logits are the same and nothing
else changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nprdsl.trainers.batch.scoring import predictors
from nprdsl.trainers.batch.training_rows import TrainingRow

IGNORED: Final = -100  # the label of an entry that predicts nothing
Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class PredictionRow:
    """A row with its copies, and what its entries predict.

    `predicting` int64 [N]: for each sampled token, in their order, the entry that predicts it; no
    entry stands in it twice. `labels` int64 [L]: the token that the entry predicts, or IGNORED.
    """

    row: TrainingRow
    predicting: Int64s
    labels: Int64s


def prediction_row(row: TrainingRow) -> PredictionRow:
    """The row with one label for each entry; the same row where none has to be read again. Raises
    ValueError for a sampled token with nothing before it."""
    sources = predictors(row)
    rank = _ranks(sources)
    copies = np.zeros(len(row), np.int64)
    np.add.at(copies, sources[rank > 0], 1)
    place = np.arange(len(row) + 1) + np.append(0, np.cumsum(copies))
    predicting = place[sources] + rank
    copied = _with_copies(row, copies, place) if copies.any() else row
    labels = np.full(len(copied), IGNORED, np.int64)
    labels[predicting] = row.ids[row.sampled]
    return PredictionRow(copied, predicting, labels)


def _ranks(sources: Int64s) -> Int64s:
    """How often each value stood before its place; int64 [N]."""
    order = np.argsort(sources, kind="stable")
    sorted_ = sources[order]
    begins = np.searchsorted(sorted_, sorted_)
    ranks = np.empty(len(sources), np.int64)
    ranks[order] = np.arange(len(sources)) - begins
    return ranks


def _with_copies(row: TrainingRow, copies: Int64s, place: Int64s) -> TrainingRow:
    """Entry e followed by `copies[e]` of it; `place` [L + 1] is where each entry goes.

    In the mirror copies stand before the entry, so that they do not see it; nobody sees them,
    because their `until` is the next entry. The entry and each copy are segments of their own:
    copies see what is before it in its segment, and all entries of a segment are seen alike.
    """
    counts = copies + 1
    number = np.arange(len(place) - 1).repeat(counts)  # the entry that stands there
    behind = np.arange(len(number)) - place[number]  # 0 for the entry, then 1, 2, …
    is_copy = behind > 0
    by_mirror = np.argsort(row.mirror)
    before = np.empty(len(row), np.int64)  # in the mirror, copies counted
    before[by_mirror] = np.cumsum(counts[by_mirror]) - counts[by_mirror]
    mirror = before[number] + copies[number] - behind
    until = np.where(is_copy, np.arange(len(number)) + 1, place[row.until[number]])
    alone = copies[number] > 0
    changes = (np.diff(row.segment[number]) != 0) | alone[1:] | alone[:-1]
    return replace(
        row,
        ids=row.ids[number],
        position=row.position[number],
        mirror=mirror.astype(np.int32),
        until=until.astype(np.int32),
        segment=np.append(0, np.cumsum(changes)).astype(np.int32),
        sampled=row.sampled[number] & ~is_copy,
        trace=row.trace[number],
        token=row.token[number],
    )
