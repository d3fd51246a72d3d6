"""The token automaton: states of a trace as a matcher sees them, moved by token ids.

A `TokenState` pairs a state of the tag machine with a state of the field in which it stands.
Tokens that stay inside the field move the field state only, and that move is shared by every place
of every trace; a token that completes a tag asks the tag machine. Masks, costs and forced runs are
kept on the state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import accumulate
from typing import Final

from nprdsl.grammar.ir import Block, Grammar, Literal, TerminalKind
from nprdsl.grammar.item_counts import most_items
from nprdsl.grammar.label_values import label_values
from nprdsl.grammar.walk import bodies
from nprdsl.masks.completion_cost import Costing, Costs
from nprdsl.masks.field_detours import Detours, detours
from nprdsl.masks.field_rests import FieldPart, FieldRest
from nprdsl.masks.fields import Completed, FieldMachine, FieldState
from nprdsl.masks.item_ways import NO_ITEM, Ways
from nprdsl.masks.mask_cache import CrossingKey, MaskCache
from nprdsl.masks.mask_rows import FieldRow, MaskTable
from nprdsl.masks.parts import FreshPart, LiteralPart, TextPart, any_glue, part_of, whole_field
from nprdsl.regular.aho_corasick import ROOT
from nprdsl.regular.tag_free import tag_free
from nprdsl.regular.tag_scan import tag_scan
from nprdsl.regular.words import ENDLESS
from nprdsl.structure.events import EnterBranch, EnterFork, EnterJoin, LeaveBranch
from nprdsl.structure.field_content import field_of
from nprdsl.structure.stack import (
    UNBOUNDED,
    BoundField,
    Bounds,
    BoundValue,
    CapturedField,
    Cell,
    Frame,
    MapFrame,
    Symbol,
)
from nprdsl.structure.tag_machine import END, Arc, ForkMode, TagMachine, TagState
from nprdsl.tokens.bitmask import Mask, set_bit
from nprdsl.tokens.spelling import NEVER, Spelling
from nprdsl.tokens.vocabulary import Vocabulary

MAX_STATES: Final = 500_000
_ALIGNED: Final = (LeaveBranch, EnterFork, EnterJoin, EnterBranch)


class GlueMode(StrEnum):
    """How the automaton takes glue."""

    EXACT = "exact"  # as the runtime emits it
    ANY = "any"  # any white space, or none, as the checker takes it


@dataclass(frozen=True, slots=True)
class FieldTokens:
    """What a matcher holds of a field whose values a branch repeats: the bytes with which the token
    that completed the last tag went on, and the tokens since."""

    head: bytes = b""
    tokens: tuple[int, ...] = ()


NO_TOKENS: Final = FieldTokens()


@dataclass(eq=False, slots=True)
class FieldStart:
    """What may stand right behind a tag: the field state, the tags that may come next, and what
    finishing costs behind each of them (worked out when a budget first asks)."""

    structure: TagState
    field: FieldState
    tags: frozenset[str]
    costs: Callable[[], Costs]
    capturing: bool = False  # the field holds values that a branch repeats
    ample: int | None = None  # see `Automaton.ample`
    kept: dict[int, int] | None = None  # see `Automaton.kept_back`
    _closings: dict[str, int] | None = None

    @property
    def closings(self) -> dict[str, int]:
        """tag -> the fewest tokens that finish everything behind it."""
        if self._closings is None:
            arcs, costs = self.structure.arcs, self.costs()
            ways = {tag: costs.stack(arcs[tag].cell, arcs[tag].frame) for tag in self.tags}
            self._closings = ways
        return self._closings


class TokenState:
    """One place in a trace. `mask`, `cost`, `forced` and `chooses` are None until asked for; `next`
    holds moves that depend on nothing but this state, `of_text` what `text_mask` found."""

    __slots__ = (
        *("capturing", "chooses", "cost", "counted", "field", "forced", "mask", "next", "prose"),
        *("of_text", "start", "structure", "tight", "__weakref__"),
    )

    def __init__(self, start: FieldStart, field: FieldState) -> None:
        self.start = start
        self.field = field
        self.structure = start.structure
        self.capturing = start.capturing
        self.counted = start.capturing and field.is_counted
        self.next: dict[int, TokenState] = {}
        self.prose: TokenState | None = None  # where clean prose leads, see `MaskTable.clean`
        self.mask: Mask | None = None
        self.cost: int | None = None
        self.forced: tuple[int, ...] | None = None
        self.chooses: bool | None = None
        self.tight: dict[int, Mask] = {}
        self.of_text: dict[tuple[int, int, frozenset[str]], tuple[Mask, Mask]] = {}


class SharedTables:
    """What does not depend on bounds: field states and rows, shared by all automata of a bound
    schema."""

    def __init__(self, grammar: Grammar, vocabulary: Vocabulary, glue: GlueMode) -> None:
        self.tag_tokens = vocabulary.tag_tokens(grammar.tags)
        self.glue = glue
        self.vocabulary = vocabulary
        self.spelling = Spelling(vocabulary)
        self.fields = FieldMachine(tag_scan(grammar.tags), self.tag_tokens, self.spelling)
        self.table = MaskTable(self.fields, vocabulary)
        self.crossings: dict[CrossingKey, Mask] = {}
        self.known_fields: dict[tuple[tuple[Symbol, ...], str, tuple[Ways, ...]], FieldRest] = {}
        self.store: MaskCache | None = None
        self._grammar = grammar

    @cached_property
    def costs(self) -> dict[str, int]:
        """The fewest tokens of every terminal, by name."""
        terminals, rests = self._grammar.terminals.items(), self.fields.rests
        return {name: part_of(terminal).whole_cost(rests) for name, terminal in terminals}

    @cached_property
    def detours(self) -> Detours:
        """What fields cost beyond their parts."""
        return detours(self._grammar, self.fields.rests)

    def crossed(self, key: CrossingKey) -> Mask | None:
        """The row of a state whose tokens may run past a tag, if it is known or on disk."""
        row = self.crossings.get(key)
        if row is None and self.store is not None:
            row = self.store.find_crossed(key)
            if row is not None:
                self.crossings[key] = row
        return row


class Automaton:
    """All states of a grammar over a vocabulary under bounds, for one way to take glue."""

    def __init__(self, grammar: Grammar, tables: SharedTables, bounds: Bounds) -> None:
        self.grammar = grammar
        self.tables = tables
        self.bounds = bounds
        self.vocabulary = tables.vocabulary
        self.tag_tokens = tables.tag_tokens
        self.spelling = tables.spelling
        self.fields = tables.fields
        self.table = tables.table
        self.clean = tables.table.clean
        self._specials = {token: tag for tag, token in self.tag_tokens.items()}
        self._none_spelled = len(self.tag_tokens) == len(grammar.tags)
        self._end_tag: str | None = None  # the tag that is the end token too
        if self.vocabulary.eos_id is not None:
            self._end_tag = self._specials.get(self.vocabulary.eos_id)
            self._specials.setdefault(self.vocabulary.eos_id, END)
        self._states: dict[tuple[FieldStart, FieldState], TokenState] = {}
        self._starts: dict[TagState, FieldStart] = {}
        self._aligned: dict[Arc, bool] = {}
        self._machines: dict[ForkMode, TagMachine] = {}
        self._counts: dict[Block, tuple[int, int]] = {}
        self._label_values = label_values(grammar)
        self._useful: dict[int, Costs] = {}

    @property
    def kept(self) -> int:
        """How many states are kept, those of tags included."""
        return len(self._states) + sum(machine.kept for machine in self._machines.values())

    def machine(self, mode: ForkMode) -> TagMachine:
        """The tag machine behind the states, one for each mode."""
        machine = self._machines.get(mode)
        if machine is None:
            machine = self._machines[mode] = TagMachine(self.grammar, mode, self.bounds)
        return machine

    # costs

    @cached_property
    def costs(self) -> Costs:
        """Costs of finishing; worked out when a budget, or a bound, first asks."""
        return self._costs_of(Costing.WHOLE)

    @cached_property
    def own_costs(self) -> Costs:
        """Costs of what is written on one branch, its sub-branches left out."""
        return self._costs_of(Costing.OWN)

    def _costs_of(self, costing: Costing, text_tokens: int = 1) -> Costs:
        rests, tables = self.fields.rests, self.tables
        known = tables.costs, tables.detours
        return Costs(self.grammar, rests, self.bounds, *known, costing, text_tokens)

    def kept_back(self, state: TokenState, tokens: int) -> int:
        """What the texts behind this field need beyond the fewest tokens, at `tokens` each."""
        start = state.start
        if start.kept is None:
            start.kept = {}
        if tokens not in start.kept:
            costs = self._useful.get(tokens)
            if costs is None:
                costs = self._useful[tokens] = self._costs_of(Costing.WHOLE, tokens)
            arcs, least = state.structure.arcs, start.closings
            useful = [costs.stack(arcs[tag].cell, arcs[tag].frame) for tag in start.tags]
            start.kept[tokens] = min(useful, default=0) - min(least.values(), default=0)
        return start.kept[tokens]

    def ample(self, state: TokenState) -> int:
        """Slack from which on no token has to be refused here for the budget's sake."""
        start = state.start
        if start.ample is None:
            start.ample = self._total + self._label_slack(start.structure.frame)
        return start.ample

    @cached_property
    def _total(self) -> int:
        return self.costs.total()

    def _label_slack(self, frame: Frame | None) -> int:
        """More than one token can add to the labels that open lists still need: each is longer than
        those that are taken by no more than the shortest way to end any."""
        slack = 0
        while frame is not None:
            name = self.grammar.label_of(frame.block) if isinstance(frame, MapFrame) else None
            if isinstance(frame, MapFrame) and name is not None:
                slot = frame.block.bound.index(name)
                used = (len(item[slot].text.encode()) for item in frame.items)
                dfa = self._label_values.blocks[frame.block]
                further = 1 + self._label_counts(frame.block)[0]
                slack += 2 * (max(used, default=0) + further * (1 + self.spelling.longest(dfa)))
            frame = frame.below
        return min(slack, NEVER)

    def cost(self, state: TokenState) -> int:
        """The fewest tokens that finish the trace (or branch) legally from here."""
        if state.cost is None:
            structure = state.structure
            if structure.finished or structure.fork is not None:
                state.cost = self.costs.stack(structure.cell, structure.frame)
            else:
                costs = self.fields.costs(state.field).items()
                ways = (cost + state.start.closings[tag] for tag, cost in costs)
                state.cost = min(ways, default=NEVER)
        return state.cost

    def cost_until(self, state: TokenState, cell: Cell | None) -> int:
        """The fewest tokens on this branch until `cell` is left, to the end of that field; None:
        until this field is left."""
        costs, own = self.fields.own_costs(state.field), self.own_costs
        arcs = state.structure.arcs
        ways = [
            cost + (own.stack(arcs[tag].cell, arcs[tag].frame, cell) if kept else 0)
            for tag, cost in costs.items()
            for kept in [cell is not None and _holds(arcs[tag].cell, cell)]
        ]
        return min(ways, default=0)

    # states

    def enter(self, structure: TagState) -> TokenState:
        """The state right behind a tag (or at the beginning)."""
        start = self._starts.get(structure)
        if start is None:
            start = self._starts[structure] = self._start(structure)
        return self._share(start, start.field)

    def _start(self, structure: TagState) -> FieldStart:
        fields: list[FieldRest] = []
        tags: list[str] = []
        for tag, arc in structure.arcs.items():
            if not self._hopeless(structure, arc):
                later = self._later(arc) if arc.captures else ()
                fields += (self._field(symbols, tag, later) for symbols in arc.fields)
                tags.append(tag)
        field = self.fields.start(tuple(f for f in fields if f.cost < NEVER))
        capturing = any(arc.captures for arc in structure.arcs.values())
        return FieldStart(structure, field, frozenset(tags), lambda: self.costs, capturing)

    def _hopeless(self, structure: TagState, arc: Arc) -> bool:
        """Whether what must follow the tag, now or later, takes more than a bound allows, or more
        labels than are left."""
        if self.bounds == UNBOUNDED and not (self._scarce and self._may_run_out(arc.frame)):
            return False
        if self.costs.stack(arc.cell, arc.frame) >= NEVER:
            return True
        if arc.tag == END:
            return False
        after = structure.after_any(arc.tag)
        return not after.finished and after.fork is None and not after.arcs

    @cached_property
    def _scarce(self) -> bool:
        """Whether the labels of some list can run out at all."""
        counts = (self._label_counts(block) for block in self.grammar.blocks)
        return any(number < ENDLESS or most >= ENDLESS for most, number in counts)

    def _may_run_out(self, frame: Frame | None) -> bool:
        """Whether an open list may owe more items than there are labels left."""
        while frame is not None:
            if isinstance(frame, MapFrame):
                most, number = self._label_counts(frame.block)
                if len(frame.items) + most > number:
                    return True
            frame = frame.below
        return False

    def _label_counts(self, block: Block) -> tuple[int, int]:
        """The most items that the list of a block may ever owe, and the number of its labels."""
        counts = self._counts.get(block)
        if counts is None:
            most, number = most_items(block, bodies(self.grammar.rules)), ENDLESS
            dfa = self._label_values.blocks.get(block)
            if dfa is not None:
                number = self.fields.rests.labels(dfa).left(frozenset())
            counts = self._counts[block] = most, number
        return counts

    def _later(self, arc: Arc) -> tuple[Ways, ...]:
        """For each value before the tag that a branch repeats: what its list still needs behind it,
        where that depends on the value; empty if it never does."""
        frame: Frame | None = arc.frame
        owing = False
        while frame is not None:
            owing |= isinstance(frame, MapFrame) and self._label_counts(frame.block)[0] > 1
            frame = frame.below
        return tuple(self.costs.later(arc.cell, arc.frame)) if owing else ()

    def _share(self, start: FieldStart, field: FieldState) -> TokenState:
        key = (start, field)
        state = self._states.get(key)
        if state is None:
            if len(self._states) > MAX_STATES:
                self._states.clear()
                self._starts.clear()
            state = self._states[key] = TokenState(start, field)
            prose = self.fields.prose(field)
            if prose is not None:
                state.prose = state if prose is field else self._share(start, prose)
        return state

    def _field(self, symbols: tuple[Symbol, ...], tag: str, later: tuple[Ways, ...]) -> FieldRest:
        key = (symbols, tag, later)
        field = self.tables.known_fields.get(key)
        if field is None:
            ways = iter(later)
            parts = tuple(self._part(symbol, ways) for symbol in symbols)
            field = self.tables.known_fields[key] = whole_field(self.fields.rests, parts, tag)
        return field

    def _part(self, symbol: Symbol, later: Iterator[Ways]) -> FieldPart:
        if isinstance(symbol, Literal):
            return LiteralPart(symbol.text.encode())
        if isinstance(symbol, BoundField):
            return LiteralPart(symbol.value.text.encode(), self._exactly(symbol))
        terminal = field_of(symbol).terminal
        if terminal.kind is TerminalKind.GLUE and self.tables.glue is GlueMode.ANY:
            return any_glue()
        if not isinstance(symbol, CapturedField):
            return part_of(terminal)
        ways = next(later, NO_ITEM)
        if terminal.kind is TerminalKind.TEXT:
            return TextPart(counted=True)
        taken = frozenset(text.encode() for text in symbol.taken)
        plan = self._label_values.fields.get(symbol.field)
        return FreshPart(tag_free(terminal.pattern, self.grammar.tags), taken, ways, plan)

    def _exactly(self, symbol: BoundField) -> tuple[int, ...]:
        """The tokens by which a branch repeats a free text; none for labels."""
        tokens, data = symbol.value.tokens, symbol.value.text.encode()
        text = symbol.field.terminal.kind is TerminalKind.TEXT
        whole = b"".join(map(self.vocabulary.bytes_of, tokens)) == data
        return tokens if text and whole else ()

    # moving

    def follow(self, state: TokenState, token: int, so_far: FieldTokens) -> TokenState | None:
        """The state behind `token`, None if it is illegal; `so_far` is what a capturing field holds
        until here."""
        field = state.field
        after = field.tokens.get(token)
        if after is None:
            tag = self.tag_of(state, token)
            if tag is not None:
                return self._remember(state, token, tag, so_far, b"", b"")
            data = self.vocabulary.bytes_of(token)
            if field.node != ROOT and self.clean[token]:  # no tag goes on, so this is prose
                prose = self.fields.prose_behind(field, data[0])
                if prose is not None:
                    return self._within(state, token, prose)
            led = self.fields.walk(field, data) if data else None
            if isinstance(led, Completed):
                inside = data[: len(data) - len(led.rest)]
                return self._remember(state, token, led.tag, so_far, inside, led.rest)
            if led is None or not self.fields.can_end(led):
                return None
            after = field.tokens[token] = led
        return self._within(state, token, after)

    def _within(self, state: TokenState, token: int, field: FieldState) -> TokenState:
        after = state.next[token] = self._share(state.start, field)
        return after

    def _remember(
        self,
        state: TokenState,
        token: int,
        tag: str,
        so_far: FieldTokens,
        inside: bytes,
        rest: bytes,
    ) -> TokenState | None:
        after = self.complete(state, tag, so_far, inside, rest)
        if after is not None and not state.capturing:
            state.next[token] = after
        return after

    def tag_of(self, state: TokenState, token: int) -> str | None:
        """The tag that a special token is, or the end; a tag that is the end token means the end
        where it may not come as a tag."""
        tag = self._specials.get(token)
        if tag and tag == self._end_tag and tag not in state.start.tags:
            return END
        return tag

    def may_complete(self, state: TokenState, tag: str) -> bool:
        """Whether the field before `tag` may end here; a spelled tag has shown it by its bytes."""
        if tag != END and tag not in self.tag_tokens:
            return True
        return bool(self.fields.completing(state.field, tag))

    def may_end(self, state: TokenState) -> bool:
        """Whether the trace is legal if it ends here."""
        return state.structure.finished or (
            END in state.start.tags and self.may_complete(state, END)
        )

    def complete(
        self, state: TokenState, tag: str, so_far: FieldTokens, inside: bytes, rest: bytes
    ) -> TokenState | None:
        """The state behind a complete tag and the bytes that a token goes on with."""
        arc = state.structure.arcs.get(tag)
        if arc is None or tag not in state.start.tags or (rest and self.aligned(state, arc)):
            return None
        if not self.may_complete(state, tag):
            return None
        if tag == END:  # nothing may follow it
            nothing = self.fields.start(())
            over = FieldStart(
                state.structure.after(END), nothing, frozenset(), lambda: self.costs, False
            )
            return TokenState(over, nothing)
        captured: tuple[BoundValue, ...] = ()
        if arc.captures:
            captured = self._captured(arc, so_far, inside, tag)
        after = self.enter(state.structure.after(tag, captured))
        if not rest:
            return after
        if after.counted:  # a text that a branch repeats begins between tokens
            return None
        led = self.fields.walk(after.field, rest)
        if isinstance(led, Completed):
            inside = rest[: len(rest) - len(led.rest)]
            return self.complete(after, led.tag, NO_TOKENS, inside, led.rest)
        if led is None or not self.fields.can_end(led):
            return None
        return self._share(after.start, led)

    def _captured(
        self, arc: Arc, field: FieldTokens, inside: bytes, tag: str
    ) -> tuple[BoundValue, ...]:
        """The values of a complete field that a branch repeats, and the tokens by which it repeats
        them; `inside` are the bytes of the token that completes the tag, up to the tag's end."""
        data = field.head + b"".join(map(self.vocabulary.trie.bytes_of, field.tokens)) + inside
        if tag not in self.tag_tokens:
            data = data.removesuffix(tag.encode())
        content = data.decode()
        values, symbols = arc.content.captured(content), arc.fields[arc.content.way(content)]
        captures = [symbol for symbol in symbols if isinstance(symbol, CapturedField)]
        return tuple(
            BoundValue(value.text, self._repeat(value.text, symbol, field.tokens))
            for value, symbol in zip(values, captures, strict=True)
        )

    def _repeat(self, text: str, symbol: CapturedField, field: tuple[int, ...]) -> tuple[int, ...]:
        """The model's own tokens for free text, which begins and ends between tokens; the fewest
        that spell it for a label."""
        data, bytes_of = text.encode(), self.vocabulary.trie.bytes_of
        if symbol.field.terminal.kind is TerminalKind.TEXT:
            for first in range(len(field)):
                tail = field[first:]
                if b"".join(map(bytes_of, tail)).startswith(data):
                    ends = accumulate(len(bytes_of(token)) for token in tail)
                    return tail[: 1 + sum(end < len(data) for end in ends)]
        spelled = self.vocabulary.spell(data)
        assert spelled is not None, "the model has just spelled it"
        return spelled

    def last_tag(self, state: TokenState, token: int) -> tuple[str, bytes] | None:
        """The last tag (or the end) that a legal token completes, and the token's bytes behind it;
        None if it completes none."""
        tag = self.tag_of(state, token)
        if tag is not None:
            return tag, b""
        if self._none_spelled:
            return None
        return self.fields.scan.last(self.vocabulary.bytes_of(token), state.field.node)

    def aligned(self, state: TokenState, arc: Arc) -> bool:
        """Whether token and tag must end together: at the ends of items and branches, and at
        joins. Where branches begin, and at the end of a trace, nothing follows that a token could
        go on in."""
        aligned = self._aligned.get(arc)
        if aligned is None:
            after = state.structure.after_any(arc.tag)
            ends = any(isinstance(e, _ALIGNED) for e in after.events)
            aligned = self._aligned[arc] = arc.captures or ends
        return aligned

    # masks

    def mask(self, state: TokenState) -> Mask:
        """The tokens that may come next, int32 [ceil(V/32)]."""
        if state.mask is None:
            row = self.table.row(state.field)
            ways = [
                (tag, self.enter(state.structure.after(tag)))
                for tag in row.crossings
                if tag in state.start.tags and not self.aligned(state, state.structure.arcs[tag])
            ]
            state.mask = self._crossed(state.field, row, ways) if ways else row.bits
        return state.mask

    def _crossed(
        self, field: FieldState, row: FieldRow, ways: list[tuple[str, TokenState]]
    ) -> Mask:
        """The row with the tokens that run past a tag into what follows it; the same for all
        states behind which the same fields follow."""
        key = (field, tuple((tag, after.field) for tag, after in ways))
        mask = self.tables.crossed(key)
        if mask is None:
            bits, shared = row.bits.copy(), True
            for tag, after in ways:
                if after.counted:  # a text that a branch repeats begins between tokens
                    continue
                for crossing in row.crossings[tag]:
                    led = self.fields.walk(after.field, crossing.rest)
                    if isinstance(led, Completed):
                        shared = False
                        legal = self.complete(after, led.tag, NO_TOKENS, b"", led.rest) is not None
                    else:
                        legal = led is not None and self.fields.can_end(led)
                    if legal:
                        set_bit(bits, crossing.token)
            mask = self.table.intern(bits)
            if shared:
                self.tables.crossings[key] = mask
        return mask


def _holds(stack: Cell | None, cell: Cell) -> bool:
    while stack is not None and stack is not cell:
        stack = stack.below
    return stack is not None
