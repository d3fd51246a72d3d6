"""Hypothesis strategies for legal traces of a schema, as text.

Counts are drawn before content, so every example has as many branches as items at once, and shrinks
to few items with short texts. Free text is adversarial on purpose: parts of tags, brackets, new
lines, other alphabets.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from random import Random
from typing import Any, Protocol

from hypothesis import HealthCheck, Phase, assume, given, reject, settings
from hypothesis import strategies as st

from nprdsl.grammar import ir
from nprdsl.grammar.walk import below, bodies, height, holds_fork, references, rule_heights
from nprdsl.prompting.instructions import example_value
from nprdsl.prompting.trace_writer import TraceWriter
from nprdsl.testing.reference import WHITE_SPACE, tag_pattern, value_pattern

LABEL_TRIES = 8
POOL = 40
LONG = 20  # how often a long text repeats its piece
PLAIN_PIECES = (
    "x", "two words", "3 + 4 = 7", "the rest,", " ", "\n", "\n\n", "1:", "0", "\t", "\r\n",
)  # fmt: skip
ODD_PIECES = (
    "<", ">", "</", "[", "]", "\\boxed{4}", "é", "ß→∞", "漢字", "🙂", "\u200b", "\x00", "{", '"',
)  # fmt: skip


class Spacing(StrEnum):
    """What stands where a schema has glue."""

    CANONICAL = "canonical"  # what the schema says, and generation emits
    ANY = "any"  # any white space, or none
    TIGHT = "tight"  # none


class HasGrammar(Protocol):
    """A schema, as far as this module needs one."""

    @property
    def grammar(self) -> ir.Grammar: ...


def traces(
    schema: HasGrammar,
    *,
    max_items: int = 4,
    max_depth: int = 2,
    max_blocks: int = 3,
    text: st.SearchStrategy[str] | None = None,
    spacing: Spacing = Spacing.CANONICAL,
) -> st.SearchStrategy[str]:
    """Legal texts of `schema`.

    `max_items` bounds each repetition and each fork by count, `max_depth` the forks inside forks,
    `max_blocks` the forks of a whole trace; what the schema demands is given even beyond these
    bounds. `text` replaces the built-in free text; texts that hold a tag, or are blank, are not
    used.
    """
    facts = _GrammarFacts(schema.grammar)
    if text is None:
        text = free_text(schema.grammar.tags)
    else:
        text = text.filter(lambda t: facts.tags.search(t) is None and bool(t.strip(WHITE_SPACE)))
    bounds = _TraceBounds(max_items, max_depth, max_blocks, text, spacing)

    @st.composite
    def legal(draw: st.DrawFn) -> str:
        return _DrawnTrace(facts, bounds, draw).text()

    return legal()


class _GrammarFacts:
    """What all traces of one grammar are drawn with: a pattern of its tags, the heights of its
    rules (see `rule_heights`), the rules that can reach a fork or themselves, and a strategy for
    each regular or typed terminal."""

    def __init__(self, grammar: ir.Grammar) -> None:
        rules = bodies(grammar.rules)
        reached = {name: below(name, rules) for name in rules}
        opening = {n for n, used in reached.items() if n in used or holds_fork(rules[n])}
        self.grammar = grammar
        self.tags = tag_pattern(grammar.tags)
        self.heights = rule_heights(rules)
        self.deepening = {name for name, used in reached.items() if opening & {name, *used}}
        self.values = {
            name: _values(terminal, grammar.tags)
            for name, terminal in grammar.terminals.items()
            if terminal.kind in (ir.TerminalKind.REGULAR, ir.TerminalKind.TYPED)
        }

    def deepens(self, node: ir.Node) -> bool:
        """Whether the node can open a fork, or a rule that can hold itself."""
        return holds_fork(node) or not self.deepening.isdisjoint(references(node))


@dataclass(frozen=True, slots=True)
class _TraceBounds:
    max_items: int
    max_depth: int
    max_blocks: int
    text: st.SearchStrategy[str]
    spacing: Spacing


class _NoLabelError(Exception):
    """No label is left that this map has not used."""


class _DrawnTrace(TraceWriter):
    """Draws one trace; lives for one example."""

    def __init__(self, facts: _GrammarFacts, bounds: _TraceBounds, draw: st.DrawFn) -> None:
        super().__init__(facts.grammar)
        self._facts = facts
        self._bounds = bounds
        self._draw = draw
        self._blocks = 0
        self._depth = 0
        self._pattern: re.Pattern[str] | None = None  # of the value just written, if any
        self._numbered = True  # whether this map numbers its items
        self._random: Random | None = None  # of glue, where any may stand

    def text(self) -> str:
        text = super().text()
        ends = itertools.accumulate(map(len, self.parts))
        written = [
            (end - len(part), end)
            for part, end in zip(self.parts, ends, strict=True)
            if part in self.grammar.tags
        ]
        assume([match.span() for match in self._facts.tags.finditer(text)] == written)
        return text

    def emit(self, text: str) -> None:
        if text:
            self._pattern = None
        super().emit(text)

    def field(self, terminal: ir.Terminal) -> None:
        before = len(self.parts)
        super().field(terminal)
        patterned = terminal.name in self._facts.values
        if patterned and len(self.parts) > before:
            self._pattern = value_pattern(terminal)

    def glue(self, terminal: ir.Terminal) -> str:
        match self._bounds.spacing:
            case Spacing.CANONICAL:
                return terminal.literal
            case Spacing.TIGHT:
                return ""
            case Spacing.ANY:
                if self._random is None:
                    self._random = Random(self._draw(st.integers(0, 255)))
                return self._random.choice(("", terminal.literal, " ", "\n", "\r\n \t\f\v\n"))

    def value(self, terminal: ir.Terminal) -> str:
        if not self.is_bound(terminal):
            return self._free(terminal)
        if terminal.kind is ir.TerminalKind.TEXT:
            return self._free(terminal).strip(WHITE_SPACE)
        block, item = self.listing, self.item
        assert block is not None and item is not None
        kinds = [self.grammar.terminals[name].kind for name in block.bound[: len(item)]]
        if terminal.kind is not ir.TerminalKind.REGULAR or ir.TerminalKind.REGULAR in kinds:
            return self._free(terminal)
        return self._label(terminal, {values[len(item)] for values in self.items[block.index][-1]})

    def _free(self, terminal: ir.Terminal) -> str:
        if terminal.kind is not ir.TerminalKind.TEXT:
            return self._draw(self._facts.values[terminal.name])
        text = self._draw(self._bounds.text)
        return f" {text}" if self._pattern is not None and self._continues(text) else text

    def _continues(self, text: str) -> bool:
        """Whether the value just written could be read as longer when `text` follows it."""
        pattern, value = self._pattern, self.parts[-1]
        assert pattern is not None
        return any(pattern.fullmatch(value + text[:n]) for n in range(1, len(text) + 1))

    def _label(self, terminal: ir.Terminal, used: set[str]) -> str:
        number = self.numbers[-1]
        if self._numbered and number not in used and value_pattern(terminal).fullmatch(number):
            return number
        for _ in range(LABEL_TRIES):
            value = self._free(terminal)
            if value not in used:
                return value
        value = example_value(terminal, self.grammar.tags, used)
        if value in used:
            raise _NoLabelError
        return value

    def option(self, node: ir.Alt) -> ir.Node:
        options = node.options
        if self._is_full():
            flat = tuple(option for option in options if not self._facts.deepens(option))
            options = flat or (min(options, key=lambda o: height(o, self._facts.heights)),)
        if len(options) == 1:
            return options[0]
        return options[self._draw(st.integers(0, len(options) - 1))]

    def repeat(self, node: ir.Repeat) -> None:
        for index in range(self.turns(node)):
            listing = self.listing
            lists: tuple[list[Any], ...] = (self.parts, self.rules, self.numbers)
            lists += tuple(self.items.values())
            lengths = [len(written) for written in lists]
            try:
                self.write(node.node)
            except _NoLabelError:
                if index < node.low:
                    reject()
                for written, length in zip(lists, lengths, strict=True):
                    del written[length:]
                self.listing, self.item = listing, None
                return

    def turns(self, node: ir.Repeat) -> int:
        most = self._bounds.max_items
        if self._facts.deepens(node.node):
            most = 0 if self._is_full() else min(most, self._bounds.max_blocks - self._blocks)
        return self._count(node.low, most, node.high)

    def branches(self, block: ir.Block) -> int:
        return self._count(block.low, self._bounds.max_items, block.high)

    def _count(self, low: int, most: int, high: int | None) -> int:
        most = max(low, most) if high is None else min(max(low, most), high)
        return low if most == low else self._draw(st.integers(low, most))

    def _is_full(self) -> bool:
        """Whether nothing more may be opened than the schema demands."""
        again = len(self.rules) - len(set(self.rules))
        deep = self._depth >= self._bounds.max_depth or again > 2 * self._bounds.max_depth
        return deep or self._blocks >= self._bounds.max_blocks

    def map(self, node: ir.MapNode) -> None:
        self._numbered = not node.block.bound or self._draw(st.integers(0, 4)) > 0
        super().map(node)

    def fork(self, node: ir.ForkNode) -> None:
        self._blocks += 1
        self._depth += 1
        super().fork(node)
        self._depth -= 1


# -- contents --------------------------------------------------------------------------------------


def free_text(tags: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Text that is not blank and holds no tag, with pieces of tags in it."""
    partial = [part for tag in tags for part in (tag[:-1], tag[1:], tag.swapcase()) if part]
    pieces = (*PLAIN_PIECES, *ODD_PIECES, *dict.fromkeys(partial))
    pattern = tag_pattern(tags)

    def text_of(number: int) -> str:
        """One piece, or two, or a piece many times: one draw, and smaller is simpler."""
        if number < len(pieces):
            text = pieces[number]
        else:
            first, second = divmod(number - len(pieces), len(pieces))
            again = LONG if first == second else 1
            text = pieces[first] * again + pieces[second]
        while pattern.search(text):
            text = pattern.sub("x", text)
        return text if text.strip(WHITE_SPACE) else text + "x"

    return st.integers(0, len(pieces) * (len(pieces) + 1) - 1).map(text_of)


def _values(terminal: ir.Terminal, tags: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Values of a regular or typed terminal, mostly from a small pool; none holds a tag."""
    pattern, forbidden = value_pattern(terminal), tag_pattern(tags)

    def fits(value: str) -> bool:
        return forbidden.search(value) is None and pattern.fullmatch(value) is not None

    pool = [value for value in _value_pool(terminal.pattern) if fits(value)]
    if pool:
        return st.sampled_from(pool)
    return st.from_regex(pattern, fullmatch=True).filter(fits)


@cache
def _value_pool(pattern: str) -> tuple[str, ...]:
    """Some values of a pattern, short ones first: drawing from a regex anew takes milliseconds."""
    pool: set[str] = set()

    @settings(
        max_examples=POOL,
        database=None,
        deadline=None,
        derandomize=True,
        phases=(Phase.generate,),
        suppress_health_check=tuple(HealthCheck),
    )
    @given(st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True))
    def collect(value: str) -> None:
        pool.add(value)

    collect()
    return tuple(sorted(pool, key=lambda value: (len(value), value)))[: POOL // 2]
