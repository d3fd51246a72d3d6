"""The data of the tag machine: run-time bounds, symbols of fields, stack cells, frames.

All of it is immutable and shared: equal stacks are the same object.
"""

from __future__ import annotations

from collections.abc import Iterator
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


Items = tuple[tuple[BoundValue, ...], ...]  # the values of every item of a list
PENDING: Final = BoundValue("\0pending")  # stands for a value of the field that is being read


# symbols of a field


@dataclass(frozen=True, slots=True)
class CapturedField:
    """A terminal of an item whose value its branch repeats; it may not be one of `taken`."""

    field: Field
    taken: frozenset[str]


@dataclass(frozen=True, slots=True)
class BoundField:
    """A terminal of a branch that must repeat the item's value."""

    field: Field
    value: BoundValue


Symbol = Literal | Field | CapturedField | BoundField


# the stack


@dataclass(frozen=True, slots=True)
class Repeating:
    """A repetition of which `count` turns were taken (counted up to the lower bound if endless)."""

    node: Repeat
    count: int


@dataclass(frozen=True, slots=True)
class RuleEnd:
    """Behind all of a rule."""

    rule: str


@dataclass(frozen=True, slots=True)
class ItemEnd:
    """Behind an item of a list."""


@dataclass(frozen=True, slots=True)
class MapEnd:
    """Behind the list of a map."""


@dataclass(frozen=True, slots=True)
class PendingBranches:
    """Branches `index` and following of a fork are still to be read, in linear order."""

    block: Block
    branch: Ref
    items: Items | None  # None: by count
    index: int


@dataclass(frozen=True, slots=True)
class PendingBranch:
    """One branch, not yet begun."""

    block: Block
    branch: Ref
    index: int
    values: tuple[BoundValue, ...]


@dataclass(frozen=True, slots=True)
class BranchEnd:
    """Behind a branch."""

    block: Block
    index: int


@dataclass(frozen=True, slots=True)
class OpenFork:
    """A fork by count that is counted among the blocks of its branch: its branches begin here."""

    fork: ForkNode


_Ends = RuleEnd | ItemEnd | MapEnd | BranchEnd
StackEntry = Node | Repeating | PendingBranches | PendingBranch | OpenFork | _Ends


@dataclass(slots=True, eq=False)
class Cell:
    """One stack cell, shared: equal stacks are the same object."""

    entry: StackEntry
    below: Cell | None


@dataclass(frozen=True, slots=True)
class MapFrame:
    """An open map: the items listed so far and, inside an item, the values captured so far."""

    block: Block
    items: Items
    open: tuple[BoundValue, ...] | None
    below: Frame | None


@dataclass(frozen=True, slots=True)
class ListedFrame:
    """A map that is complete: these items wait for their branches."""

    block: Block
    items: Items
    below: Frame | None


@dataclass(frozen=True, slots=True)
class BranchFrame:
    """A branch (or the trunk): values still to be repeated, its depth, blocks begun on it."""

    pending: tuple[tuple[str, BoundValue], ...]
    depth: int
    blocks: int
    below: Frame | None


Frame = MapFrame | ListedFrame | BranchFrame


def texts(values: tuple[BoundValue, ...]) -> tuple[str, ...]:
    return tuple(v.text for v in values)


def branch_of(frame: Frame | None) -> BranchFrame:
    while frame is not None and not isinstance(frame, BranchFrame):
        frame = frame.below
    assert frame is not None
    return frame


def with_branch(frame: Frame | None, branch: BranchFrame) -> Frame:
    if frame is None or isinstance(frame, BranchFrame):
        return branch
    return replace(frame, below=with_branch(frame.below, branch))


def filled(frame: Frame | None, captured: Iterator[BoundValue]) -> Frame | None:
    """The frames with the values of the field that was read, those of an outer item first: a map
    may begin in the field that names the item around it."""
    if frame is None or isinstance(frame, BranchFrame):
        return frame
    below = filled(frame.below, captured)
    if isinstance(frame, ListedFrame) or frame.open is None:
        return replace(frame, below=below)
    opened = tuple(next(captured) if value is PENDING else value for value in frame.open)
    return MapFrame(frame.block, frame.items, opened, below)
