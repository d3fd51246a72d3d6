"""Python regex syntax to a Glushkov automaton over bytes (Glushkov 1961).

The standard library parses; this module rejects what is not regular, spells code points in UTF-8,
and computes, for every position of the regex, its byte set and the positions that may follow. Flags
are those of `re.ASCII`: ASCII classes and, with `(?i)`, ASCII letters only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple

from nprdsl.regular.codepoints import (
    DIGIT,
    EVERYTHING,
    SPACE,
    WORD,
    ByteTree,
    Ranges,
    byte_tree,
    complement,
    ignore_case,
    union,
)

# The standard library's parser has no public name (`sre_parse` until Python 3.10).
_parser: Any = import_module("re._parser")
op: Any = import_module("re._constants")

STATE_LIMIT = 20_000
END = 1  # the bit of position 0, which stands for the end of the text

_NEWLINE: Ranges = ((0x0A, 0x0A),)
_CATEGORIES: dict[Any, Ranges] = {
    op.CATEGORY_DIGIT: DIGIT,
    op.CATEGORY_SPACE: SPACE,
    op.CATEGORY_WORD: WORD,
    op.CATEGORY_NOT_DIGIT: complement(DIGIT),
    op.CATEGORY_NOT_SPACE: complement(SPACE),
    op.CATEGORY_NOT_WORD: complement(WORD),
}
# What cannot be stated by a byte automaton: how it is written, its name, the way out.
_REFUSED: dict[Any, tuple[str, str, str]] = {
    op.ASSERT: (r"\(\?<?=", "lookaround", "write the alternatives out, or check the value later"),
    op.ASSERT_NOT: (r"\(\?<?!", "lookaround", "write the alternatives out, or use `[^…]`"),
    op.FAILURE: (r"\(\?!", "lookaround", "leave the alternative out"),
    op.GROUPREF: (r"\\[1-9]|\(\?P=", "a backreference", "repeat the group's pattern"),
    op.GROUPREF_EXISTS: (r"\(\?\((?!\?)", "a conditional group", "write both cases out with `|`"),
    op.ATOMIC_GROUP: (r"\(\?>", "an atomic group", "use `(?:…)`"),
    op.POSSESSIVE_REPEAT: (r"(?<=[*+?}])\+", "a possessive quantifier", "drop its `+`"),
}
_BOUNDARIES = (op.AT_BOUNDARY, op.AT_NON_BOUNDARY)
_ANCHOR = r"[\^$]|\\[AZbB]"
_STARTS = (op.AT_BEGINNING, op.AT_BEGINNING_STRING)
_ENDS = (op.AT_END, op.AT_END_STRING)


class RegexError(ValueError):
    """A regex that is malformed or not regular; `position` counts characters from 0."""

    def __init__(self, message: str, pattern: str, position: int | None = None) -> None:
        self.message, self.pattern, self.position = message, pattern, position
        place = "" if position is None else f" at position {position}"
        super().__init__(f"{message}{place} of /{pattern}/")


@dataclass(frozen=True, slots=True)
class Positions:
    """`first` and `follow[p]` are sets of positions, `bytes[p]` of bytes, written as bits."""

    first: int
    follow: tuple[int, ...]
    bytes: tuple[int, ...]


def positions(pattern: str) -> Positions:
    """The positions of `pattern`; position 0 is the end of the text. Raises RegexError."""
    try:
        tree = _parser.parse(pattern, re.ASCII)
        _reject_irregular(tree, pattern)
        builder = _Builder(pattern)
        whole = builder.sequence(tree, tree.state.flags)
    except re.error as error:
        raise RegexError(error.msg, pattern, error.pos) from None
    except ValueError as error:
        if isinstance(error, RegexError):
            raise
        raise RegexError(f"{error}; drop the flag, classes are ASCII", pattern) from None
    except OverflowError:
        raise RegexError(_too_large(), pattern) from None
    except RecursionError:
        raise RegexError("groups are nested too deeply; flatten them", pattern) from None
    for place in bits(whole.last):
        builder.follow[place] |= END
    first = whole.first | (END if whole.nullable else 0)
    return Positions(first, tuple(builder.follow), tuple(builder.bytes))


def bits(members: int) -> Iterator[int]:
    """The members of a set that is written as the bits of an integer, ascending."""
    while members:
        low = members & -members
        yield low.bit_length() - 1
        members ^= low


def _too_large() -> str:
    return (
        f"the regex needs more than {STATE_LIMIT:,} states; use smaller counts in `{{m,n}}`, "
        "or `*` where there need be no limit"
    )


class _Fragment(NamedTuple):
    """A part of a regex: can it be empty, and which positions begin and end it."""

    nullable: bool
    first: int
    last: int


_EMPTY = _Fragment(True, 0, 0)
_NOTHING = _Fragment(False, 0, 0)


@dataclass(slots=True)
class _Builder:
    pattern: str
    bytes: list[int] = field(default_factory=lambda: [0])
    follow: list[int] = field(default_factory=lambda: [0])

    def sequence(self, items: Iterable[tuple[Any, Any]], flags: int) -> _Fragment:
        whole = _EMPTY
        for kind, value in items:
            whole = self.join(whole, self.item(kind, value, flags))
        return whole

    def item(self, kind: Any, value: Any, flags: int) -> _Fragment:
        if kind is op.AT:
            return _EMPTY  # only redundant anchors are left
        if kind is op.BRANCH:
            return _either([self.sequence(option, flags) for option in value[1]])
        if kind is op.SUBPATTERN:
            _, added, removed, inner = value
            return self.sequence(inner, (flags | added) & ~removed)
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            low, high, inner = value
            return self.repeat(low, high, inner, flags)
        return self.characters(byte_tree(_code_points(kind, value, flags)))

    def repeat(self, low: int, high: int, inner: Any, flags: int) -> _Fragment:
        unlimited = high is op.MAXREPEAT
        rest = _EMPTY
        if unlimited and low == 0:
            rest = _optional(self.loop(self.sequence(inner, flags)))
        elif not unlimited:
            # x{0,3} is (x(x(x)?)?)?, which keeps every `follow` small
            for _ in range(high - low):
                rest = _optional(self.join(self.sequence(inner, flags), rest))
        whole = _EMPTY
        for copy in range(low):
            part = self.sequence(inner, flags)
            whole = self.join(whole, self.loop(part) if unlimited and copy == low - 1 else part)
        return self.join(whole, rest)

    def characters(self, tree: ByteTree) -> _Fragment:
        return _either(
            [
                self.join(self.characters(before), self.leaf(last)) if before else self.leaf(last)
                for before, last in tree
            ]
        )

    def leaf(self, members: int) -> _Fragment:
        if len(self.bytes) > STATE_LIMIT:
            raise RegexError(_too_large(), self.pattern)
        self.bytes.append(members)
        self.follow.append(0)
        place = 1 << len(self.bytes) - 1
        return _Fragment(False, place, place)

    def join(self, left: _Fragment, right: _Fragment) -> _Fragment:
        for place in bits(left.last):
            self.follow[place] |= right.first
        return _Fragment(
            left.nullable and right.nullable,
            left.first | right.first if left.nullable else left.first,
            left.last | right.last if right.nullable else right.last,
        )

    def loop(self, part: _Fragment) -> _Fragment:
        for place in bits(part.last):
            self.follow[place] |= part.first
        return part


def _either(options: list[_Fragment]) -> _Fragment:
    nullable, first, last = _NOTHING
    for option in options:
        nullable, first, last = (
            nullable or option.nullable,
            first | option.first,
            last | option.last,
        )
    return _Fragment(nullable, first, last)


def _optional(part: _Fragment) -> _Fragment:
    return part._replace(nullable=True)


def _code_points(kind: Any, value: Any, flags: int) -> Ranges:
    if kind is op.ANY:
        return EVERYTHING if flags & re.DOTALL else complement(_NEWLINE)
    members = value if kind is op.IN else [(op.LITERAL, value)]
    negated = kind is op.NOT_LITERAL
    ranges: list[tuple[int, int]] = []
    for member, argument in members:
        if member is op.NEGATE:
            negated = True
        elif member is op.LITERAL:
            ranges.append((argument, argument))
        elif member is op.RANGE:
            ranges.append(argument)
        else:
            ranges.extend(_CATEGORIES[argument])
    found = union(ranges)
    if flags & re.IGNORECASE:
        found = ignore_case(found)
    return complement(found) if negated else found


def _reject_irregular(tree: Any, pattern: str) -> None:
    """Raise RegexError for the first construct that is not regular."""
    anchors = _places(pattern, _ANCHOR)

    def visit(items: Any, at_start: bool, at_end: bool) -> None:
        items = list(items)
        solid = [i for i, (kind, _) in enumerate(items) if kind is not op.AT]
        for i, (kind, value) in enumerate(items):
            begins = at_start and (not solid or i <= solid[0])
            ends = at_end and (not solid or i >= solid[-1])
            if kind in _REFUSED:
                spelling, name, way_out = _REFUSED[kind]
                place = next(_places(pattern, spelling), None)
                raise RegexError(f"{name} is not supported: {way_out}", pattern, place)
            if kind is op.AT:
                _check_anchor(value, begins, ends, pattern, next(anchors, None))
            elif kind is op.BRANCH:
                for option in value[1]:
                    visit(option, begins, ends)
            elif kind is op.SUBPATTERN:
                visit(value[3], begins, ends)
            elif kind in (op.MAX_REPEAT, op.MIN_REPEAT):
                once = value[1] == 1
                visit(value[2], begins and once, ends and once)

    visit(tree, at_start=True, at_end=True)


def _check_anchor(kind: Any, begins: bool, ends: bool, pattern: str, place: int | None) -> None:
    if kind in _BOUNDARIES:
        raise RegexError(
            "a word boundary is not supported: write out which characters stand there",
            pattern,
            place,
        )
    if (kind in _STARTS and not begins) or (kind in _ENDS and not ends):
        raise RegexError(
            "an anchor inside a pattern never matches there: drop it, or escape it "
            "(a pattern matches the whole text without anchors)",
            pattern,
            place,
        )


def _places(pattern: str, spelling: str) -> Iterator[int]:
    """Where `spelling` stands outside of classes, and not as an escaped character."""
    token = re.compile(rf"(?P<hit>{spelling})|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)
    return (m.start() for m in token.finditer(pattern) if m["hit"])
