"""Which entries each segment sees, as one list: what attention kernels of variable length take.

All entries of a segment see the same earlier entries, and each other causally. So an attention over
a graph is a batch of ordinary causal ones: the queries of a segment, against the keys that it sees
and its own behind them. A kernel whose causal mask is aligned at the end needs nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class SegmentKeys:
    """The keys of S segments. Segment s has the queries `query_ends[s]` up to `query_ends[s + 1]`
    and the keys `entries[key_ends[s]]` up to `entries[key_ends[s + 1]]`, its own last.

    entries: int64 [K]. query_ends, key_ends: int32 [S + 1], from 0 on.
    """

    entries: Int64s
    query_ends: Int32s
    key_ends: Int32s

    @property
    def longest_query(self) -> int:
        return int(np.diff(self.query_ends).max(initial=0))

    @property
    def longest_key(self) -> int:
        return int(np.diff(self.key_ends).max(initial=0))


def segment_keys(mirror: Int32s, until: Int32s, segment: Int32s) -> SegmentKeys:
    """The keys of the segments of a layout, or of packed ones; int32 [L] each. A new segment begins
    where `segment` changes; empty ones have no entries and are left out."""
    bounds = np.append(np.flatnonzero(np.diff(segment, prepend=-1)), len(segment))
    keys = []
    for begin, end in pairwise(bounds.tolist()):
        seen = (begin < until[:begin]) & (mirror[:begin] <= mirror[begin])
        keys.append(np.append(np.flatnonzero(seen), np.arange(begin, end)))
    return SegmentKeys(
        entries=np.concatenate([np.zeros(0, np.int64), *keys]),
        query_ends=bounds.astype(np.int32),
        key_ends=np.cumsum([0, *map(len, keys)]).astype(np.int32),
    )
