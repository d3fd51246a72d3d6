"""What of a document may stand where: on the trunk and in branches, in maps, items and joins.

A chain of thought has texts, and a schema's labels are numbers; a schema that wants a typed value,
or another regular one, has no way here.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from nprdsl.grammar import ir
from nprdsl.trainers.curate.derivation import Cost, S, Walker, Way, Ways, add
from nprdsl.trainers.curate.document import Block, Kind, Node, Prose
from nprdsl.trainers.curate.form_parts import (
    BranchMark,
    ConclusionSlot,
    ExtraSlot,
    ItemSlot,
    JoinMark,
    OpenMark,
    Path,
    Piece,
    ProseSlot,
    Source,
    Written,
)

_EXTRA = Way(Cost.EXTRA, (ExtraSlot(0),))  # numbered when the form is complete


@dataclass(frozen=True, eq=False, slots=True)
class Opened:
    """A block that is being written: the node behind it, and what each branch repeats. There is one
    for each content, compared by identity."""

    construct: ir.Block
    path: Path
    block: Block
    end: int
    bound: tuple[tuple[Piece, ...], ...]


@dataclass(frozen=True, slots=True)
class At:
    """A spot of a sequence: `node` is next; `forced` are bound values that must come first."""

    node: int = 0
    opened: Opened | None = None
    forced: tuple[tuple[str, Piece], ...] = ()


class Sequel:
    """A sequence of nodes: the trunk, or a branch of `around`.

    `merge` is what it costs to write the answer in one text with what stands before it; `labels`
    are those of the branches around, the outermost first.
    """

    def __init__(
        self,
        grammar: ir.Grammar,
        nodes: Sequence[Node],
        *,
        merge: int,
        around: Block | None = None,
        path: Path = (),
        labels: tuple[str, ...] = (),
    ) -> None:
        self._grammar = grammar
        self._nodes = nodes
        self._merge = merge
        self._wraps = around is None or around.kind is not Kind.ALONE
        self._path = path
        self._labels = labels
        self._walker: Walker[At] = Walker(grammar, self)
        self._made: dict[tuple[ir.Block, int, int, Kind], Opened | None] = {}
        self._written: dict[tuple[ir.ForkNode, Opened], Way | None] = {}

    def ways(self, node: ir.Node, forced: tuple[tuple[str, Piece], ...] = ()) -> Way | None:
        """The cheapest way to write all nodes over `node`; None where there is none."""
        return self._walker.walk(node, At(forced=forced)).get(At(len(self._nodes)))

    def field(self, terminal: ir.Terminal, spot: At) -> Ways[At]:
        if terminal.kind is ir.TerminalKind.GLUE:
            return {spot: Way(0, (Written(terminal.literal, Source.GLUE),))}
        if spot.forced:
            (name, piece), *rest = spot.forced
            if name != terminal.name:
                return {}
            return {At(spot.node, spot.opened, tuple(rest)): Way(0, (piece,))}
        if terminal.kind is not ir.TerminalKind.TEXT:
            return {}
        ways: Ways[At] = {spot: _EXTRA}
        if spot.opened is None:
            for end, first, last in self._runs(spot.node):
                add(ways, At(end), Way(self._merged(spot.node, end), (ProseSlot(first, last),)))
        return ways

    def special(self, rule: str, spot: At) -> Ways[At] | None:
        return None

    def construct(self, node: ir.MapNode | ir.ForkNode | ir.JoinNode, spot: At) -> Ways[At]:
        match node:
            case ir.MapNode():
                return self._map(node, spot)
            case ir.ForkNode():
                return self._fork(node, spot)
            case ir.JoinNode():
                return self._join(node, spot)

    # prose

    def _runs(self, start: int) -> Iterator[tuple[int, int, int]]:
        """Runs of prose from node `start`: the node behind, the first and the last leaf."""
        for index in range(start, len(self._nodes)):
            node, begin = self._nodes[index], self._nodes[start]
            if not isinstance(node, Prose):
                return
            yield index + 1, begin.first, node.last

    def _merged(self, start: int, end: int) -> int:
        """Two prose nodes stand side by side only where the second is the answer."""
        return self._merge if end - start > 1 else 0

    # blocks

    def _contents(self, spot: At, construct: ir.Block) -> Iterator[tuple[int, Opened]]:
        """The block that is next, or prose as a block of one branch."""
        if spot.node == len(self._nodes) or spot.opened is not None or spot.forced:
            return
        node = self._nodes[spot.node]
        if isinstance(node, Block):
            yield from self._content(construct, spot.node, spot.node + 1, node, 0)
        for end, first, last in self._runs(spot.node) if self._wraps else ():
            alone = Block(Kind.ALONE, ((Prose(first, last),),))
            cost = Cost.WRAP + self._merged(spot.node, end)
            yield from self._content(construct, spot.node, end, alone, cost)

    def _content(
        self, construct: ir.Block, at: int, end: int, block: Block, cost: int
    ) -> Iterator[tuple[int, Opened]]:
        """One content, made once; nothing where its labels cannot be made."""
        key = (construct, at, end, block.kind)
        if key not in self._made:
            path = (*self._path, at)
            bound = _bound(self._grammar, construct, path, len(block.branches), self._labels)
            made = None if bound is None else Opened(construct, path, block, end, bound)
            self._made[key] = made
        found = self._made[key]
        if found is not None:
            yield cost, found

    def _map(self, node: ir.MapNode, spot: At) -> Ways[At]:
        found: Ways[At] = {}
        for cost, content in self._contents(spot, node.block):
            listed = Walker(self._grammar, Listing(self._grammar, content)).walk(node.node, 0)
            way = listed.get(len(content.block.branches))
            if way is not None:
                mark = Way(cost, (OpenMark(content.path, content.block),))
                add(found, At(spot.node, content), mark.then(way))
        return found

    def _fork(self, node: ir.ForkNode, spot: At) -> Ways[At]:
        found: Ways[At] = {}
        if node.block.item is not None:
            opened = spot.opened
            if opened is not None and opened.construct is node.block:
                self._begin(node, spot, opened, Way(), found)
            return found
        low, high = node.block.low, node.block.high
        for cost, content in self._contents(spot, node.block):
            count = len(content.block.branches)
            if low <= count and (high is None or count <= high):
                begun = Way(cost, (OpenMark(content.path, content.block),))
                self._begin(node, spot, content, begun, found)
        return found

    def _begin(
        self, node: ir.ForkNode, spot: At, opened: Opened, begun: Way, into: Ways[At]
    ) -> None:
        key = (node, opened)
        if key not in self._written:
            self._written[key] = self._branches(node, opened)
        written = self._written[key]
        if written is not None:
            add(into, At(spot.node, opened), begun.then(written))

    def _branches(self, node: ir.ForkNode, opened: Opened) -> Way | None:
        way = Way()
        for index, nodes in enumerate(opened.block.branches):
            values = opened.bound[index]
            label = next((v.text for v in values if isinstance(v, Written)), str(index + 1))
            branch = Sequel(
                self._grammar,
                nodes,
                merge=self._merge,
                around=opened.block,
                path=(*opened.path, index),
                labels=(*self._labels, label.rpartition(".")[2]),
            )
            forced = tuple(zip(node.block.bound, values, strict=True)) if values else ()
            written = branch.ways(node.branch, forced)
            if written is None:
                return None
            way = way.then(Way(0, (BranchMark(opened.path, index),))).then(written)
        return way

    def _join(self, node: ir.JoinNode, spot: At) -> Ways[At]:
        opened = spot.opened
        if opened is None or opened.construct is not node.block:
            return {}
        closing = Closing(opened.path)
        ended: Ways[At] = {}
        for way in Walker(self._grammar, closing).walk(node.node, False).values():
            add(ended, At(opened.end), Way(0, (JoinMark(opened.path),)).then(way))
        return ended


class Listing:
    """Inside a map; a spot is the number of items that are listed."""

    def __init__(self, grammar: ir.Grammar, content: Opened) -> None:
        self._grammar = grammar
        self._content = content

    def field(self, terminal: ir.Terminal, spot: int) -> Ways[int]:
        return _glue_or(terminal, spot, {spot: _EXTRA})

    def special(self, rule: str, spot: int) -> Ways[int] | None:
        if rule != self._content.construct.item:
            return None
        if spot == len(self._content.block.branches):
            return {}
        slot = ItemSlot(self._content.path, spot)
        item = Item(self._content.construct.bound, self._content.bound[spot], slot)
        walked = Walker(self._grammar, item).walk(self._grammar.rules[rule].node, ItemSpot())
        found: Ways[int] = {}
        for reached, way in walked.items():
            if reached.captured == len(self._content.bound[spot]):
                add(found, spot + 1, way)
        return found

    def construct(self, node: ir.MapNode | ir.ForkNode | ir.JoinNode, spot: int) -> Ways[int]:
        return {}


@dataclass(frozen=True, slots=True)
class ItemSpot:
    captured: int = 0  # bound values that are written
    told: bool = False  # whether the text of the item is


class Item:
    """Inside an item: its bound values, and one text."""

    def __init__(self, names: tuple[str, ...], bound: tuple[Piece, ...], slot: ItemSlot) -> None:
        self._names = names
        self._bound = bound
        self._slot = slot

    def field(self, terminal: ir.Terminal, spot: ItemSpot) -> Ways[ItemSpot]:
        at = spot.captured
        if self._names[at : at + 1] == (terminal.name,):
            piece = self._bound[at]
            told = spot.told or piece == self._slot
            return {ItemSpot(at + 1, told): Way(0, (piece,))}
        told_now: Ways[ItemSpot] = {ItemSpot(at, True): Way(0, (self._slot,))}
        return _glue_or(terminal, spot, {} if spot.told else told_now)

    def special(self, rule: str, spot: ItemSpot) -> Ways[ItemSpot] | None:
        return None

    def construct(
        self, node: ir.MapNode | ir.ForkNode | ir.JoinNode, spot: ItemSpot
    ) -> Ways[ItemSpot]:
        return {}


class Closing:
    """Inside a join: one text; a spot is whether it is written."""

    def __init__(self, path: Path) -> None:
        self._slot = ConclusionSlot(path)

    def field(self, terminal: ir.Terminal, spot: bool) -> Ways[bool]:
        return _glue_or(terminal, spot, {} if spot else {True: Way(0, (self._slot,))})

    def special(self, rule: str, spot: bool) -> Ways[bool] | None:
        return None

    def construct(self, node: ir.MapNode | ir.ForkNode | ir.JoinNode, spot: bool) -> Ways[bool]:
        return {}


def _glue_or(terminal: ir.Terminal, spot: S, text: Ways[S]) -> Ways[S]:
    """Glue is written where it stands, free text as `text` says; other values have no way."""
    match terminal.kind:
        case ir.TerminalKind.GLUE:
            return {spot: Way(0, (Written(terminal.literal, Source.GLUE),))}
        case ir.TerminalKind.TEXT:
            return text
        case _:
            return {}


def _bound(
    grammar: ir.Grammar, construct: ir.Block, path: Path, count: int, labels: tuple[str, ...]
) -> tuple[tuple[Piece, ...], ...] | None:
    """What each of `count` branches repeats of its item; None where that cannot be made."""
    columns: list[tuple[Piece, ...]] = []
    labelled = told = False
    for name in construct.bound:
        terminal = grammar.terminals[name]
        if terminal.kind is ir.TerminalKind.TEXT and not told:
            told = True
            columns.append(tuple(ItemSlot(path, index) for index in range(count)))
        elif terminal.kind is ir.TerminalKind.REGULAR and not labelled:
            labelled = True
            found = _labels(terminal, count, labels)
            if found is None:
                return None
            columns.append(tuple(Written(label, Source.LABEL) for label in found))
        else:
            return None
    return tuple(zip(*columns, strict=True)) if columns else ((),) * count


def _labels(terminal: ir.Terminal, count: int, around: tuple[str, ...]) -> list[str] | None:
    """Labels for the branches of a block: 2.1, 2.2 … inside branch 2, or 1, 2 …, or letters."""
    numbers = [str(number + 1) for number in range(count)]
    dotted = [".".join((*around, number)) for number in numbers]
    pattern = re.compile(terminal.pattern, re.ASCII)
    for names in chain((dotted, numbers), _LETTERS):
        if len(names) >= count and all(map(pattern.fullmatch, names[:count])):
            return names[:count]
    return None


_LETTERS = ([*string.ascii_uppercase], [*string.ascii_lowercase])
