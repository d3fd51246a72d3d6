"""Where the passages of a document can stand in a schema, and how large a document may be there.

`form_of` derives a document from a grammar: of all ways to write its prose and blocks in order, it
takes the cheapest, where it costs to make up a text that the document does not have, and to write
prose as a block of one branch. A *state* says how far a derivation has come. A chain of thought has
texts, and a schema's labels are numbers or letters; a schema that wants a typed value, or another
regular one, has no place for a chain.

`room_of` tries how many branches, and how many blocks inside each other, a schema accepts.
"""

from __future__ import annotations

import re
import string
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cache, lru_cache, partial
from itertools import chain
from typing import Final, Generic, TypeVar

from nprdsl.grammar import ir
from nprdsl.schema import Schema
from nprdsl.trainers.curate.document import BlockKind, DocumentBlock, LeafRange, Passage
from nprdsl.trainers.curate.form import (
    BlockMark,
    BlockPath,
    BranchMark,
    ConclusionSlot,
    ExtraSlot,
    FixedText,
    FormPart,
    ItemSlot,
    JoinMark,
    Slot,
    TextSource,
    TraceForm,
)

MOST_BRANCHES: Final = 16  # of one block that are tried; more would be no plan of a person
MOST_DEPTH: Final = 8
_LETTERS: Final = ([*string.ascii_uppercase], [*string.ascii_lowercase])

S = TypeVar("S")  # a state; hashable


class FormPenalty(IntEnum):
    """What a derivation does that the document did not ask for."""

    JOINED = 1  # the answer in one text with what stands before it, where prose flows anyway
    BURIED = 2  # the answer in one text with what stands before it, where it has its own place
    WRAP = 3  # prose as a block of one branch
    EXTRA = 10  # a text that has to be made up


@dataclass(frozen=True, slots=True)
class Derivation:
    """What is written, in order, and the penalties of it."""

    cost: int = 0
    parts: tuple[FormPart, ...] = ()

    def then(self, other: Derivation) -> Derivation:
        return Derivation(self.cost + other.cost, self.parts + other.parts)


Derivations = dict[S, Derivation]  # every state that is reached, in the cheapest way
_EXTRA: Final = Derivation(FormPenalty.EXTRA, (ExtraSlot(0),))  # numbered when the form is complete


def _written(*parts: FormPart, cost: int = 0) -> Derivation:
    return Derivation(cost, parts)


def _keep(into: Derivations[S], state: S, derivation: Derivation) -> bool:
    """Whether this is the cheapest derivation of `state` so far; it is then kept."""
    known = into.get(state)
    if known is not None and known.cost <= derivation.cost:
        return False
    into[state] = derivation
    return True


def _after(derivations: Derivations[S], step: Callable[[S], Derivations[S]]) -> Derivations[S]:
    """What is reached by a step more."""
    reached: Derivations[S] = {}
    for state, derivation in derivations.items():
        for after, more in step(state).items():
            _keep(reached, after, derivation.then(more))
    return reached


class Deriver(ABC, Generic[S]):
    """Writes something over a node of the grammar; a subclass says what fields and blocks hold."""

    def __init__(self, grammar: ir.Grammar) -> None:
        self._grammar = grammar
        self._active: set[tuple[str, S]] = set()

    @abstractmethod
    def field(self, terminal: ir.Terminal, state: S) -> Derivations[S]:
        """The derivations of a field that is no glue, from `state`."""

    def construct(self, node: ir.MapNode | ir.ForkNode | ir.JoinNode, state: S) -> Derivations[S]:
        """As `field`, for a map, a fork or a join; none where there can be no block."""
        return {}

    def rule(self, name: str, state: S) -> Derivations[S]:
        if (name, state) in self._active:  # a turn that writes nothing is never the cheapest
            return {}
        self._active.add((name, state))
        try:
            return self.derive(self._grammar.rules[name].node, state)
        finally:
            self._active.discard((name, state))

    def derive(self, node: ir.Node, state: S) -> Derivations[S]:
        """Every state that can be reached over `node`, in the cheapest way."""
        match node:
            case ir.Tag():
                return {state: _written(FixedText(node.text, TextSource.TAG))}
            case ir.Literal():
                return {state: _written(FixedText(node.text, TextSource.LITERAL))}
            case ir.Field() if node.terminal.kind is ir.TerminalKind.GLUE:
                return {state: _written(FixedText(node.terminal.literal, TextSource.GLUE))}
            case ir.Field():
                return self.field(node.terminal, state)
            case ir.Ref():
                return self.rule(node.rule, state)
            case ir.Seq():
                derivations: Derivations[S] = {state: Derivation()}
                for item in node.items:
                    derivations = _after(derivations, partial(self.derive, item))
                return derivations
            case ir.Alt():
                cheapest: Derivations[S] = {}
                for option in node.options:
                    for reached, derivation in self.derive(option, state).items():
                        _keep(cheapest, reached, derivation)
                return cheapest
            case ir.Repeat():
                return self._repeat(node, state)
            case ir.MapNode() | ir.ForkNode() | ir.JoinNode():
                return self.construct(node, state)

    def _repeat(self, node: ir.Repeat, state: S) -> Derivations[S]:
        cheapest: Derivations[S] = {}
        reached: Derivations[S] = {state: Derivation()}
        turn = 0
        while reached:
            if turn >= node.low:
                reached = {s: way for s, way in reached.items() if _keep(cheapest, s, way)}
            if turn == node.high:
                break
            reached = _after(reached, partial(self.derive, node.node))
            turn += 1
        return cheapest


