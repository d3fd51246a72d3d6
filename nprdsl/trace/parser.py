"""Reading a trace: the one parser of the language, for text and for tokens alike.

A source of lexemes (`nprdsl.trace.lexemes`) cuts a trace into pairs of field content and tag;
`read` runs them through the tag machine. It reports every violation it can find: after a fault it
repairs the state as the author most likely meant it and goes on. What it read is a list of marks:
structure events and pieces of fields, from which `nprdsl.trace.trace` objects are built.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from nprdsl.grammar.ir import Grammar
from nprdsl.structure.events import StructureEvent
from nprdsl.structure.field_content import ContentFault, FieldValue, is_glue, is_text
from nprdsl.structure.stack import Bounds, CapturedField
from nprdsl.structure.tag_machine import Arc, ForkMode, TagMachine, TagState, Trail, steps
from nprdsl.structure.violations import Violation
from nprdsl.trace.forced_spans import Span, decided_at, forced_spans, shared_spans, shared_symbols
from nprdsl.trace.graph import GraphEvent, Mark
from nprdsl.trace.lexemes import Lexeme
from nprdsl.trace.repair import Looser, Repairs

MAX_VIOLATIONS = 50


@dataclass(slots=True)
class ParsedText:
    """What was found in a text; places count characters.

    marks: structural events and pieces of fields, in order. forced: the stretches in which there
    was no choice: headers, bound labels, glue, the only possible tag. token_ends: where a token
    must end (behind a field whose values a branch repeats, and at both ends of a text that it
    repeats), with the rule. violations: everything wrong with the trace.
    """

    marks: list[Mark] = field(default_factory=list)
    forced: list[Span] = field(default_factory=list)
    token_ends: list[tuple[int, str]] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)

    def graph_marks(self, place: Callable[[int], int] = int) -> tuple[Mark, ...]:
        """The marks of forks, branches and joins; `place` maps a character to the unit of marks."""
        events = (mark for mark in self.marks if isinstance(mark.what, GraphEvent))
        return tuple(Mark(mark.what, place(mark.at)) for mark in events)


class Parser:
    """Reads traces of one grammar under one set of bounds; states and patterns are kept between
    traces."""

    def __init__(self, grammar: Grammar, bounds: Bounds) -> None:
        self.grammar = grammar
        self.bounds = bounds
        self.machine = TagMachine(grammar, ForkMode.LINEAR, bounds)

    def legal(self, text: str, lexemes: Iterable[Lexeme]) -> bool:
        """Whether there is no violation; the quick way."""
        state = self.machine.initial
        for lexeme in lexemes:
            arc = state.arcs.get(lexeme.tag)
            if arc is None:
                return False
            content = text[lexeme.start : lexeme.end]
            if lexeme.fault is not None or not arc.content.accepts(content):
                return False
            state = state.after(lexeme.tag, arc.content.captured(content))
        return True

    def read(
        self, text: str, lexemes: Sequence[Lexeme], tag_tokens: Collection[str] = frozenset()
    ) -> ParsedText:
        """Everything found in the trace, and everything wrong with it. `tag_tokens` are the tags
        that are single tokens."""
        return _Pass(self, text, lexemes, tag_tokens).run()

    @cached_property
    def looser(self) -> Looser:
        """The same language with fewer limits; made when a first fault is found."""
        return Looser(self.grammar)


class _Pass:
    """One pass over one trace."""

    def __init__(
        self, parser: Parser, text: str, lexemes: Sequence[Lexeme], tag_tokens: Collection[str]
    ) -> None:
        self._parser = parser
        self._tag_tokens = tag_tokens
        self._text = text
        self._lexemes = lexemes
        self._parsed = ParsedText()

    @cached_property
    def _lines(self) -> list[int]:
        """Where each line but the first begins."""
        return [found.end() for found in re.finditer("\n", self._text)]

    @cached_property
    def _repairs(self) -> Repairs:
        parser = self._parser
        return Repairs(parser.machine, parser.looser, self._text, self._lexemes)

    def run(self) -> ParsedText:
        state = self._parser.machine.initial
        self._happen(state.events, 0)
        for number, lexeme in enumerate(self._lexemes):
            if len(self._parsed.violations) >= MAX_VIOLATIONS:
                break
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
        return self._parsed

    def _take(self, state: TagState, arc: Arc, lexeme: Lexeme) -> TagState:
        content, start = self._text[lexeme.start : lexeme.end], lexeme.start
        matched = arc.content.match(content)
        if matched is None and lexeme.fault is None:
            self._report(arc.content.fault(content), start, state.rule)
        way, pieces = matched if matched is not None else (0, [])
        self._mark(arc.trails[way], lexeme, pieces)
        spans = self._forced(state, lexeme, pieces)
        self._parsed.forced += ((start + begin, start + end) for begin, end in spans)
        if arc.captures:
            ends = [lexeme.tag_end]
            for piece in pieces:
                if isinstance(piece.symbol, CapturedField) and is_text(piece.symbol):
                    ends += [start + piece.start, start + piece.end]
            self._parsed.token_ends += ((at, state.rule) for at in ends)
        after = state.after(lexeme.tag, arc.content.captured(content))
        self._happen(after.events, lexeme.tag_end)
        return after

    def _mark(self, trail: Trail, lexeme: Lexeme, pieces: list[FieldValue]) -> None:
        at, by_symbol = lexeme.start, {id(piece.symbol): piece for piece in pieces}
        for step in steps(trail):
            if isinstance(step, StructureEvent):
                self._parsed.marks.append(Mark(step, at))
                continue
            piece = by_symbol.get(id(step))
            if piece is not None:
                self._parsed.marks.append(Mark(piece, lexeme.start + piece.start))
                at = lexeme.start + piece.end

    def _forced(self, state: TagState, lexeme: Lexeme, pieces: list[FieldValue]) -> list[Span]:
        """The stretches of a field, from its start, that left no choice."""
        content = self._text[lexeme.start : lexeme.end]
        ways = [symbols for arc in state.arcs.values() for symbols in arc.fields]
        if len(ways) == 1:
            return forced_spans(content, pieces, lexeme.tag_end - lexeme.start)
        shared = shared_symbols(ways)
        spans = shared_spans(content, pieces, shared)
        if all(is_glue(symbol) for symbols in ways for symbol in symbols):
            decided = decided_at(lexeme.tag, state.arcs.keys(), self._tag_tokens)
            spans.append((len(content) + decided, lexeme.tag_end - lexeme.start))
        return [(start, end) for start, end in spans if end > start]

    def _happen(self, events: tuple[StructureEvent, ...], at: int) -> None:
        self._parsed.marks += (Mark(event, at) for event in events)

    def _mend(self, state: TagState, number: int) -> TagState | None:
        """The state to go on from after an unexpected tag, which is reported; None to skip the
        tag."""
        lexeme = self._lexemes[number]
        repaired = self._repairs.repair(number, state)
        at = lexeme.end - lexeme.start
        fault = ContentFault(repaired.code, at, repaired.message, repaired.suggestion)
        self._report(fault, lexeme.start, repaired.rule or state.rule)
        return repaired.state

    def _report(self, fault: ContentFault, start: int, rule: str) -> None:
        if len(self._parsed.violations) >= MAX_VIOLATIONS:
            return
        offset = start + fault.offset
        line = bisect_right(self._lines, offset)
        column = offset - (self._lines[line - 1] if line else 0)
        self._parsed.violations.append(
            Violation(
                fault.code, fault.message, line + 1, column + 1, rule, offset, fault.suggestion
            )
        )
