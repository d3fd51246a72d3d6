"""The tokens of a vocabulary as a trie of their bytes: walk an automaton over all of them at once.

Nodes are numbered level by level, and within a level in byte order, so the children of a node are
contiguous and a whole level is one slice of a flat NumPy array. `walk` goes down level by level and
expands only nodes in which the automaton is alive: a state that allows few tokens costs
microseconds, one that allows most a few milliseconds at 150k tokens.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]

# Below this many candidate children a Python loop is cheaper than a dozen NumPy calls.
_NARROW = 16
# Above this many it may pay to walk whole levels, which costs a pass over the vocabulary:
_BROAD = 1000
# a level is walked whole where more than one in so many of its nodes is alive.
_WIDE = 3
_KEY_BYTES = 16


class ByteTrie:
    """The trie of `tokens[i]`, the non-empty byte string of `ids[i]`.

    Of equal byte strings the first given is the one that `spell` uses; `walk` reports all of them.
    """

    def __init__(self, ids: Sequence[int], tokens: Sequence[bytes], size: int) -> None:
        by_bytes = _sorted_order(tokens)
        self.size = size
        self.order: Int32s = np.asarray(ids, dtype=np.int32)[by_bytes]
        self.blob = b"".join([tokens[i] for i in by_bytes.tolist()])
        lengths = np.fromiter(map(len, tokens), dtype=np.int64, count=len(tokens))[by_bytes]
        self.offsets = np.concatenate(([0], np.cumsum(lengths)))
        rank = np.full(size, -1, dtype=np.int32)
        rank[self.order] = np.arange(len(tokens), dtype=np.int32)
        first = np.frombuffer(self.blob, dtype=np.uint8)[self.offsets[:-1]]
        self._heads: list[int] = np.searchsorted(first, np.arange(257)).tolist()
        self._offsets_view = self.offsets.data
        self._rank_view = rank.data
        self._build(np.frombuffer(self.blob, dtype=np.uint8), lengths)

    def __reduce__(self) -> tuple[Any, ...]:
        """Views into arrays cannot be pickled; the trie is built anew from its tokens."""
        pieces = [self.blob[a:b] for a, b in pairwise(self.offsets.tolist())]
        return ByteTrie, (self.order.tolist(), pieces, self.size)

    def _build(self, blob: NDArray[np.uint8], lengths: NDArray[np.int64]) -> None:
        labels, parents = [np.zeros(1, np.uint8)], [np.zeros(1, np.int64)]
        levels = [(0, 1)]
        rank = np.arange(len(lengths), dtype=np.int64)
        node = np.zeros(len(lengths), dtype=np.int64)
        end_node = np.zeros(len(lengths), dtype=np.int64)
        depth, total = 0, 1
        while len(rank):
            label = blob[self.offsets[rank] + depth]
            fresh = np.ones(len(rank), dtype=bool)
            fresh[1:] = (label[1:] != label[:-1]) | (node[1:] != node[:-1])
            parents.append(node[fresh])
            labels.append(label[fresh])
            node = np.cumsum(fresh) + (total - 1)
            levels.append((total, total + len(labels[-1])))
            total, depth = levels[-1][1], depth + 1
            end_node[rank[lengths[rank] == depth]] = node[lengths[rank] == depth]
            longer = lengths[rank] > depth
            rank, node = rank[longer], node[longer]
        self._longest = depth
        self._levels = levels
        self._label = np.concatenate(labels)
        parent = np.concatenate(parents)
        counts = np.bincount(parent[1:], minlength=total)
        self._first = np.concatenate(([1], 1 + np.cumsum(counts))).astype(np.int32)
        self._token: Int32s = np.full(total, -1, dtype=np.int32)
        self._token[end_node[::-1]] = self.order[::-1]
        shown = self._token[end_node]
        twins = shown != self.order
        self._same = (self.order[twins], shown[twins])
        self._parent = parent - np.repeat(
            [0, *(low for low, _ in levels[:-1])], [high - low for low, high in levels]
        )
        self._node_of = np.zeros(self.size, dtype=np.int64)
        self._node_of[self.order] = end_node
        # Scalar access to a memoryview or bytes is several times faster than to an array.
        self._label_bytes = self._label.tobytes()
        self._first_view = self._first.data
        self._token_view = self._token.data

    def walk(self, table: Int32s, start: int) -> Int32s:
        """End state of every token of the DFA `table` (int32, (S, 256), 0 dead) from `start`.

        Returns int32 (size,), 0 where the DFA dies or the id has no bytes.
        """
        ends = np.zeros(self.size, dtype=np.int32)
        depth, last = 1, len(self._levels)
        nodes, states = np.zeros(1, np.int64), np.full(1, start, np.int32)
        while depth < last:
            first, stop = self._first[nodes], self._first[nodes + 1]
            counts = stop - first
            width = int(counts.sum())
            if width <= _NARROW:
                self._walk_narrow(table, nodes, states, ends)
                break
            if width > max(_BROAD, (self._levels[depth][1] - self._levels[depth][0]) // _WIDE):
                depth, nodes, states = self._walk_wide(table, depth, nodes, states, ends)
                continue
            nodes = np.arange(width) + np.repeat(first - (np.cumsum(counts) - counts), counts)
            states = table.take((np.repeat(states, counts) << 8) | self._label[nodes])
            alive = states.nonzero()[0]
            nodes, states = nodes[alive], states[alive]
            token = self._token[nodes]
            whole = (token >= 0).nonzero()[0]
            ends[token[whole]] = states[whole]
            depth += 1
        ends[self._same[0]] = ends[self._same[1]]
        return ends

    def _walk_wide(
        self, table: Int32s, depth: int, nodes: Int64s, states: Int32s, ends: Int32s
    ) -> tuple[int, Int64s, Int32s]:
        """Whole levels, while many nodes are alive; row 0 of the table keeps the dead dead."""
        low, high = self._levels[depth - 1]
        level = np.zeros(high - low, dtype=np.int32)
        level[nodes - low] = states
        reached = np.zeros(len(self._label), dtype=np.int32)
        while True:
            low, high = self._levels[depth]
            # mode="clip" is twice as fast as the default, and all indices are in range.
            index = (level.astype(np.int64) << 8).take(self._parent[low:high], mode="clip")
            index += self._label[low:high]
            level = table.take(index, mode="clip")
            reached[low:high] = level
            depth += 1
            few = np.count_nonzero(level) <= max(_NARROW, len(level) // _WIDE)
            if few or depth == len(self._levels):
                break
        ends += reached.take(self._node_of, mode="clip")
        nodes = level.nonzero()[0]
        return depth, nodes + low, level[nodes]

    def _walk_narrow(self, table: Int32s, nodes: Int64s, states: Int32s, ends: Int32s) -> None:
        first, token, label = self._first_view, self._token_view, self._label_bytes
        follow, end_of = table.data, ends.data
        stack = list(zip(nodes.tolist(), states.tolist(), strict=True))
        while stack:
            node, state = stack.pop()
            for child in range(first[node], first[node + 1]):
                end = follow[state, label[child]]
                if end:
                    if token[child] >= 0:
                        end_of[token[child]] = end
                    stack.append((child, end))

    def bytes_of(self, token: int) -> bytes:
        """The bytes of an id; empty for ids without any."""
        rank = self._rank_view[token]
        if rank < 0:
            return b""
        return self.blob[self._offsets_view[rank] : self._offsets_view[rank + 1]]

    def with_byte(self, byte: int) -> Int32s:
        """The ids whose bytes contain `byte`, ascending."""
        offsets = np.flatnonzero(np.frombuffer(self.blob, dtype=np.uint8) == byte)
        rank = np.searchsorted(self.offsets, offsets, side="right") - 1
        new = np.flatnonzero(np.diff(rank, prepend=-1))
        return np.sort(self.order[rank[new]])

    def ranks(self, prefix: bytes) -> tuple[int, int]:
        """The tokens that start with `prefix`, as a half-open range of indices into `order`."""
        if not prefix:
            return 0, len(self.order)
        low, high = self._heads[prefix[0]], self._heads[prefix[0] + 1]
        if len(prefix) == 1:
            return low, high
        blob, offsets, width = self.blob, self._offsets_view, len(prefix)

        def past(rank: int) -> bool:
            return blob[offsets[rank] : min(offsets[rank] + width, offsets[rank + 1])] > prefix

        def head(rank: int) -> bytes:
            return blob[offsets[rank] : offsets[rank + 1]]

        low = bisect_left(range(high), prefix, lo=low, key=head)
        return low, bisect_left(range(high), True, lo=low, key=past)

    def tokens_at(self, text: bytes, offset: int) -> list[tuple[int, int]]:
        """(length, id) of every token that is a prefix of `text[offset:]`, shortest first."""
        tokens: list[tuple[int, int]] = []
        node = 0
        for end in range(offset, min(len(text), offset + self._longest)):
            node = self._label_bytes.find(
                text[end], self._first_view[node], self._first_view[node + 1]
            )
            if node < 0:
                break
            if self._token_view[node] >= 0:
                tokens.append((end + 1 - offset, self._token_view[node]))
        return tokens


def _sorted_order(tokens: Sequence[bytes]) -> NDArray[np.int64]:
    """Stable order of `tokens` by bytes: by 16-byte keys in NumPy, the few ties in Python."""
    if not tokens:
        return np.zeros(0, dtype=np.int64)
    heads = np.array(tokens, dtype=f"S{_KEY_BYTES}").view(">u8").reshape(len(tokens), -1)
    high, low = heads[:, 0].astype(np.uint64), heads[:, 1].astype(np.uint64)
    order = np.lexsort((low, high))
    high, low = high[order], low[order]
    tied = np.flatnonzero((high[1:] == high[:-1]) & (low[1:] == low[:-1]))
    for run in np.split(tied, np.flatnonzero(np.diff(tied) > 1) + 1) if len(tied) else ():
        begin, end = int(run[0]), int(run[-1]) + 2
        order[begin:end] = sorted(order[begin:end].tolist(), key=lambda i: (tokens[i], i))
    return order
