"""A schema bound to a vocabulary: the language over token ids.

Checks and parses token traces with the one parser, hands out matchers, and refuses at once what the
vocabulary cannot spell or could never finish.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from operator import index
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode, SchemaError, SchemaWarning
from nprdsl.grammar.field_shapes import FieldShape
from nprdsl.grammar.ir import Field, Grammar, Literal, Node, Tag, Terminal, TerminalKind, nodes
from nprdsl.grammar.tag_decisions import may_end_instead
from nprdsl.grammar.walk import all_nodes
from nprdsl.masks.automaton import Automaton, GlueMode, SharedTables
from nprdsl.masks.block_ahead import BlockAhead
from nprdsl.masks.clean_text import CleanText
from nprdsl.masks.field_detours import unwritable_fields
from nprdsl.masks.mask_cache import MaskCache
from nprdsl.masks.matcher import Matcher
from nprdsl.regular.dfa import compile_regex
from nprdsl.structure.stack import UNBOUNDED, Bounds
from nprdsl.structure.tag_machine import ForkMode
from nprdsl.structure.violations import TraceError, Violation, ViolationCode
from nprdsl.tokens.spelling import NEVER
from nprdsl.tokens.vocabulary import Vocabulary
from nprdsl.trace.answer import answer_of_trace
from nprdsl.trace.encoding import spell_trace
from nprdsl.trace.graph import GraphEvent, event_name
from nprdsl.trace.lexemes import TokenText, tag_pattern, text_lexemes, token_text
from nprdsl.trace.parser import ParsedText, Parser
from nprdsl.trace.trace import TokenTrace, element_tree

_MOST_BOUNDS: Final = 64  # that stay bound, of one schema: each request may say its own


class TagMode(StrEnum):
    """How the tags of a schema stand among the tokens of a vocabulary."""

    SPECIAL = "special"  # every tag is one special token
    MIXED = "mixed"  # some are, the others are spelled
    TEXT = "text"  # all tags are spelled


class SpelledTagsWarning(SchemaWarning):
    """Some tags of a schema are tokens of the vocabulary, and others must be spelled."""


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
        self._tables = tables if tables is not None else {}
        self._automata: dict[GlueMode, Automaton] = {}
        self._cache = cache
        self._bounded: dict[Bounds, BoundSchema] = {}  # under others, least recently used first
        faults = _faults(grammar, self.automaton())
        if faults:
            raise SchemaError(faults, grammar.source)

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes: without the masks, which are computed there again."""
        given = (self.grammar, self.vocabulary, self._parsers, self.bounds, None, self._cache)
        return BoundSchema, given

    def under(self, bounds: Bounds) -> BoundSchema:
        """The same language under other limits on its structure; rows are shared."""
        if bounds == self.bounds:
            return self
        bounded = self._bounded.pop(bounds, None)
        if bounded is None:
            bounded = BoundSchema(
                self.grammar, self.vocabulary, self._parsers, bounds, self._tables
            )
        self._bounded[bounds] = bounded
        if len(self._bounded) > _MOST_BOUNDS:
            del self._bounded[next(iter(self._bounded))]
        return bounded

    @property
    def kept(self) -> int:
        """How many states are kept so far, those under other limits included: about a kilobyte
        each. Only what is written into labels, repeated texts and limits makes it grow for ever."""
        tables = sum(len(table.fields.known) for table in self._tables.values())
        bounded = (self, *self._bounded.values())
        automata = (a for bound in bounded for a in bound._automata.values())
        return tables + sum(automaton.kept for automaton in automata)

    @property
    def tag_tokens(self) -> Mapping[str, int]:
        """The ids of the tags that are special tokens of the vocabulary; all others are spelled."""
        return MappingProxyType(self.automaton().tag_tokens)

    @property
    def mode(self) -> TagMode:
        """Whether all tags are special tokens, some, or none."""
        tokens = len(self.tag_tokens)
        if not tokens:
            return TagMode.TEXT
        return TagMode.SPECIAL if tokens == len(self.grammar.tags) else TagMode.MIXED

    @cached_property
    def clean_text(self) -> CleanText:
        """Masks of free text without half a tag."""
        return CleanText(self.automaton())

    @cached_property
    def block_ahead(self) -> BlockAhead:
        """The tags that lead to a block."""
        return BlockAhead(self.grammar)

    def automaton(self, glue: GlueMode = GlueMode.EXACT) -> Automaton:
        """The token automaton, taking glue exactly or as any white space."""
        automaton = self._automata.get(glue)
        if automaton is None:
            tables = self._tables.get(glue)
            if tables is None:
                tables = self._tables[glue] = SharedTables(self.grammar, self.vocabulary, glue)
                self._attach(tables)
            automaton = self._automata[glue] = Automaton(self.grammar, tables, self.bounds)
        return automaton

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
        return Matcher(automaton, automaton.enter(automaton.machine(ForkMode.LINEAR).initial))

    @cached_property
    def _parser(self) -> Parser:
        return self._parsers(self.bounds)

    @cached_property
    def minimum(self) -> int:
        """The least budget: so many tokens are enough for a legal trace, the end token not counted.
        The fewest, unless long tokens that the shortest values do without could save some."""
        return self.matcher().cost

    # token traces

    def check(self, ids: Sequence[int], *, prompt: int = 0) -> list[Violation]:
        """Everything that makes ids[prompt:] illegal; empty exactly if it is legal. Raises
        TypeError for ids that are no integers, ValueError for a prompt longer than the ids."""
        return self._read(_behind(ids, prompt))[1].violations

    def _read(self, ids: Sequence[int]) -> tuple[TokenText, ParsedText]:
        ended = bool(ids) and ids[-1] == self.vocabulary.eos_id
        if ended and self._end_is_tag:  # a place where both may come is refused
            ended = not self._is_legal(ids, ended=False) and self._is_legal(ids, ended=True)
        read = self._text(ids, ended=ended)
        parsed = self._parser.read(read.text, read.lexemes, self.tag_tokens)
        if not parsed.violations:
            parsed.violations += _misaligned(read, parsed)
        return read, parsed

    def _text(self, ids: Sequence[int], *, ended: bool) -> TokenText:
        return token_text(ids, self.vocabulary, self.grammar.tags, ended=ended)

    def _is_legal(self, ids: Sequence[int], *, ended: bool) -> bool:
        read = self._text(ids, ended=ended)
        return self._parser.legal(read.text, read.lexemes)

    @cached_property
    def _end_is_tag(self) -> bool:
        return self.vocabulary.eos_id in self.tag_tokens.values()

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of a legal trace's text, as a generation would have written them, without an end
        token. Raises `TraceError` with the violations of `Schema.check`, and UnspellableError."""
        lexemes = list(text_lexemes(text, tag_pattern(self.grammar.tags)))
        parsed = self._parser.read(text, lexemes, self.tag_tokens)
        if parsed.violations:
            raise TraceError(parsed.violations)
        return spell_trace(self.vocabulary, text, self.grammar.tags, parsed)

    def with_end(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The ids of a trace as a model learns to write them: the end token behind them, if
        the vocabulary has one and it is not the last tag, behind which nothing may follow."""
        end = self.vocabulary.eos_id
        if end is None or (self._end_is_tag and ids[-1:] == (end,) and self._is_over(ids)):
            return tuple(ids)
        return (*ids, end)

    def _is_over(self, ids: Sequence[int]) -> bool:
        """Whether nothing but the end may follow."""
        matcher = self.matcher(GlueMode.ANY)
        for token in ids:
            if not matcher.accepts(token):  # an illegal trace that ends as it does
                return True
            matcher.advance(token)
        return matcher.finished

    def parse(self, ids: Sequence[int], *, prompt: int = 0) -> TokenTrace:
        """The trace that ids[prompt:] is; raises `TraceError` with the violations of `check`, and
        what `check` raises."""
        read, parsed = self._read(_behind(ids, prompt))
        if parsed.violations:
            raise TraceError(parsed.violations)
        sampled = np.zeros(len(ids), np.uint8)
        sampled[prompt:] = _sampled(read, parsed)
        marks = parsed.graph_marks(lambda at: prompt + bisect_left(read.starts, at))
        tree = element_tree(read.text, parsed.marks)
        answer = answer_of_trace(read.text, parsed.marks, tag_pattern(self.grammar.tags))
        return TokenTrace(tuple(map(index, ids)), prompt, read.text, tree, marks, sampled, answer)


