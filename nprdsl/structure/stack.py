"""The data of the tag machine: run-time bounds, symbols of fields, stack cells, frames.

All of it is immutable and shared: equal stacks are the same object.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from nprdsl.grammar.ir import Block, Field, ForkNode, Literal, Node, Ref, Repeat


@dataclass(frozen=True, slots=True)
class Bounds:
    """Run-time limits on structure; None is without limit."""

    depth: int | None = None  # forks inside forks
    branches: int | None = None  # branches of one fork
    blocks: int | None = None  # blocks one after another on one branch (or the trunk)


UNBOUNDED: Final = Bounds()


@dataclass(frozen=True, slots=True)
class BoundValue:
    """A value of an item that its branch repeats; `tokens` is filled in when tokens are known."""

    text: str
    tokens: tuple[int, ...] = ()


PENDING: Final = BoundValue("\0pending")  # stands for a value of the field that is being read


# symbols of a field


@dataclass(frozen=True, slots=True)
class Capture:
    """A terminal of an item whose value its branch repeats; it may not be one of `taken`."""

    field: Field
    taken: frozenset[str]


@dataclass(frozen=True, slots=True)
class Bound:
    """A terminal of a branch that must repeat the item's value."""

    field: Field
    value: BoundValue


Symbol = Literal | Field | Capture | Bound


# the stack


@dataclass(frozen=True, slots=True)
class Again:
    """A repetition of which `count` turns were taken (counted up to the lower bound if endless)."""

    node: Repeat
    count: int


@dataclass(frozen=True, slots=True)
class Leave:
    rule: str


@dataclass(frozen=True, slots=True)
class ItemEnd:
    pass


@dataclass(frozen=True, slots=True)
class MapEnd:
    pass


@dataclass(frozen=True, slots=True)
class Branches:
    """Branches `index` and following of a fork are still to be read, in linear order."""

    block: Block
    branch: Ref
    items: tuple[tuple[BoundValue, ...], ...] | None  # None: by count
    index: int


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch, not yet begun."""

    block: Block
    branch: Ref
    index: int
    values: tuple[BoundValue, ...]


@dataclass(frozen=True, slots=True)
class BranchEnd:
    block: Block
    index: int


@dataclass(frozen=True, slots=True)
class Opened:
    """A fork by count that is counted among the blocks of its branch: its branches begin here."""

    fork: ForkNode


Entry = Node | Again | Leave | ItemEnd | MapEnd | Branches | Branch | BranchEnd | Opened


class Cell:
    """One stack cell, shared: equal stacks are the same object."""

    __slots__ = ("below", "entry")

    def __init__(self, entry: Entry, below: Cell | None) -> None:
        self.entry = entry
        self.below = below


@dataclass(frozen=True, slots=True)
class MapFrame:
    """An open map: the items listed so far and, inside an item, the values captured so far."""

    block: Block
    items: tuple[tuple[BoundValue, ...], ...]
    open: tuple[BoundValue, ...] | None
    below: Frame | None


@dataclass(frozen=True, slots=True)
class BranchFrame:
    """A branch (or the trunk): values still to be repeated, its depth, blocks begun on it."""

    pending: tuple[tuple[str, BoundValue], ...]
    depth: int
    blocks: int
    below: Frame | None


Frame = MapFrame | BranchFrame


def texts(values: tuple[BoundValue, ...]) -> tuple[str, ...]:
    return tuple(v.text for v in values)


def branch_of(frame: Frame | None) -> BranchFrame:
    while isinstance(frame, MapFrame):
        frame = frame.below
    assert frame is not None
    return frame


def with_branch(frame: Frame | None, branch: BranchFrame) -> Frame:
    if isinstance(frame, MapFrame):
        return replace(frame, below=with_branch(frame.below, branch))
    return branch
