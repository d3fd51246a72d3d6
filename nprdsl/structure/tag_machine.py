"""The tag machine: which tags may come next, what must stand before each, and what follows from it.

A predictive pushdown machine over a resolved grammar. Its state is a stack of work still to do and
a list of frames (the items that open maps have listed, the values that a branch must repeat). From
a state, `arcs` maps every tag that may come next (`END` for the end) to the field that must precede
it and to the state behind it. Counts, labels and depth live in the state, so that "as many steps as
plans, with the same labels" is ordinary structure. The checker, the token automaton and the engine
machine all run on it.

Two modes: LINEAR reads a whole trace, branches one after another; FORKING stops where branches
begin (`TagState.fork`) and gives each branch a state of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, TypeVar, cast

from nprdsl.grammar.ir import (
    Alt,
    Block,
    Field,
    ForkNode,
    Grammar,
    JoinNode,
    Literal,
    MapNode,
    Ref,
    Repeat,
    Seq,
    Tag,
)
from nprdsl.structure.events import (
    EnterBlock,
    EnterBranch,
    EnterFork,
    EnterJoin,
    EnterRule,
    LeaveBranch,
    LeaveRule,
    StructureEvent,
)
from nprdsl.structure.field_content import ArcContent
from nprdsl.structure.stack import (
    PENDING,
    TRUNK,
    UNBOUNDED,
    BoundField,
    Bounds,
    BoundValue,
    BranchEnd,
    BranchFrame,
    CapturedField,
    Cell,
    Frame,
    ItemEnd,
    Items,
    LeftRules,
    ListedFrame,
    MapEnd,
    MapFrame,
    OpenFork,
    PendingBranch,
    PendingBranches,
    Repeating,
    RuleEnd,
    StackEntry,
    Symbol,
    TakenLabels,
    rules_left,
    texts,
)

MAX_CHARACTERS: Final = 4_000_000  # of values that they hold
END: Final = ""  # the key of the end among the arcs: no tag is empty
AnyFrame = TypeVar("AnyFrame", bound=Frame)
Trail = tuple[StructureEvent | LeftRules | Symbol, ...]
Step = tuple[Cell | None, Frame, tuple[StructureEvent, ...]]  # and what happened on it


def steps(trail: Trail) -> Iterator[StructureEvent | Symbol]:
    """What happens and what is read on a trail, in order."""
    for step in trail:
        if isinstance(step, LeftRules):
            yield from step
        else:
            yield step


@dataclass(eq=False, slots=True)
class Arc:
    """One way on: up to `tag`, then `cell` and `frame`. `trails` are the fields that may stand
    before the tag (events and symbols, in order); more than one only where text is optional."""

    tag: str
    trails: tuple[Trail, ...]
    cell: Cell | None
    frame: Frame
    _content: ArcContent | None = None
    _fields: tuple[tuple[Symbol, ...], ...] | None = None
    _captures: bool | None = None

    @property
    def fields(self) -> tuple[tuple[Symbol, ...], ...]:
        """The symbols of every field that may stand before the tag."""
        if self._fields is None:
            self._fields = tuple(tuple(s for s in t if isinstance(s, Symbol)) for t in self.trails)
        return self._fields

    @property
    def captures(self) -> bool:
        if self._captures is None:
            self._captures = any(isinstance(s, CapturedField) for s in self.trails[0])
        return self._captures

    @property
    def content(self) -> ArcContent:
        """What may stand before the tag, to be matched with texts."""
        if self._content is None:
            self._content = ArcContent(self.fields)
        return self._content


class TagState:
    """A state right behind a tag. `events` happened on reaching it; `fork` is set where branches
    begin."""

    __slots__ = ("__weakref__", "_arcs", "_machine", "_next", "cell", "events", "fork", "frame")

    def __init__(
        self,
        machine: TagMachine,
        cell: Cell | None,
        frame: Frame,
        events: tuple[StructureEvent, ...],
    ) -> None:
        self._machine = machine
        self.cell = cell
        self.frame = frame
        self.events = events
        entry = cell.entry if cell is not None else None
        self.fork = _fork(entry)
        self._arcs: dict[str, Arc] | None = None
        self._next: dict[tuple[str, tuple[BoundValue, ...]], TagState] = {}

    @property
    def grammar(self) -> Grammar:
        return self._machine.grammar

    @property
    def finished(self) -> bool:
        """Nothing is left to read: a complete branch, or a trace that ends with a tag."""
        return self.cell is None

    @property
    def arcs(self) -> dict[str, Arc]:
        if self._arcs is None:
            self._arcs = self._machine.arcs_of(self)
        return self._arcs

    def after(self, tag: str, captured: tuple[BoundValue, ...] = ()) -> TagState:
        """The state behind `tag`, with the values that the field before it captured."""
        key = (tag, captured)
        state = self._next.get(key)
        if state is None:
            state = self._next[key] = self._machine.follow(self.arcs[tag], captured)
        return state

    def after_any(self, tag: str) -> TagState:
        """The state behind `tag`, whatever the field before it captures."""
        captures = sum(isinstance(s, CapturedField) for s in self.arcs[tag].trails[0])
        return self.after(tag, (BoundValue(""),) * captures)

    @property
    def rule(self) -> str:
        """The innermost rule that is being read."""
        cell = self.cell
        while cell is not None:
            if isinstance(cell.entry, RuleEnd):
                return cell.entry.rule
            cell = cell.below
        return self.grammar.start


def _fork(entry: StackEntry | None) -> ForkNode | None:
    """The fork whose branches begin where this entry stands on top; by count only once opened."""
    if isinstance(entry, OpenFork):
        return entry.fork
    return entry if isinstance(entry, ForkNode) and entry.block.item is not None else None


class ForkMode(StrEnum):
    LINEAR = "linear"
    FORKING = "forking"


# States, cells and frames, about a kilobyte each. Generations ask for theirs token by token; a
# check of a long text is the quicker, the less the garbage collector finds.
MAX_KEPT: Final = {ForkMode.LINEAR: 2_000, ForkMode.FORKING: 10_000}


class TagMachine:
    """All states of one grammar in one mode under one set of bounds; states are shared and
    memoised."""

    def __init__(self, grammar: Grammar, mode: ForkMode, bounds: Bounds = UNBOUNDED) -> None:
        self.grammar = grammar
        self.mode = mode
        self.bounds = bounds
        self._label_slots = {block: _label_slot(grammar, block) for block in grammar.blocks}
        self._forget()

    def _forget(self) -> None:
        """Begin anew; states that are in use go on as before."""
        self._cells: dict[tuple[StackEntry, Cell | None], Cell] = {}
        self._frames: dict[tuple[object, ...], Frame] = {}
        self._items: dict[tuple[Items, tuple[BoundValue, ...], int | None], Items] = {}
        self._states: dict[tuple[Cell | None, Frame, object], TagState] = {}
        self._nothing = Items()
        self._characters = 0  # of captured values
        start = self.push(
            Ref(self.grammar.start, self.grammar.rules[self.grammar.start].span), None
        )
        self.initial = self.settle(start, self._keep(TRUNK))

    @property
    def kept(self) -> int:
        """How many states, cells of their stacks and frames are kept."""
        return len(self._states) + len(self._cells) + len(self._frames)

    # moving

    def follow(self, arc: Arc, captured: tuple[BoundValue, ...]) -> TagState:
        """The state behind an arc. What is kept is bounded here, between two tags: what long traces
        and their values leave behind is used once at most."""
        self._characters += sum(len(value.text) for value in captured)
        if self.kept > MAX_KEPT[self.mode] or self._characters > MAX_CHARACTERS:
            self._forget()
        frame = self._filled(arc.frame, captured) if captured else arc.frame
        return self.settle(arc.cell, frame)

    def arcs_of(self, state: TagState) -> dict[str, Arc]:
        if state.fork is not None and self.mode is ForkMode.FORKING:
            return {}
        arcs: dict[str, Arc] = {}
        for arc in self._paths(state.cell, state.frame):
            known = arcs.get(arc.tag)
            if known is None:
                arcs[arc.tag] = arc
            elif (known.cell, known.frame) == (arc.cell, arc.frame):
                arcs[arc.tag] = replace(known, trails=known.trails + arc.trails)
        return arcs

    def branch(self, state: TagState, index: int) -> TagState:
        """The state at the beginning of branch `index` of a fork (FORKING mode)."""
        fork, items = self.fork_items(state)
        values = items[index] if items is not None else ()
        cell = self.push(fork.branch, self.push(BranchEnd(fork.block, index), None))
        frame = self._branch_frame(fork.block, values, state.frame.branch.depth, None)
        return self.settle(cell, frame, (EnterBranch(fork.block, index, texts(values)),))

    def joined(self, state: TagState) -> TagState:
        """The state behind the branches of a fork: its join begins (FORKING mode)."""
        assert state.fork is not None and state.cell is not None
        frame = state.frame
        if state.fork.block.item is not None:
            assert isinstance(frame, ListedFrame)
            frame = frame.below
        return self.settle(state.cell.below, frame)

    def fork_items(self, state: TagState) -> tuple[ForkNode, Items | None]:
        """The fork of a state and the bound values of its branches, None if it is by count."""
        assert state.fork is not None
        if state.fork.block.item is None:
            return state.fork, None
        assert isinstance(state.frame, ListedFrame)
        return state.fork, state.frame.items

    # unfolding

    def push(self, entry: StackEntry, below: Cell | None) -> Cell:
        key = (entry, below)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = Cell(entry, below)
        return cell

    def settle(
        self,
        cell: Cell | None,
        frame: Frame,
        events: tuple[StructureEvent, ...] = (),
    ) -> TagState:
        """Do at once all that needs no choice, so that ends and forks are known without
        lookahead."""
        while cell is not None and not self._waits(cell.entry):
            unfolded = self._unfold(cell, frame)
            if unfolded is None:
                break
            cell, frame, more = unfolded
            events += more
        key = (cell, frame, events)
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = TagState(self, cell, frame, events)
        return state

    def _waits(self, entry: StackEntry) -> bool:
        if isinstance(entry, Repeating):
            return entry.count >= entry.node.low
        if isinstance(entry, Repeat):
            return entry.low == 0
        if isinstance(entry, PendingBranches):
            return entry.items is None and entry.index >= entry.block.low
        if isinstance(entry, ForkNode) and entry.block.item is not None:
            return self.mode is ForkMode.FORKING
        return isinstance(entry, (Tag, Literal, Field, Alt, OpenFork))

    def _paths(self, cell: Cell | None, frame: Frame) -> Iterator[Arc]:
        """Every way to a next tag: one arc for each, the unfolding of choices included."""
        pending: list[tuple[Cell | None, Frame, Trail]] = [(cell, frame, ())]
        while pending:
            cell, frame, trail = pending.pop()
            while cell is not None:
                entry = cell.entry
                if isinstance(entry, Tag):
                    yield Arc(entry.text, (trail,), cell.below, frame)
                    break
                if isinstance(entry, Literal):
                    trail, cell = (*trail, entry), cell.below
                elif isinstance(entry, Field):
                    symbol, frame = self._symbol(entry, frame)
                    trail, cell = (*trail, symbol), cell.below
                elif isinstance(entry, RuleEnd):
                    cell, left = rules_left(cell)
                    trail = (*trail, left) if left is not None else trail
                elif self._waits(entry):
                    ways = list(self._choices(cell))
                    pending.extend((way, frame, trail) for way in reversed(ways))
                    break
                else:
                    unfolded = self._unfold(cell, frame)
                    if unfolded is None:
                        break
                    cell, frame, events = unfolded
                    trail += events
            else:
                yield Arc(END, (trail,), None, frame)

    def _choices(self, cell: Cell) -> Iterator[Cell | None]:
        entry, below = cell.entry, cell.below
        if isinstance(entry, Alt):
            for option in entry.options:
                yield self.push(option, below)
        elif isinstance(entry, (Repeat, Repeating)):
            node, count = (entry.node, entry.count) if isinstance(entry, Repeating) else (entry, 0)
            if node.high != 0:
                yield self._turn(node, count, below)
            if count >= node.low:
                yield below
        elif isinstance(entry, PendingBranches):  # by count
            high = entry.block.high
            if high is None or entry.index < high:
                yield self._branch_cell(entry, below)
            yield below

    def _turn(self, node: Repeat, count: int, below: Cell | None) -> Cell:
        taken = count + 1 if node.high is not None else min(count + 1, node.low)
        if taken == node.high:  # the last one: nothing is left of it
            return self.push(node.node, below)
        return self.push(node.node, self.push(Repeating(node, taken), below))

    def _branch_cell(self, entry: PendingBranches, below: Cell | None) -> Cell:
        """The next branch, and the others behind it."""
        rest = self.push(replace(entry, index=entry.index + 1), below)
        values = entry.items[entry.index] if entry.items is not None else ()
        return self.push(PendingBranch(entry.block, entry.branch, entry.index, values), rest)

    def _unfold(self, cell: Cell, frame: Frame) -> Step | None:
        """One step that needs no choice; None where a bound forbids it."""
        entry, below = cell.entry, cell.below
        match entry:
            case Seq():
                for item in reversed(entry.items):
                    below = self.push(item, below)
                return below, frame, ()
            case Ref():
                return self._enter(entry, below, frame)
            case RuleEnd():
                return below, frame, (LeaveRule(entry.rule),)
            case Repeat():
                return self._turn(entry, 0, below), frame, ()
            case Repeating():
                return self._turn(entry.node, entry.count, below), frame, ()
            case MapNode():
                return self._open_map(entry, below, frame)
            case ItemEnd():
                return below, self._listed(frame), ()
            case MapEnd():
                assert isinstance(frame, MapFrame)
                listed = ListedFrame(frame.block, frame.items, frame.below)
                return below, self._keep(listed), ()
            case JoinNode():
                return self.push(entry.node, below), frame, (EnterJoin(entry.block),)
            case ForkNode():
                return self._open_fork(entry, below, frame)
            case PendingBranches():
                if entry.items is not None and entry.index == len(entry.items):
                    return below, frame, ()
                return self._branch_cell(entry, below), frame, ()
            case PendingBranch():
                return self._begin_branch(entry, below, frame)
            case BranchEnd():
                assert isinstance(frame, BranchFrame)
                outer = TRUNK if frame.below is None else frame.below  # complete, if FORKING
                return below, outer, (LeaveBranch(entry.block, entry.index),)
            case _:
                raise AssertionError(f"{entry!r} needs a choice or a tag")

    def _enter(self, ref: Ref, below: Cell | None, frame: Frame) -> Step | None:
        if isinstance(frame, MapFrame) and frame.open is None and frame.block.item == ref.rule:
            limit = self.bounds.branches
            if limit is not None and len(frame.items) >= limit:
                return None
            below = self.push(ItemEnd(), below)
            frame = self._keep(MapFrame(frame.block, frame.items, (), frame.below))
        below = self.push(RuleEnd(ref.rule), below)
        return self.push(self.grammar.rules[ref.rule].node, below), frame, (EnterRule(ref.rule),)

    def _open_map(self, entry: MapNode, below: Cell | None, frame: Frame) -> Step | None:
        counted = self._count_block(frame)
        if counted is None:
            return None
        below = self.push(entry.node, self.push(MapEnd(), below))
        opened = self._keep(MapFrame(entry.block, self._nothing, None, counted))
        return below, opened, (EnterBlock(entry.block),)

    def _open_fork(self, entry: ForkNode, below: Cell | None, frame: Frame) -> Step | None:
        events: tuple[StructureEvent, ...] = (EnterFork(entry.block),)
        items: Items | None = None
        if entry.block.item is None:
            counted = self._count_block(frame)
            if counted is None:
                return None
            frame = counted
            events = (EnterBlock(entry.block), *events)
            if self.mode is ForkMode.FORKING:
                return self.push(OpenFork(entry), below), frame, events[:1]
        else:
            assert isinstance(frame, ListedFrame)
            items, frame = frame.items, frame.below
        return self.push(PendingBranches(entry.block, entry.branch, items, 0), below), frame, events

    def _begin_branch(self, entry: PendingBranch, below: Cell | None, frame: Frame) -> Step | None:
        limit = self.bounds.branches
        if limit is not None and entry.index >= limit:
            return None
        below = self.push(BranchEnd(entry.block, entry.index), below)
        opened = self._branch_frame(entry.block, entry.values, frame.branch.depth, frame)
        event = EnterBranch(entry.block, entry.index, texts(entry.values))
        return self.push(entry.branch, below), opened, (event,)

    # frames

    def _keep(self, frame: AnyFrame) -> AnyFrame:
        """The frame, or the one that is its equal: equal frames are the same object."""
        key: tuple[object, ...]
        if isinstance(frame, BranchFrame):
            key = (frame.pending, frame.depth, frame.blocks, frame.below)
        elif isinstance(frame, MapFrame):
            key = (frame.block, frame.items, frame.open, frame.below)
        else:
            key = (frame.block, frame.items, frame.below)
        return cast(AnyFrame, self._frames.setdefault(key, frame))

    def _count_block(self, frame: Frame) -> Frame | None:
        """One more block on this branch; None where depth or number of blocks forbids it."""
        trunk, limits = frame.branch, self.bounds
        if limits.depth is not None and trunk.depth >= limits.depth:
            return None
        if limits.blocks is None:
            return frame
        if trunk.blocks >= limits.blocks:
            return None
        counted: Frame = self._keep(replace(trunk, blocks=trunk.blocks + 1))
        for above in reversed(_maps(frame)):
            counted = self._keep(replace(above, below=counted))
        return counted

    def _branch_frame(
        self, block: Block, values: tuple[BoundValue, ...], depth: int, below: Frame | None
    ) -> BranchFrame:
        """A branch inside `depth` others."""
        pending = tuple(zip(block.bound, values, strict=True)) if values else ()
        return self._keep(BranchFrame(pending, depth + 1, 0, below))

    def _listed(self, frame: Frame) -> Frame:
        """The map behind its open item."""
        assert isinstance(frame, MapFrame) and frame.open is not None
        slot = self._label_slots[frame.block]
        key = (frame.items, frame.open, slot)  # without a label, texts may be equal
        items = self._items.get(key)
        if items is None:
            label = None if slot is None else frame.open[slot].text
            items = self._items[key] = frame.items.then(frame.open, label)
        return self._keep(MapFrame(frame.block, items, None, frame.below))

    def _filled(self, frame: Frame, captured: tuple[BoundValue, ...]) -> Frame:
        """The frames with the values of the field that was read, those of an outer item first: a
        map may begin in the field that names the item around it."""
        above: list[MapFrame | ListedFrame] = []
        missing = len(captured)
        while missing:
            assert not isinstance(frame, BranchFrame)
            above.append(frame)
            missing -= _pending_values(frame)
            frame = frame.below
        values = iter(captured)
        for one in reversed(above):
            made = replace(one, below=frame)
            if isinstance(made, MapFrame) and made.open is not None:
                opened = tuple(next(values) if v is PENDING else v for v in made.open)
                made = replace(made, open=opened)
            frame = self._keep(made)
        return frame

    def _symbol(self, field: Field, frame: Frame) -> tuple[Symbol, Frame]:
        name = field.terminal.name
        if isinstance(frame, MapFrame) and frame.open is not None:
            slot = len(frame.open)
            if slot < len(frame.block.bound) and frame.block.bound[slot] == name:
                is_label = slot == self._label_slots[frame.block]
                symbol = CapturedField(field, TakenLabels(frame.items) if is_label else ())
                return symbol, self._keep(replace(frame, open=(*frame.open, PENDING)))
        if isinstance(frame, BranchFrame) and frame.pending and frame.pending[0][0] == name:
            rest = self._keep(replace(frame, pending=frame.pending[1:]))
            return BoundField(field, frame.pending[0][1]), rest
        return field, frame


def _label_slot(grammar: Grammar, block: Block) -> int | None:
    """Which of the values that a branch repeats is the label of its item."""
    name = grammar.label_of(block)
    return None if name is None else block.bound.index(name)


def _maps(frame: Frame) -> list[MapFrame | ListedFrame]:
    """The frames above the branch, the innermost first."""
    frames = []
    while not isinstance(frame, BranchFrame):
        frames.append(frame)
        frame = frame.below
    return frames


def _pending_values(frame: MapFrame | ListedFrame) -> int:
    """How many values of the field that is being read belong to this map's open item."""
    if isinstance(frame, ListedFrame) or frame.open is None:
        return 0
    return sum(value is PENDING for value in frame.open)
