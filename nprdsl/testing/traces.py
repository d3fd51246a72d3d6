"""Hypothesis strategies for legal traces of a schema: as text, and as token ids of a bound schema.

Counts are drawn before content, so every example is count-equal at once and shrinks to few items
with short texts. Free text is adversarial on purpose: parts of tags, brackets, new lines, other
alphabets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Protocol

from hypothesis import assume, reject
from hypothesis import strategies as st

from nprdsl.grammar import ir
from nprdsl.grammar.walk import height
from nprdsl.testing.contents import free_text, without_tags
from nprdsl.testing.reference import WHITE_SPACE, value_pattern
from nprdsl.testing.shapes import Shape, shape_of

LABEL_TRIES = 8


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
    shape = shape_of(schema.grammar)
    free = free_text(schema.grammar.tags) if text is None else without_tags(shape.tags, text)
    limits = _Limits(max_items, max_depth, max_blocks, free, spacing)

    @st.composite
    def legal(draw: st.DrawFn) -> str:
        return _Writer(shape, limits, draw).trace()

    return legal()


@dataclass(frozen=True, slots=True)
class _Limits:
    max_items: int
    max_depth: int
    max_blocks: int
    text: st.SearchStrategy[str]
    spacing: Spacing


class _NoLabel(Exception):
    """No label is left that this map has not used."""


class _Writer:
    """Writes one trace; lives for one example."""

    def __init__(self, shape: Shape, limits: _Limits, draw: st.DrawFn) -> None:
        self._shape = shape
        self._limits = limits
        self._draw = draw
        self._parts: list[str] = []
        self._tags: list[str] = []
        self._blocks = 0
        self._listed: dict[int, list[tuple[str, ...]]] = {}
        self._map: ir.Block | None = None  # the map that is being listed
        self._item: list[str] | None = None  # bound values of the item that is being written
        self._forced: list[tuple[str, str]] = []  # bound values that this branch must repeat
        self._pattern: re.Pattern[str] | None = None  # of the value just written, if any
        self._numbered = True
        self._random: Random | None = None  # of glue, where any may stand
        self._depth = 0
        self._stack: list[str] = []

    def trace(self) -> str:
        grammar = self._shape.grammar
        self._write(ir.Ref(grammar.start, grammar.rules[grammar.start].span))
        text = "".join(self._parts)
        assume([m.group() for m in self._shape.tags.finditer(text)] == self._tags)
        return text

    def _emit(self, text: str, pattern: re.Pattern[str] | None = None) -> None:
        if text:
            self._parts.append(text)
            self._pattern = pattern

    def _write(self, node: ir.Node) -> None:
        match node:
            case ir.Tag():
                self._tags.append(node.text)
                self._emit(node.text)
            case ir.Literal():
                self._emit(node.text)
            case ir.Field():
                self._field(node.terminal)
            case ir.Ref():
                self._rule(node.rule)
            case ir.Seq():
                for item in node.items:
                    self._write(item)
            case ir.Alt():
                self._write(self._choose(node))
            case ir.Repeat():
                self._repeat(node)
            case ir.MapNode():
                self._list(node)
            case ir.ForkNode():
                self._fork(node)
            case ir.JoinNode():
                self._write(node.node)

    def _field(self, terminal: ir.Terminal) -> None:
        if terminal.kind is ir.TerminalKind.GLUE:
            self._emit(self._glue(terminal))
            return
        item, block = self._item, self._map
        if self._forced and self._forced[0][0] == terminal.name:
            value = self._forced.pop(0)[1]
        elif (
            item is not None
            and block is not None
            and len(item) < len(block.bound)
            and block.bound[len(item)] == terminal.name
        ):
            value = self._bound_value(terminal, block, item)
            item.append(value)
        else:
            value = self._value(terminal)
        patterned = terminal.kind is not ir.TerminalKind.TEXT
        self._emit(value, value_pattern(terminal) if patterned else None)

    def _glue(self, terminal: ir.Terminal) -> str:
        match self._limits.spacing:
            case Spacing.CANONICAL:
                return terminal.literal
            case Spacing.TIGHT:
                return ""
            case Spacing.ANY:
                if self._random is None:
                    self._random = Random(self._draw(st.integers(0, 255)))
                return self._random.choice(("", terminal.literal, " ", "\n", "\r\n \t\f\v\n"))

    def _value(self, terminal: ir.Terminal) -> str:
        if terminal.kind is not ir.TerminalKind.TEXT:
            return self._draw(self._shape.values[terminal.name])
        text = self._draw(self._limits.text)
        if self._pattern is not None and self._continues(text):
            text = f" {text}"
        return text

    def _continues(self, text: str) -> bool:
        """Whether the value just written could be read as longer when `text` follows it."""
        pattern, value = self._pattern, self._parts[-1]
        assert pattern is not None
        return any(pattern.fullmatch(value + text[:n]) for n in range(1, len(text) + 1))

    def _bound_value(self, terminal: ir.Terminal, block: ir.Block, item: list[str]) -> str:
        if terminal.kind is ir.TerminalKind.TEXT:
            return self._value(terminal).strip(WHITE_SPACE)
        kinds = [self._shape.grammar.terminals[name].kind for name in block.bound[: len(item)]]
        if terminal.kind is not ir.TerminalKind.REGULAR or ir.TerminalKind.REGULAR in kinds:
            return self._value(terminal)
        slot = len(item)
        used = {values[slot] for values in self._listed[block.index]}
        number = str(len(self._listed[block.index]) + 1)
        if self._numbered and number not in used and value_pattern(terminal).fullmatch(number):
            return number
        for _ in range(LABEL_TRIES):
            value = self._value(terminal)
            if value not in used:
                return value
        raise _NoLabel

    def _choose(self, node: ir.Alt) -> ir.Node:
        options = node.options
        if self._deep():
            flat = tuple(option for option in options if not self._shape.deepens(option))
            options = flat or (min(options, key=lambda o: height(o, self._shape.heights)),)
        if len(options) == 1:
            return options[0]
        return options[self._draw(st.integers(0, len(options) - 1))]

    def _repeat(self, node: ir.Repeat) -> None:
        for index in range(self._turns(node)):
            parts, tags, stack = len(self._parts), len(self._tags), len(self._stack)
            try:
                self._write(node.node)
            except _NoLabel:
                if index < node.low:
                    reject()
                del self._parts[parts:], self._tags[tags:], self._stack[stack:]
                self._item = None
                return

    def _turns(self, node: ir.Repeat) -> int:
        most = self._limits.max_items
        if self._shape.deepens(node.node):
            most = 0 if self._deep() else min(most, self._limits.max_blocks - self._blocks)
        most = max(most, node.low)
        if node.high is not None:
            most = min(most, node.high)
        return node.low if most == node.low else self._draw(st.integers(node.low, most))

    def _deep(self) -> bool:
        """Whether nothing more may be opened than the schema demands."""
        again = len(self._stack) - len(set(self._stack))
        deep = self._depth >= self._limits.max_depth or again > 2 * self._limits.max_depth
        return deep or self._blocks >= self._limits.max_blocks

    def _rule(self, name: str) -> None:
        grammar = self._shape.grammar
        is_item = self._map is not None and self._item is None and self._map.item == name
        if is_item:
            self._item = []
        self._stack.append(name)
        self._write(grammar.rules[name].node)
        self._stack.pop()
        if is_item and self._map is not None and self._item is not None:
            self._listed[self._map.index].append(tuple(self._item))
            self._item = None

    def _list(self, node: ir.MapNode) -> None:
        outer = self._map, self._item
        self._map, self._item = node.block, None
        self._listed[node.block.index] = []
        self._numbered = not node.block.bound or self._draw(st.integers(0, 4)) > 0
        self._write(node.node)
        self._map, self._item = outer

    def _fork(self, node: ir.ForkNode) -> None:
        block = node.block
        self._blocks += 1
        if block.item is None:
            turns = ir.Repeat(node.branch, block.low, block.high, block.span)
            items: list[tuple[str, ...]] = [()] * self._turns_of_fork(turns)
        else:
            items = self._listed[block.index]
        outer = self._map, self._item, self._forced
        self._map = self._item = None
        self._depth += 1
        for item in items:
            self._forced = list(zip(block.bound, item, strict=True))
            self._write(node.branch)
        self._depth -= 1
        self._map, self._item, self._forced = outer

    def _turns_of_fork(self, turns: ir.Repeat) -> int:
        most = max(turns.low, self._limits.max_items)
        if turns.high is not None:
            most = min(most, turns.high)
        return turns.low if most == turns.low else self._draw(st.integers(turns.low, most))