@dataclass(frozen=True, eq=False, slots=True)
class OpenBlock:
    """A block that is being written as `construct`: the passage behind it, and what each branch
    repeats of its item. There is one for each content, compared by identity."""

    construct: ir.Block
    path: BlockPath
    block: DocumentBlock
    end: int
    bound: tuple[tuple[FormPart, ...], ...]


@dataclass(frozen=True, slots=True)
class SequenceState:
    """The passage number `passage` is next, or the rest of the block that is `opened`; `forced` are
    bound values, by terminal, that must come first."""

    passage: int = 0
    opened: OpenBlock | None = None
    forced: tuple[tuple[str, FormPart], ...] = ()


class SequenceDeriver(Deriver[SequenceState]):
    """Writes a whole document, or a branch of the block `around`.

    `merge` is what it costs to write the answer in one text with what stands before it; `labels`
    are those of the branches around, the outermost first.
    """

    def __init__(
        self,
        grammar: ir.Grammar,
        document: Sequence[Passage],
        *,
        merge: int,
        around: DocumentBlock | None = None,
        path: BlockPath = (),
        labels: tuple[str, ...] = (),
    ) -> None:
        super().__init__(grammar)
        self._document = document
        self._merge = merge
        self._wraps = around is None or around.kind is not BlockKind.ALONE
        self._path = path
        self._labels = labels
        self._open = cache(self._opened)  # blocks are compared by identity: each is made once
        self._branches = cache(self._write_branches)

    def whole(
        self, node: ir.Node, forced: tuple[tuple[str, FormPart], ...] = ()
    ) -> Derivation | None:
        """The cheapest way to write all passages over `node`; None where there is none."""
        derivations = self.derive(node, SequenceState(forced=forced))
        return derivations.get(SequenceState(len(self._document)))

    def field(self, terminal: ir.Terminal, state: SequenceState) -> Derivations[SequenceState]:
        if state.forced:
            (name, part), *rest = state.forced
            if name != terminal.name:
                return {}
            return {SequenceState(state.passage, state.opened, tuple(rest)): _written(part)}
        if terminal.kind is not ir.TerminalKind.TEXT:
            return {}
        derivations: Derivations[SequenceState] = {state: _EXTRA}
        if state.opened is None:
            for end, leaves, cost in self._prose(state.passage):
                _keep(derivations, SequenceState(end), _written(leaves, cost=cost))
        return derivations

    def construct(
        self, node: ir.MapNode | ir.ForkNode | ir.JoinNode, state: SequenceState
    ) -> Derivations[SequenceState]:
        match node:
            case ir.MapNode():
                return self._map(node, state)
            case ir.ForkNode():
                return self._fork(node, state)
            case ir.JoinNode():
                return self._join(node, state)

    def _prose(self, start: int) -> Iterator[tuple[int, LeafRange, int]]:
        """Prose from passage `start`: the passage behind, the leaves, the penalty.

        Two passages of prose stand side by side only where the second is the answer.
        """
        for index in range(start, len(self._document)):
            passage, begin = self._document[index], self._document[start]
            if not isinstance(passage, LeafRange):
                return
            cost = self._merge if index > start else 0
            yield index + 1, LeafRange(begin.first, passage.last), cost

    def _candidates(
        self, state: SequenceState, construct: ir.Block
    ) -> Iterator[tuple[Derivation, OpenBlock]]:
        """The block that is next, or prose as a block of one branch; each with its mark."""
        if state.passage == len(self._document) or state.opened is not None or state.forced:
            return
        passage = self._document[state.passage]
        if isinstance(passage, DocumentBlock):
            candidates = [(0, state.passage + 1, passage)]
        else:
            prose = self._prose(state.passage) if self._wraps else ()
            candidates = [
                (FormPenalty.WRAP + cost, end, DocumentBlock(BlockKind.ALONE, ((leaves,),)))
                for end, leaves, cost in prose
            ]
        for cost, end, block in candidates:
            if opened := self._open(construct, state.passage, end, block):
                yield _written(BlockMark(opened.path, block), cost=cost), opened

    def _opened(
        self, construct: ir.Block, start: int, end: int, block: DocumentBlock
    ) -> OpenBlock | None:
        """The block; None where its labels cannot be made."""
        path, count = (*self._path, start), len(block.branches)
        bound = _bound_parts(self._grammar, construct, path, count, self._labels)
        return None if bound is None else OpenBlock(construct, path, block, end, bound)

    def _map(self, node: ir.MapNode, state: SequenceState) -> Derivations[SequenceState]:
        derivations: Derivations[SequenceState] = {}
        for mark, opened in self._candidates(state, node.block):
            listed = ListDeriver(self._grammar, opened).derive(node.node, 0)
            items = listed.get(len(opened.block.branches))
            if items is not None:
                _keep(derivations, SequenceState(state.passage, opened), mark.then(items))
        return derivations

    def _fork(self, node: ir.ForkNode, state: SequenceState) -> Derivations[SequenceState]:
        derivations: Derivations[SequenceState] = {}
        if node.block.item is None:
            candidates = [
                (mark, opened)
                for mark, opened in self._candidates(state, node.block)
                if node.block.low <= len(opened.block.branches)
                if node.block.high is None or len(opened.block.branches) <= node.block.high
            ]
        elif state.opened is not None and state.opened.construct is node.block:
            candidates = [(Derivation(), state.opened)]
        else:
            return derivations
        for mark, opened in candidates:
            branches = self._branches(node, opened)
            if branches is not None:
                _keep(derivations, SequenceState(state.passage, opened), mark.then(branches))
        return derivations

    def _write_branches(self, node: ir.ForkNode, opened: OpenBlock) -> Derivation | None:
        branches = Derivation()
        for index, passages in enumerate(opened.block.branches):
            values = opened.bound[index]
            label = next((v.text for v in values if isinstance(v, FixedText)), str(index + 1))
            deriver = SequenceDeriver(
                self._grammar,
                passages,
                merge=self._merge,
                around=opened.block,
                path=(*opened.path, index),
                labels=(*self._labels, label.rpartition(".")[2]),
            )
            forced = tuple(zip(node.block.bound, values, strict=True)) if values else ()
            branch = deriver.whole(node.branch, forced)
            if branch is None:
                return None
            branches = branches.then(_written(BranchMark(opened.path, index))).then(branch)
        return branches

    def _join(self, node: ir.JoinNode, state: SequenceState) -> Derivations[SequenceState]:
        opened = state.opened
        if opened is None or opened.construct is not node.block:
            return {}
        derivations: Derivations[SequenceState] = {}
        deriver = ElementDeriver(self._grammar, ConclusionSlot(opened.path))
        for conclusion in deriver.derive(node.node, ElementState()).values():
            joined = _written(JoinMark(opened.path)).then(conclusion)
            _keep(derivations, SequenceState(opened.end), joined)
        return derivations


