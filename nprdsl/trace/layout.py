"""The layout of a trace: for every entry its position, its place in two orders, and who may see it.

The entries stand in linear order, so `order` is 0, 1, 2, …; `mirror` numbers them walking the
branches of every fork right to left (English-Hebrew labelling of a series-parallel order, Nudler
and Rudolph 1986). `until` is the first entry that no longer sees this one. Entry q sees entry k iff

    order[k] <= order[q] < until[k]   and   mirror[k] <= mirror[q]

Without a `reread` join nothing is ever dropped, `until` is L everywhere and the two orders are all.
A `reread` join drops its branches: what follows sees their copy only. Two orders cannot say that in
general: three branches of a `reduce` that each hold a `reread` make an order of dimension three
(its comparability graph is the subdivided claw, which is no permutation graph). One number per
entry can, because those that may see a dropped entry stand next to each other in the linear order.

Memory is O(L); no matrix is built except by `visible`, the oracle. The position of an entry is the
length of the longest path to it; behind a join it goes on from the longest branch's end.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nprdsl.grammar import ir
from nprdsl.trace.graph import ExecutionGraph, Role
from nprdsl.trace.segment_keys import segment_keys

Int32s = NDArray[np.int32]
Bools = NDArray[np.bool_]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Arrays of shape [L], one value for every entry, read-only.

    position, order, mirror, until: int32, see above. segment: int32, index in `graph.segments`.
    sampled: bool, True where the model chose the unit (the loss mask); False for the prompt, for
    what was forced and for copies. token: int32, index into the trace's units, so that
    `ids[layout.token]` is what the model reads; the identity without `reread` joins.
    prompt: how many entries are prompt.
    """

    position: Int32s
    order: Int32s
    mirror: Int32s
    until: Int32s
    segment: Int32s
    sampled: Bools
    token: Int32s
    prompt: int

    def __len__(self) -> int:
        return len(self.position)

    def __eq__(self, other: object) -> bool:
        return self._content == other._content if isinstance(other, Layout) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._content)

    @property
    def _content(self) -> tuple[object, ...]:
        return (self.prompt, *(getattr(self, name).tobytes() for name in _ARRAYS))

    @property
    def drops(self) -> bool:
        """True iff some entry is dropped on the way: a mask then needs `until`."""
        return bool((self.until < len(self)).any())

    @classmethod
    def from_graph(cls, graph: ExecutionGraph, sampled: ArrayLike) -> Layout:
        """The layout of `graph`; `sampled` is bool [graph.length], False in the prompt."""
        chosen = np.asarray(sampled, dtype=np.bool_)
        if chosen.shape != (graph.length,):
            raise ValueError(f"sampled has shape {chosen.shape}, the graph {graph.length} units")
        if chosen[: graph.prompt].any():
            raise ValueError(f"sampled marks units of the prompt (the first {graph.prompt})")
        rows = [(s.start, s.end, s.position, s.source_start) for s in graph.segments]
        start, end, position, source = np.array(rows, dtype=np.int32).T
        order = np.arange(graph.entries, dtype=np.int32)
        segment = np.repeat(np.arange(len(start), dtype=np.int32), end - start)
        token = order + (source - start)[segment]
        copied = np.array([s.role is Role.REREAD for s in graph.segments])
        return cls(
            position=_frozen(order + (position - start)[segment]),
            order=_frozen(order),
            mirror=_frozen(order + _moves(graph, start)[segment]),
            until=_frozen(_drops(graph, start)[segment]),
            segment=_frozen(segment),
            sampled=_frozen(chosen[token] & ~copied[segment]),
            token=_frozen(token),
            prompt=graph.prompt,
        )

    def rows(self, start: int, stop: int) -> Bools:
        """Rows start … stop - 1 of the mask: bool [stop - start, L], True where q sees k."""
        q = slice(start, stop)
        order, mirror = self.order[q, None], self.mirror[q, None]
        return (self.order <= order) & (order < self.until) & (self.mirror <= mirror)

    def visible(self) -> Bools:
        """The whole mask, bool [L, L]: row q, column k. For tests and small traces."""
        return self.rows(0, len(self))

    def to_trl(self) -> dict[str, NDArray[np.integer]]:
        """The mask and positions as TRL's tree packing names them (`TreeRow.pack`, TRL 1.16).

        position_ids: int64 [L]. tree_kv_index: int64 [K], the entries that each segment sees, one
        segment after another. tree_cu_seqlens_q, tree_cu_seqlens_k: int32 [S + 1], where segments
        begin in the one and the other. tree_max_seqlens: int64 [2], the most queries and keys of a
        segment. Its tries have no joins; its attention needs none of a trie's properties.
        """
        keys = segment_keys(self.mirror, self.until, self.segment)
        return {
            "position_ids": self.position.astype(np.int64),
            "tree_kv_index": keys.entries,
            "tree_cu_seqlens_q": keys.query_ends,
            "tree_cu_seqlens_k": keys.key_ends,
            "tree_max_seqlens": np.array([keys.longest_query, keys.longest_key]),
        }


_ARRAYS = tuple(one.name for one in fields(Layout) if one.name != "prompt")


def _moves(graph: ExecutionGraph, start: Int32s) -> Int32s:
    """mirror - order for each segment.

    Inside a block that fills the entries [begin, end), a branch at [a, b) lies at
    [begin + end - b, begin + end - a) in the mirror: it moves by begin + end - a - b as a whole.
    The moves of nested branches add up: each counts from its first segment to behind its last.
    """
    moves = np.zeros(len(start) + 1, dtype=np.int64)
    starts = [*start.tolist(), graph.entries]
    for fork in graph.forks:
        bounds = [*fork.after, fork.stop]
        ends = starts[bounds[0]] + starts[fork.stop]
        for first, stop in pairwise(bounds):
            move = ends - starts[first] - starts[stop]
            moves[first] += move
            moves[stop] -= move
    return np.cumsum(moves[:-1]).astype(np.int32)


def _drops(graph: ExecutionGraph, start: Int32s) -> Int32s:
    """`until` for each segment: where the branches of the innermost `reread` around it end."""
    until = np.full(len(start), graph.entries, dtype=np.int32)
    starts = [*start.tolist(), graph.entries]
    for fork in graph.forks:
        if fork.block.join is ir.JoinKind.REREAD and fork.after:
            until[fork.after[0] : fork.stop] = starts[fork.stop]
    return until


def _frozen(array: NDArray[T]) -> NDArray[T]:
    array.setflags(write=False)
    return array
