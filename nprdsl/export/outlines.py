"""Writes a linear grammar as one regular expression (as outlines-core 0.2.14 reads it).

A regular expression cannot refer to itself, so blocks inside blocks are written out to a fixed
depth. An upper bound of a repetition is dropped where it would take too many copies. There is no
lookahead either, so free text is the expression of an automaton that follows the letters of the
tags (see `nprdsl.export.freetext`). outlines-core has no notion of special tokens, but takes any
bytes for a token: a tag that is a special token is written as a private-use character (from U+E000
on), which whoever uses the export gives to that token as its bytes.

Two faults of outlines-core up to 0.2.14 remain. It refuses some tokens that the expression allows,
since its automaton stops one byte behind a state that could end; and where tags are text, it
compiles a large vocabulary for minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from nprdsl.export.exported import Export, ExportError, ExportLimits, Special, Target
from nprdsl.export.freetext import OPEN, START, free_text, text_regex
from nprdsl.export.linear import LinearGrammar
from nprdsl.export.rust_regex import to_rust
from nprdsl.grammar.ir import Alt, Field, Literal, Node, Ref, Repeat, Seq, Tag, TerminalKind
from nprdsl.grammar.walk import below
from nprdsl.regular.syntax import Concat, Regex, Times, Union, concat, literal, parse, union

_FIRST_STAND_IN: Final = 0xE000
_LONGEST: Final = 1_000_000  # characters; outlines-core needs gigabytes for more


def to_outlines(
    linear: Callable[[ExportLimits], LinearGrammar], special: Special, limits: ExportLimits
) -> Export:
    """`special`: the tags that are special tokens; `Export.stand_ins` names their characters.

    `linear` gives the language under some limits: depth and items are lowered from `limits` until
    the expression has at most a million characters.
    """
    for lower in _lowered(limits):
        export = _export(linear(lower), special, lower)
        if export is not None:
            return export
    raise ExportError(
        f"the regular expression of `{linear(limits).start}` has more than {_LONGEST} characters "
        "at any number of items; export to xgrammar or llguidance"
    )


def _lowered(limits: ExportLimits) -> Iterator[ExportLimits]:
    for depth in range(limits.depth, -1, -1):
        for items in range(limits.items, min(limits.items, 3) - 1, -1):
            yield replace(limits, depth=depth, items=items)


def _export(linear: LinearGrammar, special: Special, limits: ExportLimits) -> Export | None:
    """None where the expression is too long."""
    own = [tag for tag in linear.tags if tag in special]
    stand_ins = {tag: chr(_FIRST_STAND_IN + index) for index, tag in enumerate(own)}
    writer = _OutlinesWriter(linear, stand_ins, limits)
    regex = writer.whole()
    if regex is None or _length(regex, {}) > _LONGEST:
        return None
    lost = [*linear.lost, *writer.lost]
    if stand_ins:
        lost.append("a tag's stand-in may be spelled byte by byte where its token may stand")
    return Export(to_rust(regex), Target.OUTLINES, tuple(lost), stand_ins)


def _length(regex: Regex, known: dict[int, int]) -> int:
    """About the length of the written expression; shared parts are measured once."""
    if id(regex) not in known:
        match regex:
            case Concat(parts=parts) | Union(options=parts):
                length = 4 + sum(_length(part, known) for part in parts)
            case Times(regex=inner):
                length = 6 + _length(inner, known)
            case _:
                length = 1
        known[id(regex)] = length
    return known[id(regex)]


class _OutlinesWriter:
    def __init__(
        self, linear: LinearGrammar, stand_ins: Mapping[str, str], limits: ExportLimits
    ) -> None:
        self._linear = linear
        self._stand_ins = stand_ins
        self._limits = limits
        spelled = [tag for tag in linear.tags if limits.exact_text or tag not in stand_ins]
        text = free_text(spelled, "".join(stand_ins.values()))
        self._text = text_regex(text, START if limits.exact_text else OPEN)
        self._may_spell = len(spelled) < len(linear.tags)
        self._recursive = {name for name in linear.rules if name in below(name, linear.rules)}
        self._made: dict[tuple[str, tuple[str, ...]], Regex | None] = {}
        self.lost: dict[str, None] = {}

    def whole(self) -> Regex | None:
        return self._rule(self._linear.start, ())

    def _rule(self, rule: str, inside: tuple[str, ...]) -> Regex | None:
        """None where the rule is nested too deeply to be written out."""
        if rule in self._recursive:
            origin = self._linear.origin[rule]
            if inside.count(origin) > self._limits.depth:
                deep = self._limits.depth
                self.lost[f"`{origin}` inside `{origin}` is written out {deep} deep"] = None
                return None
            inside = (*inside, origin)
        if (rule, inside) not in self._made:
            self._made[rule, inside] = self._node(self._linear.rules[rule], inside)
        return self._made[rule, inside]

    def _node(self, node: Node, inside: tuple[str, ...]) -> Regex | None:
        match node:
            case Tag(text=text):
                return literal(self._stand_ins.get(text, text))
            case Literal(text=text):
                return literal(text)
            case Field(terminal=terminal) if terminal.kind is TerminalKind.TEXT:
                self._lose_text()
                return self._text
            case Field(terminal=terminal):
                return parse(terminal.pattern)
            case Ref(rule=rule):
                return self._rule(rule, inside)
            case Seq(items=items):
                parts = [self._node(item, inside) for item in items]
                kept = [part for part in parts if part is not None]
                return concat(*kept) if len(kept) == len(parts) else None
            case Alt(options=options):
                ways = [self._node(option, inside) for option in options]
                written = [way for way in ways if way is not None]
                return union(*written) if written else None
            case Repeat():
                return self._repeat(node, inside)
            case _:
                raise AssertionError(node)

    def _lose_text(self) -> None:
        if not self._limits.exact_text:
            self.lost["free text may be blank or empty (`exact_text` forbids it)"] = None
        if self._may_spell:
            lost = "free text may spell a special tag in letters (`exact_text` forbids it)"
            self.lost[lost] = None

    def _repeat(self, node: Repeat, inside: tuple[str, ...]) -> Regex | None:
        inner = self._node(node.node, inside)
        if inner is None:
            return concat() if node.low == 0 else None
        high = node.high
        if high is not None and high > self._limits.repeats:
            self.lost[f"a repetition may go beyond its {high} turns"] = None
            high = None
        return Times(inner, node.low, high)