class ListDeriver(Deriver[int]):
    """Writes the items of a map; the state is the number of items that are listed."""

    def __init__(self, grammar: ir.Grammar, opened: OpenBlock) -> None:
        super().__init__(grammar)
        self._opened = opened

    def field(self, terminal: ir.Terminal, state: int) -> Derivations[int]:
        return {state: _EXTRA} if terminal.kind is ir.TerminalKind.TEXT else {}

    def rule(self, name: str, state: int) -> Derivations[int]:
        construct, bound = self._opened.construct, self._opened.bound
        if name != construct.item:
            return super().rule(name, state)
        if state == len(bound):
            return {}
        slot = ItemSlot(self._opened.path, state)
        values = tuple(zip(construct.bound, bound[state], strict=True)) if bound[state] else ()
        item = ElementDeriver(self._grammar, slot, values)
        derivations: Derivations[int] = {}
        for reached, way in item.derive(self._grammar.rules[name].node, ElementState()).items():
            if reached.bound == len(values):
                _keep(derivations, state + 1, way)
        return derivations


@dataclass(frozen=True, slots=True)
class ElementState:
    bound: int = 0  # bound values that are written
    filled: bool = False  # whether the text is written


class ElementDeriver(Deriver[ElementState]):
    """Writes an item or a join: its bound values, by terminal, and one text at most."""

    def __init__(
        self, grammar: ir.Grammar, slot: Slot, bound: tuple[tuple[str, FormPart], ...] = ()
    ) -> None:
        super().__init__(grammar)
        self._slot = slot
        self._bound = bound

    def field(self, terminal: ir.Terminal, state: ElementState) -> Derivations[ElementState]:
        for name, part in self._bound[state.bound : state.bound + 1]:
            if name == terminal.name:
                filled = state.filled or part == self._slot
                return {ElementState(state.bound + 1, filled): _written(part)}
        if terminal.kind is not ir.TerminalKind.TEXT or state.filled:
            return {}
        return {ElementState(state.bound, True): _written(self._slot)}


