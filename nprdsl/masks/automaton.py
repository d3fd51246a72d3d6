"""The token automaton: states of a trace as a matcher sees them, moved by token ids.

A `State` pairs a state of the tag machine with a local state of the field in which it stands.
Tokens that stay inside the field move the local state only, and that move is shared by every place
of every trace; a token that completes a tag asks the tag machine. Rows, costs and forced runs are
kept on the state.
"""

from __future__ import annotations

from functools import cached_property
from itertools import accumulate
from typing import Final

import numpy as np

from nprdsl.grammar.ir import Field, Grammar, Literal, TerminalKind
from nprdsl.masks.completion_cost import Costing, Costs
from nprdsl.masks.fields import Local
from nprdsl.masks.mask_rows import Completed, LocalRow, finishes, walk
from nprdsl.masks.parts import (
    AnyGluePart,
    Chain,
    FreshPart,
    LiteralPart,
    Part,
    RegularPart,
    TagPart,
    TextPart,
)
from nprdsl.masks.states import NOTHING, Begun, GlueMode, Start, State, Tables
from nprdsl.regular.aho_corasick import ROOT
from nprdsl.regular.dfa import compile_regex
from nprdsl.structure.events import EnterBranch, EnterFork, EnterJoin, LeaveBranch
from nprdsl.structure.field_content import ArcContent, field_of
from nprdsl.structure.stack import UNBOUNDED, Bound, Bounds, BoundValue, Capture, Cell, Symbol
from nprdsl.structure.tag_machine import END, Arc, Mode, TagMachine, TagState
from nprdsl.tokens.bitmask import Mask, set_bit, unpack
from nprdsl.tokens.spelling import NEVER
from nprdsl.trace.lexemes import TagMode

MAX_STATES: Final = 500_000
_ALIGNED: Final = (LeaveBranch, EnterFork, EnterJoin, EnterBranch)


