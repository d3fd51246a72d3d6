"""A chain of thought divided into what stays prose and what runs in parallel.

The smallest parts of a chain's outline are its *leaves*, numbered from 0. A document is a sequence
of passages: ranges of leaves (prose), and blocks, whose branches are documents again. Step 3 of the
curation plans it in leaves; step 4 says which sentences belong to each leaf.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class BlockKind(StrEnum):
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
class LeafRange:
    """The leaves from `first` to `last`, both included; in a document, their text as prose."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last:
            raise ValueError(f"{self.first} to {self.last} is no range of leaves")

    @property
    def leaves(self) -> range:
        return range(self.first, self.last + 1)


@dataclass(frozen=True, slots=True)
class DocumentBlock:
    """Branches that do not depend on each other; each is a document of its own."""

    kind: BlockKind
    branches: tuple[tuple[Passage, ...], ...]

    def __post_init__(self) -> None:
        if not self.branches or not all(self.branches):
            raise ValueError("a block has branches, and every branch holds something")

    @property
    def ranges(self) -> tuple[LeafRange, ...]:
        """The leaves of every branch."""
        return tuple(LeafRange(nodes[0].first, nodes[-1].last) for nodes in self.branches)

    @property
    def first(self) -> int:
        return self.branches[0][0].first

    @property
    def last(self) -> int:
        return self.branches[-1][-1].last


Passage = LeafRange | DocumentBlock


def depth_of(document: Sequence[Passage]) -> int:
    """How many blocks lie inside each other at most."""
    blocks = (passage for passage in document if isinstance(passage, DocumentBlock))
    inner = (depth_of(branch) for block in blocks for branch in block.branches)
    return max((1 + depth for depth in inner), default=0)


def nest(blocks: Sequence[DocumentBlock], leaves: int) -> tuple[Passage, ...]:
    """The document of `leaves` leaves that has these blocks, given flat, in any order.

    A block that lies in a branch of another is put there. The last leaf stays apart where it is
    prose: there a chain gives its answer. ValueError where blocks overlap in another way.
    """
    ordered = sorted(blocks, key=lambda block: (block.first, -block.last))
    document = _between(ordered, LeafRange(0, leaves - 1))
    last = document[-1]
    if isinstance(last, LeafRange) and last.first < last.last:
        document[-1:] = [LeafRange(last.first, last.last - 1), LeafRange(last.last, last.last)]
    return tuple(document)


def opened_by_prose(
    document: Sequence[Passage], needed: Mapping[int, Collection[int]]
) -> tuple[Passage, ...]:
    """The document in which prose before a block begins the block's first branch, where no other
    branch of it needs that prose; `needed` are the leaves that each leaf needs."""
    opened: list[Passage] = []
    for passage in document:
        if not isinstance(passage, DocumentBlock):
            opened.append(passage)
            continue
        first, *others = passage.branches
        before = opened[-1] if opened else None
        wanted = {n for branch in others for leaf in _leaves(branch) for n in needed[leaf]}
        if isinstance(before, LeafRange) and wanted.isdisjoint(before.leaves):
            opened.pop()
            if isinstance(first[0], LeafRange):
                first = (LeafRange(before.first, first[0].last), *first[1:])
            else:
                first = (before, *first)
        branches = tuple(opened_by_prose(branch, needed) for branch in (first, *others))
        opened.append(DocumentBlock(passage.kind, branches))
    return tuple(opened)


def _leaves(branch: Sequence[Passage]) -> range:
    return range(branch[0].first, branch[-1].last + 1)


def _between(blocks: list[DocumentBlock], whole: LeafRange) -> list[Passage]:
    """All leaves of a range, with the blocks that lie there."""
    document: list[Passage] = []
    leaf = whole.first
    while blocks:
        outer = blocks[0]
        inner = [block for block in blocks[1:] if block.first <= outer.last]
        blocks = blocks[1 + len(inner) :]
        if leaf < outer.first:
            document.append(LeafRange(leaf, outer.first - 1))
        document.append(_with_inner(outer, inner))
        leaf = outer.last + 1
    if leaf <= whole.last:
        document.append(LeafRange(leaf, whole.last))
    return document


def _with_inner(outer: DocumentBlock, inner: list[DocumentBlock]) -> DocumentBlock:
    branches = []
    for branch in outer.ranges:
        here = [b for b in inner if branch.first <= b.first and b.last <= branch.last]
        inner = [block for block in inner if block not in here]
        branches.append(tuple(_between(here, branch)))
    if inner:
        raise ValueError(
            f"the block of leaves {inner[0].first} to {inner[0].last} lies across branches of "
            "another"
        )
    return DocumentBlock(outer.kind, tuple(branches))
