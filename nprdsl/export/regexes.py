"""Regular expressions as values, read from Python's syntax and written in that of Rust's `regex`.

`\\d`, `\\w`, `\\s` are ASCII classes in a schema and Unicode ones in Rust, so every class is
written out as ranges. outlines-core and llguidance read the Rust syntax; xgrammar's EBNF is written
from the same values (`nprdsl.export.xgrammar`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from nprdsl.regular import codepoints
from nprdsl.regular.codepoints import DIGIT, EVERYTHING, SPACE, WORD, Ranges

_parser: Any = import_module("re._parser")
op: Any = import_module("re._constants")
_SYNTAX: Final = frozenset(r"\.+*?()|[]{}^$#&-~/")
_CONTROL: Final = {"\n": r"\n", "\t": r"\t", "\r": r"\r", "\f": r"\x0c", "\v": r"\x0b"}
_CATEGORIES: Final[dict[Any, Ranges]] = {
    op.CATEGORY_DIGIT: DIGIT,
    op.CATEGORY_SPACE: SPACE,
    op.CATEGORY_WORD: WORD,
    op.CATEGORY_NOT_DIGIT: codepoints.complement(DIGIT),
    op.CATEGORY_NOT_SPACE: codepoints.complement(SPACE),
    op.CATEGORY_NOT_WORD: codepoints.complement(WORD),
}
_LAST: Final = EVERYTHING[-1][1]


@dataclass(frozen=True, slots=True)
class Chars:
    """One character out of `ranges`."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Concat:
    parts: tuple[Regex, ...]


@dataclass(frozen=True, slots=True)
class Union:
    options: tuple[Regex, ...]


@dataclass(frozen=True, slots=True)
class Times:
    regex: Regex
    low: int
    high: int | None


Regex = Chars | Concat | Union | Times
EMPTY: Final = Concat(())


def one_of(text: str) -> Chars:
    return Chars(codepoints.union((ord(c), ord(c)) for c in text))


def either(options: Iterable[Chars]) -> Chars:
    return Chars(codepoints.union(r for option in options for r in option.ranges))


def complement(excluded: Chars) -> Chars:
    """Every character that is not in `excluded`."""
    return Chars(codepoints.complement(excluded.ranges))


def literal(text: str) -> Regex:
    return concat(*(one_of(c) for c in text))


def concat(*parts: Regex) -> Regex:
    flat: list[Regex] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Concat) else [part])
    return flat[0] if len(flat) == 1 else Concat(tuple(flat))


def union(*options: Regex) -> Regex:
    """A choice, nothing last; single characters become one class.

    The order matters to outlines-core, whose automata stop at the first option that is complete.
    """
    singles = [option for option in options if isinstance(option, Chars)]
    others: list[Regex] = [o for o in options if not isinstance(o, Chars) and o != EMPTY]
    if singles:
        others = [either(singles), *others]
    if not others:
        return EMPTY
    found = others[0] if len(others) == 1 else Union(tuple(others))
    return Times(found, 0, 1) if EMPTY in options else found


# -- reading Python's syntax ------------------------------------------------------------------


def parse(pattern: str) -> Regex:
    """The value of a terminal's `pattern`, which `nprdsl.regular.dfa` has accepted."""
    tree = _parser.parse(pattern, re.ASCII)
    return _sequence(tree, tree.state.flags)


def _sequence(tree: Any, flags: int) -> Regex:
    return concat(*(_item(kind, value, flags) for kind, value in tree))


def _item(kind: Any, value: Any, flags: int) -> Regex:
    if kind is op.AT:
        return EMPTY  # only anchors that say nothing are accepted
    if kind is op.BRANCH:
        return union(*(_sequence(option, flags) for option in value[1]))
    if kind is op.SUBPATTERN:
        _, added, removed, inner = value
        return _sequence(inner, (flags | added) & ~removed)
    if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
        low, high, inner = value
        most = None if high is op.MAXREPEAT else int(high)
        return Times(_sequence(inner, flags), int(low), most)
    return Chars(_code_points(kind, value, flags))


def _code_points(kind: Any, value: Any, flags: int) -> Ranges:
    if kind is op.ANY:
        return EVERYTHING if flags & re.DOTALL else complement(one_of("\n")).ranges
    members = value if kind is op.IN else [(op.LITERAL, value)]
    negated = kind is op.NOT_LITERAL or (op.NEGATE, None) in members
    found = codepoints.union(r for member in members for r in _member(*member))
    if flags & re.IGNORECASE:
        found = codepoints.ignore_case(found)
    return codepoints.complement(found) if negated else found


def _member(kind: Any, value: Any) -> Ranges:
    if kind is op.NEGATE:
        return ()
    if kind is op.CATEGORY:
        return _CATEGORIES[value]
    low, high = value if kind is op.RANGE else (value, value)
    return ((low, high),)


# -- writing Rust's syntax --------------------------------------------------------------------


def to_rust(regex: Regex) -> str:
    match regex:
        case Chars(ranges=((low, high),)) if low == high:
            return escape(chr(low))
        case Chars():
            return _rust_class(regex)
        case Concat(parts=parts):
            return "".join(
                f"(?:{to_rust(p)})" if isinstance(p, Union) else to_rust(p) for p in parts
            )
        case Union(options=options):
            return "|".join(to_rust(option) for option in options)
        case Times(regex=inner, low=low, high=high):
            text = to_rust(inner)
            return (text if isinstance(inner, Chars) else f"(?:{text})") + quantifier(low, high)


def escape(letter: str) -> str:
    """One character in Rust's syntax, inside or outside a class."""
    if letter in _SYNTAX:
        return "\\" + letter
    if letter in _CONTROL:
        return _CONTROL[letter]
    return letter if letter.isprintable() else f"\\x{{{ord(letter):x}}}"


def quantifier(low: int, high: int | None) -> str:
    match low, high:
        case 0, 1:
            return "?"
        case 0, None:
            return "*"
        case 1, None:
            return "+"
        case _:
            return f"{{{low}}}" if low == high else f"{{{low},{'' if high is None else high}}}"


def compact(found: Chars) -> tuple[bool, Ranges]:
    """Whether the class is shorter when negated, and the ranges to write."""
    inverse = complement(found).ranges
    if found.ranges and found.ranges[-1][1] == _LAST:
        return True, inverse
    return False, found.ranges


def _rust_class(found: Chars) -> str:
    negated, ranges = compact(found)
    if not ranges:
        return r"(?s:.)" if negated else r"[^\x{0}-\x{10ffff}]"
    members = (
        escape(chr(low)) if low == high else f"{escape(chr(low))}-{escape(chr(high))}"
        for low, high in ranges
    )
    return f"[{'^' if negated else ''}{''.join(members)}]"
