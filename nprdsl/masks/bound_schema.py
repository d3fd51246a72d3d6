"""A schema bound to a vocabulary: the language over token ids.

Checks and parses token traces with the one parser, hands out matchers, and refuses at once what the
vocabulary cannot spell or could never finish.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.grammar.ir import Grammar
from nprdsl.masks.automaton import Automaton
from nprdsl.masks.bind_checks import bind_faults
from nprdsl.masks.mask_cache import MaskCache
from nprdsl.masks.matcher import Matcher
from nprdsl.masks.states import GlueMode, SharedTables
from nprdsl.structure.stack import Bounds
from nprdsl.structure.tag_machine import Mode
from nprdsl.structure.violations import TraceError, Violation, ViolationCode
from nprdsl.tokens.vocabulary import Vocabulary
from nprdsl.trace.encoding import spell_trace
from nprdsl.trace.graph import Mark
from nprdsl.trace.lexemes import TagMode, tag_pattern, text_lexemes
from nprdsl.trace.parser import Boundary, Parser, Placed
from nprdsl.trace.reading import elements, forced_spans, marks
from nprdsl.trace.tokenlexemes import TokenText, token_text
from nprdsl.trace.trace import TokenTrace


class BoundSchema:
    """One language over one vocabulary, under run-time limits on its structure."""

    def __init__(
        self,
        grammar: Grammar,
        vocabulary: Vocabulary,
        parsers: Callable[[Bounds], Parser],
        bounds: Bounds,
        tables: dict[GlueMode, SharedTables] | None = None,
        cache: Path | None = None,
    ) -> None:
        self.grammar = grammar
        self.vocabulary = vocabulary
        self.bounds = bounds
        self._parsers = parsers
        self._parser = parsers(bounds)
        self._tables = tables if tables is not None else {}
        self._automata: dict[GlueMode, Automaton] = {}
        self._cache = cache
        self._bounded: dict[Bounds, BoundSchema] = {bounds: self}
        faults = bind_faults(grammar, self.automaton())
        if faults:
            raise SchemaError(faults, grammar.source)

    def under(self, bounds: Bounds) -> BoundSchema:
        """The same language under other limits on its structure; rows are shared."""
        found = self._bounded.get(bounds)
        if found is None:
            found = BoundSchema(self.grammar, self.vocabulary, self._parsers, bounds, self._tables)
            self._bounded[bounds] = found
        return found

    @property
    def kept(self) -> int:
        """How many states are kept so far, those under other limits included: about a kilobyte
        each. Only what is written into labels, repeated texts and limits makes it grow for ever."""
        tables = sum(table.kept for table in self._tables.values())
        automata = (a for bound in self._bounded.values() for a in bound._automata.values())
        return tables + sum(automaton.kept for automaton in automata)

    @property
    def mode(self) -> TagMode:
        """Whether the tags are special tokens or spelled."""
        return self.automaton().mode

    def automaton(self, glue: GlueMode = GlueMode.EXACT) -> Automaton:
        """The token automaton, taking glue exactly or as any white space."""
        found = self._automata.get(glue)
        if found is None:
            tables = self._tables.get(glue)
            if tables is None:
                tables = self._tables[glue] = SharedTables(self.grammar, self.vocabulary, glue)
                self._attach(tables)
            found = self._automata[glue] = Automaton(self.grammar, tables, self.bounds)
        return found

    def _attach(self, tables: SharedTables) -> None:
        if self._cache is not None:
            tables.store = MaskCache(self._cache, tables.table, self.grammar.tags)
            tables.table.stored = tables.store.find

    def save_rows(self) -> int:
        """Write the rows computed so far to the cache folder; returns how many are new."""
        tables = self._tables.values()
        return sum(t.store.save(t.table.computed, t.crossings) for t in tables if t.store)

    def matcher(self, glue: GlueMode = GlueMode.EXACT) -> Matcher:
        """A matcher at the beginning of a trace, branches one after another."""
        automaton = self.automaton(glue)
        return Matcher(automaton, automaton.enter(automaton.machine(Mode.LINEAR).initial))

    @cached_property
    def minimum(self) -> int:
        """The fewest tokens of a legal trace, the end token not counted."""
        return self.matcher().cost

    # token traces

    def check(self, ids: Sequence[int], *, prompt: int = 0) -> list[Violation]:
        """Everything that makes ids[prompt:] illegal; empty exactly if it is legal."""
        read = token_text(ids[prompt:], self.vocabulary, self.grammar.tags, self.mode)
        placed, violations = self._parser.read(read.text, read.lexemes)
        return violations or list(_misaligned(read, placed))

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of a legal trace's text, as a generation would have written them, without an end
        token. Raises `TraceError` with the violations of `Schema.check`, and UnspellableError."""
        lexemes = text_lexemes(text, tag_pattern(self.grammar.tags))
        placed, violations = self._parser.read(text, lexemes)
        if violations:
            raise TraceError(violations)
        return spell_trace(self.vocabulary, text, self.grammar.tags, placed)

    def parse(self, ids: Sequence[int], *, prompt: int = 0) -> TokenTrace:
        """The trace that ids[prompt:] is; raises `TraceError` with the violations of `check`."""
        read = token_text(ids[prompt:], self.vocabulary, self.grammar.tags, self.mode)
        placed, violations = self._parser.read(read.text, read.lexemes)
        violations = violations or list(_misaligned(read, placed))
        if violations:
            raise TraceError(violations)
        sampled = np.zeros(len(ids), np.uint8)
        sampled[prompt:] = _sampled(read, placed)
        found = marks(placed, lambda at: prompt + bisect_left(read.starts, at))
        tree = elements(read.text, placed)
        return TokenTrace(tuple(ids), prompt, read.text, tree, found, sampled)


def _misaligned(read: TokenText, placed: Sequence[Placed]) -> Iterator[Violation]:
    """Tokens that run across a place where one must end: forks, branches, joins, items."""
    needed = [(m.at, f"the {m.kind} of `{m.block.rule}`", m.block.rule) for m in _marks(placed)]
    for item in placed:
        if isinstance(item.what, Boundary):
            rule = item.what.rule
            needed.append((item.start, f"what the branch of `{rule}` repeats", rule))
    for at, what, rule in sorted(needed):
        token = bisect_left(read.starts, at)
        if (read.starts[token] if token < len(read.starts) else len(read.text)) != at:
            line = read.text.count("\n", 0, at) + 1
            column = at - read.text.rfind("\n", 0, at)
            yield Violation(
                ViolationCode.TOKEN_BOUNDARY,
                f"a token runs across {what}",
                line,
                column,
                rule,
                at,
                "a token must end there",
            )


def _marks(placed: Sequence[Placed]) -> tuple[Mark, ...]:
    return marks(placed, lambda at: at)


def _sampled(read: TokenText, placed: Sequence[Placed]) -> NDArray[np.uint8]:
    """1 for every token that does not lie wholly where there was no choice."""
    starts = np.array(read.starts, np.int64)
    ends = np.append(starts[1:], len(read.text))
    sampled = np.ones(len(starts), np.uint8)
    for start, end in forced_spans(placed):
        first = int(np.searchsorted(starts, start))
        last = int(np.searchsorted(ends, end, side="right"))
        sampled[first:last] = 0
    return sampled
