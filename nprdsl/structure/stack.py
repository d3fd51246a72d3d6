"""The data of the tag machine: run-time bounds, symbols of fields, stack cells, frames.

All of it is immutable and shared: equal stacks, and equal lists of frames, are the same object.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, overload

from nprdsl.grammar.ir import Block, Field, ForkNode, Literal, Node, Ref, Repeat
from nprdsl.structure.events import LeaveRule


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


class Items(Sequence[tuple[BoundValue, ...]]):
    """The values of every item of a list. A list that goes on shares what it holds with the shorter
    one, so that a further item takes no longer however many there are."""

    __slots__ = ("_all", "_count", "_first")

    def __init__(self) -> None:
        self._all: list[tuple[BoundValue, ...]] = []  # those of longer lists too
        self._first: dict[str, int] = {}  # label -> the first item that has it
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> tuple[BoundValue, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[BoundValue, ...]]: ...
    def __getitem__(
        self, index: int | slice
    ) -> tuple[BoundValue, ...] | list[tuple[BoundValue, ...]]:
        if isinstance(index, slice):
            return self._all[: self._count][index]
        if not -self._count <= index < self._count:
            raise IndexError(index)
        return self._all[index % self._count]

    def then(self, values: tuple[BoundValue, ...], label: str | None) -> Items:
        """The list with one item more; `label` is its label, if it has one."""
        longer = Items()
        longer._all, longer._first = self._all, self._first
        if len(self._all) > self._count:  # another list went on from here
            longer._all = self._all[: self._count]
            longer._first = {text: at for text, at in self._first.items() if at < self._count}
        if label is not None:
            longer._first.setdefault(label, self._count)
        longer._all.append(values)
        longer._count = self._count + 1
        return longer

    def has(self, label: str) -> bool:
        """Whether an item has this label."""
        return self._first.get(label, self._count) < self._count

    def labels(self) -> Iterator[str]:
        """All labels, in order."""
        return (text for text, at in self._first.items() if at < self._count)


@dataclass(frozen=True, slots=True)
class TakenLabels(Collection[str]):
    """The labels that a list has used."""

    items: Items

    def __contains__(self, label: object) -> bool:
        return isinstance(label, str) and self.items.has(label)

    def __iter__(self) -> Iterator[str]:
        return self.items.labels()

    def __len__(self) -> int:
        return sum(1 for _ in self.items.labels())


PENDING: Final = BoundValue("\0pending")  # stands for a value of the field that is being read


# symbols of a field


@dataclass(frozen=True, slots=True)
class CapturedField:
    """A terminal of an item whose value its branch repeats; it may not be one of `taken`."""

    field: Field
    taken: Collection[str]


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
    behind: tuple[Cell | None, LeftRules | None] | None = None  # see `rules_left`


@dataclass(slots=True, eq=False)
class LeftRules:
    """Rules that end at one place, the innermost first: as many as a list by recursion has items,
    so they are kept as a chain that all its places share."""

    event: LeaveRule
    outer: LeftRules | None

    def __iter__(self) -> Iterator[LeaveRule]:
        left: LeftRules | None = self
        while left is not None:
            yield left.event
            left = left.outer


def rules_left(cell: Cell) -> tuple[Cell | None, LeftRules | None]:
    """The cell behind all rules that end at `cell`, and these rules; kept on the cells, so that a
    deep stack is gone through once."""
    passed: list[Cell] = []
    at: Cell | None = cell
    while at is not None and at.behind is None and isinstance(at.entry, RuleEnd):
        passed.append(at)
        at = at.below
    goal, left = (at, None) if at is None or at.behind is None else at.behind
    for inner in reversed(passed):
        assert isinstance(inner.entry, RuleEnd)
        left = LeftRules(LeaveRule(inner.entry.rule), left)
        inner.behind = goal, left
    return goal, left


# frames: `branch` is the branch around, itself for a branch


@dataclass(frozen=True, slots=True, eq=False)
class MapFrame:
    """An open map: the items listed so far and, inside an item, the values captured so far."""

    block: Block
    items: Items
    open: tuple[BoundValue, ...] | None
    below: Frame
    branch: BranchFrame = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "branch", self.below.branch)


@dataclass(frozen=True, slots=True, eq=False)
class ListedFrame:
    """A map that is complete: these items wait for their branches."""

    block: Block
    items: Items
    below: Frame
    branch: BranchFrame = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "branch", self.below.branch)


@dataclass(frozen=True, slots=True, eq=False)
class BranchFrame:
    """A branch (or the trunk): values still to be repeated, its depth, blocks begun on it."""

    pending: tuple[tuple[str, BoundValue], ...]
    depth: int
    blocks: int
    below: Frame | None

    @property
    def branch(self) -> BranchFrame:
        return self


Frame = MapFrame | ListedFrame | BranchFrame
TRUNK: Final = BranchFrame((), 0, 0, None)


def texts(values: tuple[BoundValue, ...]) -> tuple[str, ...]:
    return tuple(v.text for v in values)