def _behind(ids: Sequence[int], prompt: int) -> list[int]:
    """The ids behind the prompt, as plain integers."""
    if not 0 <= prompt <= len(ids):
        raise ValueError(f"the prompt has {prompt} of {len(ids)} ids; it has 0 to {len(ids)}")
    kinds = set(map(type, ids))
    if bool in kinds:
        raise TypeError("token ids are integers, not bools")
    return [index(token) for token in ids[prompt:]]


def _misaligned(read: TokenText, parsed: ParsedText) -> Iterator[Violation]:
    """Tokens that run across a place where one must end: forks, branches, joins, items."""
    needed = [(at, f"what the branch of `{rule}` repeats", rule) for at, rule in parsed.token_ends]
    for mark in parsed.marks:
        if isinstance(mark.what, GraphEvent):
            rule = mark.what.block.rule
            needed.append((mark.at, f"the {event_name(mark.what)} of `{rule}`", rule))
    for at, what, rule in sorted(needed):
        token = bisect_left(read.starts, at)
        if (read.starts[token] if token < len(read.starts) else len(read.text)) != at:
            yield Violation(
                ViolationCode.TOKEN_BOUNDARY,
                f"a token runs across {what}",
                line=read.text.count("\n", 0, at) + 1,
                column=at - read.text.rfind("\n", 0, at),
                rule=rule,
                offset=at,
                suggestion="a token must end there",
            )


