"""Small traces as trees, all of them, with an oracle for what each entry sees and where it stands.

A sequence is a list that alternates segments and blocks: [n, block, n, block, …, n] where n is the
number of units; a block is (join kind, [sequence, …]). The oracle propagates sets along the tree
and shares nothing with `nprdsl.trace.graph` or `nprdsl.trace.layout`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from nprdsl.grammar import ir
from nprdsl.grammar.diagnostics import Span
from nprdsl.structure.events import EnterBranch, EnterFork, EnterJoin
from nprdsl.trace.graph import Mark

Sequence = list[Any]  # of int and Block in turn
Block = tuple[ir.JoinKind | None, list[Sequence]]

SPAN = Span("test.lark", 1, 1, 1, 1)


def block(join: ir.JoinKind, rule: str = "block", branch: str = "step") -> ir.Block:
    return ir.Block(0, rule, "plan", branch, (), 1, None, join, SPAN)


BLOCKS = {join: block(join) for join in ir.JoinKind}


def shapes(segments: int) -> Iterator[Sequence]:
    """Every sequence of `segments` segments, copies not counted; its joins are not chosen yet."""
    if segments == 1:
        yield [1]
    for inside in range(1, segments - 1):
        for rest in shapes(segments - 1 - inside):
            for branches in _forests(inside):
                yield [1, (None, branches), *rest]


def _forests(segments: int) -> Iterator[list[Sequence]]:
    if segments == 0:
        yield []
    for first in range(1, segments + 1):
        for tree in shapes(first):
            for rest in _forests(segments - first):
                yield [tree, *rest]


def with_joins(shape: Sequence) -> Iterator[Sequence]:
    """Every choice of reduce and reread for the blocks of a shape."""
    options = []
    for item in shape:
        if isinstance(item, int):
            options.append([item])
        else:
            forests = itertools.product(*(list(with_joins(branch)) for branch in item[1]))
            options.append([(kind, list(f)) for f, kind in itertools.product(forests, ir.JoinKind)])
    yield from (list(choice) for choice in itertools.product(*options))


def with_lengths(shape: Sequence, lengths: Iterator[int]) -> Sequence:
    """The same shape with the segments' lengths taken from `lengths`, in linear order."""
    sized = []
    for item in shape:
        if isinstance(item, int):
            sized.append(next(lengths))
        else:
            sized.append((item[0], [with_lengths(branch, lengths) for branch in item[1]]))
    return sized


def fork(at: int, block: ir.Block) -> Mark:
    return Mark(EnterFork(block), at)


def branch(at: int, block: ir.Block, index: int = 0) -> Mark:
    return Mark(EnterBranch(block, index, ()), at)


def join(at: int, block: ir.Block) -> Mark:
    return Mark(EnterJoin(block), at)


def marks(sequence: Sequence) -> tuple[list[Mark], int]:
    """What a parser would say of the trace, and its length."""
    found: list[Mark] = []
    return found, _mark(sequence, 0, found)


def _mark(sequence: Sequence, at: int, found: list[Mark]) -> int:
    for item in sequence:
        if isinstance(item, int):
            at += item
            continue
        kind, branches = item
        found.append(fork(at, BLOCKS[kind]))
        for index, content in enumerate(branches):
            found.append(branch(at, BLOCKS[kind], index))
            at = _mark(content, at, found)
        found.append(join(at, BLOCKS[kind]))
    return at


class Oracle:
    """Entry by entry, in linear order: the set of entries seen, the position, the unit it reads."""

    def __init__(self, sequence: Sequence) -> None:
        self.sees: list[set[int]] = []
        self.position: list[int] = []
        self.token: list[int] = []
        self.units = 0
        _, _, self.steps = self._walk(sequence, set(), 0, 0)

    def _entry(self, before: set[int], position: int, unit: int) -> set[int]:
        now = before | {len(self.sees)}
        self.sees.append(now)
        self.position.append(position)
        self.token.append(unit)
        return now

    def _walk(
        self, sequence: Sequence, seen: set[int], position: int, step: int
    ) -> tuple[set[int], int, int]:
        for item in sequence:
            if isinstance(item, int):
                for _ in range(item):
                    seen = self._entry(seen, position, self.units)
                    self.units, position, step = self.units + 1, position + 1, step + 1
                continue
            kind, branches = item
            begin = self.units
            ends = [self._walk(branch, seen, position, step) for branch in branches]
            step = max(end[2] for end in ends)
            if kind is ir.JoinKind.REDUCE:
                seen = set[int]().union(*(end[0] for end in ends))
                position = max(end[1] for end in ends)
                continue
            for unit in range(begin, self.units):
                seen = self._entry(seen, position, unit)
                position += 1
        return seen, position, step