class Automaton:
    """All states of a grammar over a vocabulary under bounds, for one way to take glue."""

    def __init__(self, grammar: Grammar, tables: Tables, bounds: Bounds) -> None:
        self.grammar = grammar
        self.tables = tables
        self.bounds = bounds
        self.vocabulary = tables.vocabulary
        self.mode = tables.mode
        self.spelling = tables.spelling
        self.fields = tables.fields
        self.rows = tables.rows
        self.clean = tables.rows.clean
        self._specials: dict[int, str] = {}
        if self.mode is TagMode.SPECIAL:
            self._specials = {self.vocabulary.special[tag]: tag for tag in grammar.tags}
        self._states: dict[tuple[Start, Local], State] = {}
        self._starts: dict[TagState, Start] = {}
        self._aligned: dict[Arc, bool] = {}
        self._contents: dict[Arc, ArcContent] = {}
        self._machines: dict[Mode, TagMachine] = {}

    @property
    def kept(self) -> int:
        """How many states are kept, those of tags included."""
        return len(self._states) + sum(machine.kept for machine in self._machines.values())

    def machine(self, mode: Mode) -> TagMachine:
        """The tag machine behind the states, one for each mode."""
        found = self._machines.get(mode)
        if found is None:
            found = self._machines[mode] = TagMachine(self.grammar, mode, self.bounds)
        return found

    @cached_property
    def costs(self) -> Costs:
        """Costs of finishing; worked out when a budget, or a bound, first asks."""
        return Costs(self.grammar, self.spelling, self.tables.tag_costs, self.bounds)

    def _costs_later(self) -> Costs:
        return self.costs

    @cached_property
    def own_costs(self) -> Costs:
        """Costs of what is written on one branch, its sub-branches left out."""
        return Costs(self.grammar, self.spelling, self.tables.tag_costs, self.bounds, Costing.OWN)

    @cached_property
    def ample(self) -> int:
        """Slack from which on no token has to be refused for the budget's sake."""
        return self.costs.total()

    # states

    def enter(self, structure: TagState) -> State:
        """The state right behind a tag (or at the beginning)."""
        start = self._start(structure)
        return self._share(start, start.local)

    def _start(self, structure: TagState) -> Start:
        found = self._starts.get(structure)
        if found is None:
            chains: list[Chain] = []
            tags: list[str] = []
            known = self.tables.chains
            for tag, arc in structure.arcs.items():
                if self.bounds != UNBOUNDED and self._hopeless(structure, arc):
                    continue
                for symbols in arc.fields:
                    chain = known.get((symbols, tag))
                    if chain is None:
                        parts = tuple(self._part(s) for s in symbols)
                        chain = known[symbols, tag] = self.fields.chain(parts, tag)
                    chains.append(chain)
                tags.append(tag)
            usable = tuple(chain for chain in chains if chain.cost < NEVER)
            local = self.fields.start(usable)
            found = self._starts[structure] = Start(
                structure, local, frozenset(tags), lambda: self.costs
            )
        return found

    def _hopeless(self, structure: TagState, arc: Arc) -> bool:
        """Whether a bound forbids what must follow the tag, now or later."""
        if self.costs.stack(arc.cell, arc.frame) >= NEVER:
            return True
        return arc.tag != END and self._stuck(structure, arc.tag)

    def _stuck(self, structure: TagState, tag: str) -> bool:
        """Whether a bound forbids whatever must follow the tag."""
        after = structure.after_any(tag)
        return not after.finished and after.fork is None and not after.arcs

    def _share(self, start: Start, local: Local) -> State:
        key = (start, local)
        found = self._states.get(key)
        if found is None:
            if len(self._states) > MAX_STATES:
                self._states.clear()
                self._starts.clear()
            found = self._states[key] = State(start, local)
            hub = self.fields.hub(local)
            if hub is not None:
                found.hub = found if hub is local else self._share(start, hub)
        return found

    def _part(self, symbol: Symbol) -> Part:
        if isinstance(symbol, Literal):
            return LiteralPart(symbol.text.encode())
        if isinstance(symbol, Bound):
            return LiteralPart(symbol.value.text.encode(), self._exactly(symbol))
        terminal = field_of(symbol).terminal
        if terminal.kind is TerminalKind.GLUE:
            return (
                AnyGluePart()
                if self.tables.glue is GlueMode.ANY
                else LiteralPart(terminal.literal.encode())
            )
        if terminal.kind is TerminalKind.TEXT:
            return TextPart(counted=isinstance(symbol, Capture))
        dfa = compile_regex(terminal.pattern)
        if isinstance(symbol, Capture) and terminal.kind is TerminalKind.REGULAR:
            return FreshPart(dfa, frozenset(t.encode() for t in symbol.taken))
        assert isinstance(symbol, (Field, Capture))
        return RegularPart(dfa)

    def _exactly(self, symbol: Bound) -> tuple[int, ...]:
        """The tokens by which a branch repeats a free text; none for labels."""
        tokens, data = symbol.value.tokens, symbol.value.text.encode()
        text = symbol.field.terminal.kind is TerminalKind.TEXT
        whole = b"".join(map(self.vocabulary.bytes_of, tokens)) == data
        return tokens if text and whole else ()

    # moving

    def follow(self, state: State, token: int, field: Begun) -> State | None:
        """The state behind `token`, None if it is illegal; `field` holds a capturing field so
        far."""
        local = state.local
        moved = local.tokens.get(token)
        if moved is not None:
            found = state.next[token] = self._share(state.start, moved)
            return found
        tag = self.tag_of(token)
        if tag is not None:
            return self._remember(state, token, tag, field, b"", b"")
        data = self.vocabulary.bytes_of(token)
        if local.node != ROOT and self.clean[token]:  # no tag goes on, so this is prose
            hub = self.fields.hub_behind(local, data[0])
            if hub is not None:
                found = state.next[token] = self._share(state.start, hub)
                return found
        led = walk(self.fields, local, data) if data else None
        if isinstance(led, Completed):
            inside = data[: len(data) - len(led.rest)]
            return self._remember(state, token, led.tag, field, inside, led.rest)
        if led is None or not finishes(self.fields, led):
            return None
        local.tokens[token] = led
        found = state.next[token] = self._share(state.start, led)
        return found

    def _remember(
        self, state: State, token: int, tag: str, field: Begun, inside: bytes, rest: bytes
    ) -> State | None:
        after = self._complete(state, tag, field, inside, rest)
        if after is not None and not state.capturing:
            state.next[token] = after
        return after

    def tag_of(self, token: int) -> str | None:
        """The tag (or the end) that a special token is."""
        tag = self._specials.get(token)
        return END if tag is None and token == self.vocabulary.eos_id else tag

    def may_complete(self, state: State, tag: str) -> bool:
        """Whether the field before `tag` may end here; text tags have shown it by their bytes."""
        if self.mode is TagMode.TEXT and tag != END:
            return True
        return self._ready(state.local, tag)

    def complete_uncaptured(self, state: State, tag: str, rest: bytes) -> State | None:
        """The state behind a tag and the bytes a token goes on with, where no value is captured."""
        arc = state.structure.arcs.get(tag)
        if arc is None or arc.captures:
            return None
        return self._complete(state, tag, NOTHING, b"", rest)

    def _complete(
        self, state: State, tag: str, field: Begun, inside: bytes, rest: bytes
    ) -> State | None:
        """The state behind a complete tag and the bytes that a token goes on with."""
        arc = state.structure.arcs.get(tag)
        if arc is None or tag not in state.start.tags or (rest and self.aligned(state, arc)):
            return None
        if not self.may_complete(state, tag):
            return None
        if tag == END:
            return self._over(state.structure.after(END))
        captured: tuple[BoundValue, ...] = ()
        if arc.captures:
            captured = self._captured(arc, field, inside, tag)
        after = self.enter(state.structure.after(tag, captured))
        if not rest:
            return after
        if after.counted:  # a text that a branch repeats begins between tokens
            return None
        led = walk(self.fields, after.local, rest)
        if isinstance(led, Completed):
            inside = rest[: len(rest) - len(led.rest)]
            return self._complete(after, led.tag, NOTHING, inside, led.rest)
        if led is None or not finishes(self.fields, led):
            return None
        return self._share(after.start, led)

    def _captured(self, arc: Arc, field: Begun, inside: bytes, tag: str) -> tuple[BoundValue, ...]:
        """The values of a complete field that a branch repeats, and the tokens by which it repeats
        them; `inside` are the bytes of the token that completes the tag, up to the tag's end."""
        data = field.head + b"".join(map(self.vocabulary.bytes_of, field.tokens)) + inside
        if self.mode is TagMode.TEXT:
            data = data.removesuffix(tag.encode())
        content = self._contents.get(arc)
        if content is None:
            content = self._contents[arc] = ArcContent(arc.fields)
        values = content.captured(data.decode())
        captures = [symbol for symbol in arc.fields[0] if isinstance(symbol, Capture)]
        return tuple(
            BoundValue(value.text, self._repeat(value.text, symbol, field.tokens))
            for value, symbol in zip(values, captures, strict=True)
        )

    def _repeat(self, text: str, symbol: Capture, field: tuple[int, ...]) -> tuple[int, ...]:
        """The model's own tokens for free text, which begins and ends between tokens; the fewest
        that spell it for a label."""
        data, bytes_of = text.encode(), self.vocabulary.bytes_of
        if symbol.field.terminal.kind is TerminalKind.TEXT:
            for first in range(len(field)):
                tail = field[first:]
                if b"".join(map(bytes_of, tail)).startswith(data):
                    ends = accumulate(len(bytes_of(token)) for token in tail)
                    return tail[: 1 + sum(end < len(data) for end in ends)]
        spelled = self.vocabulary.spell(data)
        assert spelled is not None, "the model has just spelled it"
        return spelled

    def _over(self, structure: TagState) -> State:
        """The state behind the end: nothing may follow it."""
        start = Start(structure, self.fields.start(()), frozenset(), self._costs_later)
        return State(start, start.local)

    def overhang(self, state: State, token: int) -> bytes | None:
        """The bytes of a token behind the last tag that it completes; None if it completes none."""
        if self.tag_of(token) is not None:
            return b""
        if self.mode is TagMode.SPECIAL:
            return None
        found = self.fields.scan.last(self.vocabulary.bytes_of(token), state.local.node)
        return None if found is None else found[1]

    def _ready(self, local: Local, tag: str) -> bool:
        return any(
            isinstance(chain.part, TagPart) and progress == 0 and chain.part.tag == tag
            for chain, progress in local.places
        )

    def aligned(self, state: State, arc: Arc) -> bool:
        """Whether token and tag must end together: at the ends of items and branches, and at
        joins. Where branches begin, and at the end of a trace, nothing follows that a token could
        go on in."""
        found = self._aligned.get(arc)
        if found is None:
            after = state.structure.after_any(arc.tag)
            ends = any(isinstance(e, _ALIGNED) for e in after.events)
            found = self._aligned[arc] = arc.captures or ends
        return found

    # what a state knows

    def row(self, state: State) -> Mask:
        """The tokens that may come next, int32 [ceil(V/32)]."""
        if state.row is None:
            found = self.rows.row(state.local)
            ways = [
                (tag, state.structure.after(tag))
                for tag in found.crossings
                if tag in state.start.tags and not self.aligned(state, state.structure.arcs[tag])
            ]
            state.row = self._crossed(state.local, found, ways) if ways else found.bits
        return state.row

    def _crossed(self, local: Local, found: LocalRow, ways: list[tuple[str, TagState]]) -> Mask:
        """The row with the tokens that run past a tag into what follows it; the same for all
        states behind which the same fields follow."""
        starts = [(tag, self.enter(after)) for tag, after in ways]
        key = (local, tuple((tag, after.local) for tag, after in starts))
        row = self.tables.crossed(key)
        if row is None:
            bits, shared = found.bits.copy(), True
            for tag, after in starts:
                if after.counted:  # a text that a branch repeats begins between tokens
                    continue
                for crossing in found.crossings[tag]:
                    led = walk(self.fields, after.local, crossing.rest)
                    if isinstance(led, Completed):
                        shared = False
                        legal = self._complete(after, led.tag, NOTHING, b"", led.rest) is not None
                    else:
                        legal = led is not None and finishes(self.fields, led)
                    if legal:
                        set_bit(bits, crossing.token)
            row = self.rows.intern(bits)
            if shared:
                self.tables.crossings[key] = row
        return row

    def tokens(self, state: State) -> list[int]:
        """The legal tokens as a list; for states where few are."""
        found: list[int] = np.flatnonzero(unpack(self.row(state), self.vocabulary.size)).tolist()
        return found

    def cost(self, state: State) -> int:
        """The fewest tokens that finish the trace (or branch) legally from here."""
        if state.cost is None:
            state.cost = self._cost(state)
        return state.cost

    def _cost(self, state: State) -> int:
        if state.structure.finished or state.structure.fork is not None:
            return self.costs.stack(state.structure.cell, state.structure.frame)
        costs = self.fields.costs(state.local)
        return min((cost + state.closings[tag] for tag, cost in costs.items()), default=NEVER)

    def cost_until(self, state: State, cell: Cell | None) -> int:
        """The fewest tokens on this branch until `cell` is left, to the end of that field; None:
        until this field is left."""
        costs, own = self.fields.own_costs(state.local), self.own_costs
        arcs = state.structure.arcs
        ways = [
            cost + (own.stack(arcs[tag].cell, arcs[tag].frame, cell) if kept else 0)
            for tag, cost in costs.items()
            for kept in [cell is not None and _holds(arcs[tag].cell, cell)]
        ]
        return min(ways, default=0)

    def completes(self, state: State, token: int) -> str | None:
        """The last tag (or the end) that a legal token completes; None if it completes none."""
        tag = self.tag_of(token)
        if tag is not None or self.mode is TagMode.SPECIAL:
            return tag
        found = self.fields.scan.last(self.vocabulary.bytes_of(token), state.local.node)
        return None if found is None else found[0]

    def may_end(self, state: State) -> bool:
        """Whether the trace is legal if it ends here."""
        ended = state.structure.finished
        return ended or (END in state.start.tags and self._ready(state.local, END))


def _holds(stack: Cell | None, cell: Cell) -> bool:
    while stack is not None and stack is not cell:
        stack = stack.below
    return stack is not None