def _sampled(read: TokenText, parsed: ParsedText) -> NDArray[np.uint8]:
    """1 for every token that does not lie wholly where there was no choice."""
    starts, ends = np.array(read.starts, np.int64), np.array(read.ends, np.int64)
    sampled = np.ones(len(starts), np.uint8)
    for start, end in parsed.forced:
        first = int(np.searchsorted(starts, start))
        last = int(np.searchsorted(ends, end, side="right"))
        sampled[first:last] = 0
    return sampled


# what a vocabulary cannot do for a schema

# Grammars that some vocabulary with all bytes can finish, and so any such vocabulary.
_FINISHED: Final[WeakSet[Grammar]] = WeakSet()


def _faults(grammar: Grammar, automaton: Automaton) -> list[Diagnostic]:
    """Everything in the grammar that the automaton's vocabulary cannot write."""
    faults: dict[tuple[str, str], Diagnostic] = {}
    for rule in grammar.rules.values():
        for node in nodes(rule.node):
            fault = _fault(node, automaton, rule.name)
            if fault is not None:
                faults.setdefault((fault.code, fault.message), fault)
    if fault := _end_fault(grammar, automaton.vocabulary):
        faults[fault.code, fault.message] = fault
    every_byte = automaton.vocabulary.single_bytes.all()  # then what can be written at all can be
    if not faults and not every_byte:
        for shape in unwritable_fields(grammar, automaton.fields.rests):
            fault = _unwritable_field(shape)
            faults.setdefault((fault.code, fault.message), fault)
    if faults:
        return list(faults.values())
    free = automaton.bounds == UNBOUNDED and every_byte
    if free and grammar in _FINISHED:
        return []
    endless = _endless(grammar, automaton)
    if free and not endless:
        _FINISHED.add(grammar)
    return endless