def _bound_parts(
    grammar: ir.Grammar, construct: ir.Block, path: BlockPath, count: int, around: tuple[str, ...]
) -> tuple[tuple[FormPart, ...], ...] | None:
    """What each of `count` branches repeats of its item: [count, terminals that are bound].

    None where that cannot be made: there is one text, and one label, for each branch.
    """
    columns: list[tuple[FormPart, ...]] = []
    kinds: set[ir.TerminalKind] = set()
    for name in construct.bound:
        terminal = grammar.terminals[name]
        if terminal.kind in kinds:
            return None
        kinds.add(terminal.kind)
        if terminal.kind is ir.TerminalKind.TEXT:
            columns.append(tuple(ItemSlot(path, index) for index in range(count)))
        elif terminal.kind is ir.TerminalKind.REGULAR:
            labels = _labels(terminal, count, around)
            if labels is None:
                return None
            columns.append(tuple(FixedText(label, TextSource.LABEL) for label in labels))
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


# -- the form of a document ------------------------------------------------------------------------


def form_of(grammar: ir.Grammar, document: Sequence[Passage]) -> TraceForm | None:
    """The form of a document; None where the schema has no place for it."""
    merge = FormPenalty.JOINED if _prose_flows(grammar) else FormPenalty.BURIED
    derivation = _cheapest(grammar, document, merge)
    if derivation is None:
        return None
    parts, extras = [], 0
    for part in derivation.parts:
        if isinstance(part, ExtraSlot):
            extras += 1
            part = replace(part, number=extras)
        parts.append(part)
    glue = (t.literal for t in grammar.terminals.values() if t.kind is ir.TerminalKind.GLUE)
    return TraceForm(tuple(parts), any("\n" in literal for literal in glue))


def _cheapest(
    grammar: ir.Grammar, document: Sequence[Passage], merge: FormPenalty
) -> Derivation | None:
    start = ir.Ref(grammar.start, grammar.rules[grammar.start].span)
    return SequenceDeriver(grammar, document, merge=merge).whole(start)


@lru_cache(maxsize=32)
def _prose_flows(grammar: ir.Grammar) -> bool:
    """Whether prose may stand before, between and behind the blocks of the trunk."""
    prose, block = LeafRange(0, 0), _wide_block(2)
    derivation = _cheapest(grammar, (prose, block, prose, block, prose), FormPenalty.BURIED)
    return derivation is not None and derivation.cost == 0


# -- the room of a schema --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Room:
    """The most branches of one block that can be written, and how deep blocks may lie in each
    other."""

    branches: int
    depth: int


def room_of(schema: Schema, depth: int) -> Room:
    """The room of a schema, `depth` at most. ValueError if no block can be written in it."""
    if depth < 1:
        raise ValueError(f"a depth of {depth} leaves no block; give 1 or more")
    if not _holds(schema, _wide_block(2)):
        raise ValueError(
            f"the schema `{schema.name}` has no room for a chain of thought{_why(schema)}"
        )
    most = 1 + bisect_left(
        range(2, MOST_BRANCHES + 1), 1, key=lambda count: not _holds(schema, _wide_block(count))
    )
    deep = 1
    while deep < min(depth, MOST_DEPTH) and _holds(schema, _deep_block(deep + 1)):
        deep += 1
    return Room(most, deep)


def _wide_block(branches: int) -> DocumentBlock:
    return DocumentBlock(BlockKind.COLLECTIVE, ((LeafRange(0, 0),),) * branches)


def _deep_block(depth: int) -> DocumentBlock:
    prose, block = LeafRange(0, 0), _wide_block(2)
    for _ in range(depth - 1):
        block = DocumentBlock(BlockKind.COLLECTIVE, ((prose, block, prose), (prose,)))
    return block


def _holds(schema: Schema, block: DocumentBlock) -> bool:
    """Whether the block can be written, with prose before it or none."""
    prose = LeafRange(0, 0)
    forms = (form_of(schema.grammar, d) for d in ((prose, block, prose), (block, prose)))
    return any(form is not None and not schema.check(form.fill(lambda _: "text")) for form in forms)


def _why(schema: Schema) -> str:
    bound = {name for block in schema.grammar.blocks for name in block.bound}
    valued = [
        f"`{name}`"
        for name, terminal in schema.grammar.terminals.items()
        if terminal.kind is ir.TerminalKind.TYPED
        or (terminal.kind is ir.TerminalKind.REGULAR and name not in bound)
    ]
    if valued:
        return f": it wants a value for {', '.join(valued)}, and a chain has texts only"
    return ": a branch needs a free text, and a map or a join at most one"
