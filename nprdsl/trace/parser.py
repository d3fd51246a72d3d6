"""Reading a trace: the one parser of the language, for text and for tokens alike.

A source of lexemes (`nprdsl.trace.lexemes`) cuts a trace into pairs of field content and tag;
`read` runs them through the tag machine. It reports every violation it can find: after a fault it
repairs the state as the author most likely meant it and goes on. What it read is a list of placed
structure events and pieces, from which `nprdsl.trace.trace` objects are built.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from nprdsl.grammar.ir import Grammar
from nprdsl.structure.events import StructureEvent
from nprdsl.structure.field_content import ArcContent, ContentFault, Piece, is_glue, is_text
from nprdsl.structure.stack import Bounds, Capture
from nprdsl.structure.tag_machine import END, Arc, Mode, TagMachine, TagState, Trail
from nprdsl.structure.violations import Violation, ViolationCode
from nprdsl.trace.forced_spans import Span, decided_at, forced_spans, shared_spans, shared_symbols
from nprdsl.trace.lexemes import Lexeme
from nprdsl.trace.repair import Looser, repair

MAX_VIOLATIONS = 50


@dataclass(frozen=True, slots=True)
class Forced:
    """A stretch in which there was no choice: headers, bound labels, glue, the only possible
    tag."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """A place between tokens: the end of a field whose values a branch repeats, and both ends of a
    free text that it repeats."""

    rule: str


@dataclass(frozen=True, slots=True)
class Placed:
    """What stands at a place in the text (characters)."""

    what: StructureEvent | Piece | Forced | Boundary
    start: int
    end: int


class Parser:
    """Reads traces of one grammar under one set of bounds; states and patterns are kept between
    traces."""

    def __init__(self, grammar: Grammar, bounds: Bounds) -> None:
        self.grammar = grammar
        self.bounds = bounds
        self._machine = TagMachine(grammar, Mode.LINEAR, bounds)
        self._contents: dict[Arc, ArcContent] = {}
        self._looser: Looser | None = None

    def legal(self, text: str, lexemes: Sequence[Lexeme]) -> bool:
        """Whether there is no violation; the quick way."""
        state = self._machine.initial
        for lexeme in lexemes:
            arc = state.arcs.get(lexeme.tag)
            if arc is None:
                return False
            content = text[lexeme.start : lexeme.end]
            matcher = self.content(arc)
            if lexeme.fault is not None or not matcher.accepts(content):
                return False
            state = state.after(lexeme.tag, matcher.captured(content))
        return True

    def read(self, text: str, lexemes: Sequence[Lexeme]) -> tuple[list[Placed], list[Violation]]:
        """Everything found in the trace, and everything wrong with it."""
        return _Reading(self, text, lexemes).run()

    def content(self, arc: Arc) -> ArcContent:
        found = self._contents.get(arc)
        if found is None:
            found = self._contents[arc] = ArcContent(arc.fields)
        return found

    @property
    def looser(self) -> Looser:
        """The same language with fewer limits; made when a first fault is found."""
        if self._looser is None:
            self._looser = Looser(self.grammar)
        return self._looser

    @property
    def machine(self) -> TagMachine:
        return self._machine


class _Reading:
    """One pass over one trace."""

    def __init__(self, parser: Parser, text: str, lexemes: Sequence[Lexeme]) -> None:
        self._parser = parser
        self._text = text
        self._lexemes = lexemes
        self._lines = [i + 1 for i, c in enumerate(text) if c == "\n"]
        self.placed: list[Placed] = []
        self.violations: list[Violation] = []

    def run(self) -> tuple[list[Placed], list[Violation]]:
        state = self._parser.machine.initial
        self._happen(state.events, 0)
        for number, lexeme in enumerate(self._lexemes):
            if lexeme.fault is not None:
                self._report(lexeme.fault, lexeme.start, state.rule)
            arc = state.arcs.get(lexeme.tag)
            if arc is None:
                mended = self._mend(state, number)
                if mended is None:
                    continue
                state = mended
                arc = state.arcs.get(lexeme.tag)
                if arc is None:
                    continue
            state = self._take(state, arc, lexeme)
            if len(self.violations) >= MAX_VIOLATIONS:
                break
        return self.placed, self.violations

    def _take(self, state: TagState, arc: Arc, lexeme: Lexeme) -> TagState:
        content = self._text[lexeme.start : lexeme.end]
        matcher = self._parser.content(arc)
        matched = matcher.match(content)
        if matched is None and lexeme.fault is None:
            self._report(matcher.fault(content), lexeme.start, state.rule)
        way, pieces = matched if matched is not None else (0, [])
        self._place(arc.trails[way], lexeme, pieces)
        for start, end in self._forced(state, lexeme, pieces):
            self.placed.append(Placed(Forced(), lexeme.start + start, lexeme.start + end))
        if arc.captures:
            self._bound_tokens(state.rule, lexeme, pieces)
        after = state.after(lexeme.tag, matcher.captured(content))
        self._happen(after.events, lexeme.tag_end)
        return after

    def _bound_tokens(self, rule: str, lexeme: Lexeme, pieces: list[Piece]) -> None:
        places = [lexeme.tag_end]
        for piece in pieces:
            if isinstance(piece.symbol, Capture) and is_text(piece.symbol):
                places += [lexeme.start + piece.start, lexeme.start + piece.end]
        self.placed.extend(Placed(Boundary(rule), at, at) for at in places)

    def _place(self, trail: Trail, lexeme: Lexeme, pieces: list[Piece]) -> None:
        at, found = lexeme.start, {id(p.symbol): p for p in pieces}
        for step in trail:
            if isinstance(step, StructureEvent):
                self.placed.append(Placed(step, at, at))
                continue
            piece = found.get(id(step))
            if piece is not None:
                at = lexeme.start + piece.end
                self.placed.append(Placed(piece, lexeme.start + piece.start, at))

    def _forced(self, state: TagState, lexeme: Lexeme, pieces: list[Piece]) -> list[Span]:
        """The stretches of a field, from its start, that left no choice."""
        content = self._text[lexeme.start : lexeme.end]
        ways = [symbols for arc in state.arcs.values() for symbols in arc.fields]
        if len(ways) == 1:
            return forced_spans(content, pieces, lexeme.tag_end - lexeme.start)
        shared = shared_symbols(ways)
        found = shared_spans(content, pieces, shared)
        if all(is_glue(symbol) for symbols in ways for symbol in symbols):
            decided = decided_at(lexeme.tag, state.arcs.keys())
            found.append((len(content) + decided, lexeme.tag_end - lexeme.start))
        return [(start, end) for start, end in found if end > start]

    def _happen(self, events: tuple[StructureEvent, ...], at: int) -> None:
        self.placed.extend(Placed(event, at, at) for event in events)

    def _mend(self, state: TagState, number: int) -> TagState | None:
        """The state to go on from after an unexpected tag, which is reported; None to skip the
        tag."""
        lexeme = self._lexemes[number]
        parser, read = self._parser, self._lexemes[: number + 1]
        found = repair(parser.machine, parser.looser, self._text, read, state)
        at = lexeme.end - lexeme.start
        if lexeme.tag != END and found.code is ViolationCode.STRAY_TEXT:
            at = 0
        fault = ContentFault(found.code, at, found.message, found.suggestion)
        self._report(fault, lexeme.start, found.rule or state.rule)
        return found.state

    def _report(self, fault: ContentFault, start: int, rule: str) -> None:
        offset = start + fault.offset
        line = bisect_right(self._lines, offset)
        column = offset - (self._lines[line - 1] if line else 0)
        self.violations.append(
            Violation(
                fault.code, fault.message, line + 1, column + 1, rule, offset, fault.suggestion
            )
        )