def _endless(grammar: Grammar, automaton: Automaton) -> list[Diagnostic]:
    """The fault of a grammar none of whose traces can be finished."""
    start = automaton.machine(ForkMode.LINEAR).initial
    if automaton.costs.stack(start.cell, start.frame) < NEVER:
        return []
    span = grammar.rules[grammar.start].span
    if automaton.bounds != UNBOUNDED:
        message = f"no trace can be finished under the limits {automaton.bounds}"
        return [Diagnostic(DiagnosticCode.DEAD_END, span, message, "raise the limits")]
    message = f"no trace can be finished in less than {NEVER:,} tokens of this vocabulary"
    way = "ask for fewer elements, or let the labels of lists have more values"
    return [Diagnostic(DiagnosticCode.DEAD_END, span, message, way)]


def _unwritable_field(shape: FieldShape) -> Diagnostic:
    """A field of which every text that the vocabulary spells would spell a tag."""
    names = " ".join(
        repr(leaf.text) if isinstance(leaf, Literal) else f"`{leaf.terminal.name}`"
        for leaf in shape.leaves
    )
    before = "the end" if shape.tag is None else f"the tag `{shape.tag.text}`"
    return Diagnostic(
        DiagnosticCode.DEAD_END,
        shape.leaves[0].span,
        f"all that the vocabulary can write for {names} before {before} spells a tag",
        "add the missing characters to the vocabulary, or change the tag",
        () if shape.tag is None else ((shape.tag.span, "up to this tag"),),
    )


def _end_fault(grammar: Grammar, vocabulary: Vocabulary) -> Diagnostic | None:
    """A tag that is the end token, where it may come and the trace may end as well."""
    tokens = vocabulary.tag_tokens(grammar.tags)
    name = next((tag for tag, token in tokens.items() if token == vocabulary.eos_id), None)
    if name is None or not may_end_instead(grammar.rules, grammar.start, name):
        return None
    tags = (node for node in all_nodes(grammar.rules) if isinstance(node, Tag))
    return Diagnostic(
        DiagnosticCode.END_TOKEN_TAG,
        next(tag.span for tag in tags if tag.text == name),
        f"the tag `{name}` is the end token of the vocabulary, and where it may come the trace may "
        "end as well: one token cannot say both",
        "let it come always before the end, or give the vocabulary another end token (`eos=`)",
    )


def _fault(node: Node, automaton: Automaton, rule: str) -> Diagnostic | None:
    rests, code = automaton.fields.rests, DiagnosticCode.DEAD_END
    if isinstance(node, Tag) and rests.tag_cost(node.text) >= NEVER:
        code = DiagnosticCode.UNSPELLABLE_TAG
        message = f"the vocabulary cannot spell the tag `{node.text}` of rule `{rule}`"
        way = f"add `{node.text}` to the tokenizer as a special token, or choose other tags"
    elif isinstance(node, Literal) and rests.spelling.tokens(node.text.encode()) >= NEVER:
        message = f"the vocabulary cannot spell {node.text!r} of rule `{rule}`"
        way = "use another literal"
    elif isinstance(node, Field) and automaton.tables.costs[node.terminal.name] >= NEVER:
        message, way = _unwritable(node.terminal, rule)
    else:
        return None
    return Diagnostic(code, node.span, message, way)


def _unwritable(terminal: Terminal, rule: str) -> tuple[str, str]:
    """What cannot be written of a terminal, and the way out."""
    if terminal.kind is TerminalKind.GLUE:
        message = f"the vocabulary cannot spell the glue {terminal.literal!r} of rule `{rule}`"
        return message, "use other glue"
    if terminal.kind is TerminalKind.TEXT:
        return (
            f"no token spells a text for {terminal.name} of rule `{rule}`",
            "check the vocabulary",
        )
    shortest = compile_regex(terminal.pattern).completion().decode()
    message = f"the vocabulary cannot spell any {terminal.name} of rule `{rule}`: "
    way = "add the missing characters to the vocabulary, or change the terminal"
    return f"{message}its shortest value would be {shortest!r}", way
