"""A chain in the course of its curation: parts with labels, prose, and blocks with branches.

A chain is a row of *leaves*, the smallest parts of its outline, counted from 0. `Prose` and `Block`
are what stands where; a leaf becomes a run of sentences in the fourth step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What the branches of a block are to each other (arXiv 2506.09991)."""

    COLLECTIVE = "collective"  # parts of one work: all results are needed
    SELECTIVE = "selective"  # alternatives: cases or attempts, of which one may decide
    ALONE = "alone"  # one branch: prose, in a schema that has no other place for it


@dataclass(frozen=True, slots=True)
class Leaf:
    """A smallest part of an outline: `2`, or `2.1` where a step has parts."""

    label: str
    title: str


@dataclass(frozen=True, slots=True)
class Prose:
    """The leaves from `first` to `last`, both included, one after another."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last:
            raise ValueError(
                f"prose from leaf {self.first} to leaf {self.last} is no run of leaves"
            )


@dataclass(frozen=True, slots=True)
class Block:
    """Branches that do not depend on each other; each is a sequence of prose and blocks."""

    kind: Kind
    branches: tuple[tuple[Node, ...], ...]

    def __post_init__(self) -> None:
        if not self.branches or not all(self.branches):
            raise ValueError("a block has branches, and every branch holds something")

    @property
    def first(self) -> int:
        return self.branches[0][0].first

    @property
    def last(self) -> int:
        return self.branches[-1][-1].last


Node = Prose | Block


def blocks_of(nodes: Sequence[Node]) -> Iterator[Block]:
    """All blocks, outer ones before those inside them."""
    for node in nodes:
        if isinstance(node, Block):
            yield node
            for branch in node.branches:
                yield from blocks_of(branch)


def depth_of(nodes: Sequence[Node]) -> int:
    """How many blocks lie inside each other at most."""
    inner = (depth_of(b) for n in nodes if isinstance(n, Block) for b in n.branches)
    return max((1 + depth for depth in inner), default=0)


@dataclass(frozen=True, slots=True)
class Span:
    """A block that is still a list of leaf ranges, first and last leaf of every branch."""

    kind: Kind
    branches: tuple[tuple[int, int], ...]

    @property
    def first(self) -> int:
        return self.branches[0][0]

    @property
    def last(self) -> int:
        return self.branches[-1][1]


def nested(spans: Sequence[Span], leaves: int) -> tuple[Node, ...]:
    """The document of `leaves` leaves whose blocks are `spans`.

    The last leaf stays apart where it is prose: there a chain gives its answer. ValueError where
    two blocks overlap without one lying in a branch of the other.
    """
    nodes = _between(sorted(spans, key=lambda s: (s.first, -s.last)), 0, leaves - 1)
    last = nodes[-1]
    if isinstance(last, Prose) and last.first < last.last:
        nodes[-1:] = [Prose(last.first, last.last - 1), Prose(last.last, last.last)]
    return tuple(nodes)


def _between(spans: list[Span], first: int, last: int) -> list[Node]:
    """The leaves from `first` to `last`, with the blocks that lie there."""
    nodes: list[Node] = []
    at = first
    while spans:
        outer, inner = spans[0], []
        for span in spans[1:]:
            if span.first > outer.last:
                break
            inner.append(span)
        spans = spans[1 + len(inner) :]
        if at < outer.first:
            nodes.append(Prose(at, outer.first - 1))
        nodes.append(_block(outer, inner))
        at = outer.last + 1
    if at <= last:
        nodes.append(Prose(at, last))
    return nodes


def _block(outer: Span, inner: list[Span]) -> Block:
    left, branches = list(inner), []
    for first, last in outer.branches:
        here = [span for span in left if first <= span.first and span.last <= last]
        left = [span for span in left if span not in here]
        branches.append(tuple(_between(here, first, last)))
    if left:
        raise ValueError(
            f"the block of leaves {left[0].first} to {left[0].last} lies across branches of another"
        )
    return Block(outer.kind, tuple(branches))
