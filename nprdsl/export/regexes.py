"""Regular expressions as values, read from Python's syntax and written in that of Rust's `regex`.

`\\d`, `\\w`, `\\s` are ASCII classes in a schema and Unicode ones in Rust, so every class is
written out as ranges. outlines-core and llguidance read the Rust syntax; xgrammar's EBNF is written
from the same values (`nprdsl.export.xgrammar`).
Non-goals: matching (see `nprdsl.regular`).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

LAST: Final = 0x10FFFF
_SURROGATES: Final = (0xD800, 0xDFFF)
_SYNTAX: Final = frozenset(r"\.+*?()|[]{}^$#&-~/")
_CONTROL: Final = {"\n": r"\n", "\t": r"\t", "\r": r"\r", "\f": r"\x0c", "\v": r"\x0b"}
_parser: Final[Any] = importlib.import_module("re._parser")
_constants: Final[Any] = importlib.import_module("re._constants")


class UnsupportedRegexError(ValueError):
    """A construct that is not regular, or that no target states."""


@dataclass(frozen=True, slots=True)
class Chars:
    """One character out of `ranges`: sorted, disjoint, ends included, without surrogates."""

    ranges: tuple[tuple[int, int], ...]


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


def chars(ranges: Iterable[tuple[int, int]]) -> Chars:
    """The union of `ranges`, surrogates left out."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(_without_surrogates(ranges)):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return Chars(tuple(merged))


def _without_surrogates(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    first, last = _SURROGATES
    parts = []
    for low, high in ranges:
        parts += [(low, min(high, first - 1)), (max(low, last + 1), high)]
    return [(low, high) for low, high in parts if low <= high]


def one_of(text: str) -> Chars:
    return chars((ord(c), ord(c)) for c in text)


def complement(excluded: Chars) -> Chars:
    """Every character that is not in `excluded`."""
    gaps, at = [], 0
    for low, high in excluded.ranges:
        gaps.append((at, low - 1))
        at = high + 1
    return chars([(low, high) for low, high in [*gaps, (at, LAST)] if low <= high])


def literal(text: str) -> Regex:
    return concat(*(one_of(c) for c in text))


def concat(*parts: Regex) -> Regex:
    flat: list[Regex] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Concat) else [part])
    return flat[0] if len(flat) == 1 else Concat(tuple(flat))


def union(*options: Regex) -> Regex:
    """A choice, nothing last; equal options are one, single characters become one class.

    The order matters to outlines-core, whose automata stop at the first option that is complete.
    """
    singles = [option for option in options if isinstance(option, Chars)]
    kept = dict.fromkeys(options)
    others: list[Regex] = [o for o in kept if not isinstance(o, Chars) and o != EMPTY]
    if singles:
        others = [chars(r for single in singles for r in single.ranges), *others]
    if not others:
        return EMPTY
    found = others[0] if len(others) == 1 else Union(tuple(others))
    return Times(found, 0, 1) if EMPTY in options else found


# -- reading Python's syntax ------------------------------------------------------------------


def parse(pattern: str) -> Regex:
    """The value of a terminal's `pattern` (`re.ASCII`, full match)."""
    tree = _parser.parse(pattern, re.ASCII)
    return _sequence(tree, tree.state.flags)


def _sequence(tree: Any, flags: int) -> Regex:
    return concat(*(_node(code, value, flags) for code, value in tree))


def _node(code: Any, value: Any, flags: int) -> Regex:
    match str(code):
        case "LITERAL":
            return _letter(value, flags)
        case "NOT_LITERAL":
            return complement(_letter(value, flags))
        case "ANY":
            return complement(chars([] if flags & re.DOTALL else [(10, 10)]))
        case "IN":
            return _class(value, flags)
        case "BRANCH":
            return union(*(_sequence(option, flags) for option in value[1]))
        case "SUBPATTERN":
            _, added, removed, inner = value
            return _sequence(inner, (flags | added) & ~removed)
        case "ATOMIC_GROUP":
            return _sequence(value, flags)
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            low, high, inner = value
            most = None if high == _constants.MAXREPEAT else int(high)
            return Times(_sequence(inner, flags), int(low), most)
        case "AT" if value in (_constants.AT_BEGINNING, _constants.AT_END):
            return EMPTY
        case other:
            raise UnsupportedRegexError(f"`{other.lower()}` in a regex cannot be exported")


def _letter(code: int, flags: int) -> Chars:
    """One character, in both cases where case is ignored (ASCII only, as `re.ASCII` has it)."""
    letter = chr(code)
    if flags & re.IGNORECASE and letter.isascii():
        return one_of(letter.lower() + letter.upper())
    return one_of(letter)


def _class(members: Any, flags: int) -> Chars:
    negated, found = False, []
    for code, value in members:
        match str(code):
            case "NEGATE":
                negated = True
            case "RANGE":
                low, high = value
                found.append((low, high))
                if flags & re.IGNORECASE:
                    found.extend(_other_case(low, high))
            case "LITERAL":
                found.extend(_letter(value, flags).ranges)
            case "CATEGORY":
                found.extend(_category(str(value)).ranges)
    result = chars(found)
    return complement(result) if negated else result


def _other_case(low: int, high: int) -> list[tuple[int, int]]:
    codes = [ord(chr(c).swapcase()) for c in range(low, min(high, 127) + 1) if chr(c).isalpha()]
    return [(code, code) for code in codes]


def _category(name: str) -> Chars:
    kind = name.removeprefix("CATEGORY_").removeprefix("NOT_")
    members = {
        "DIGIT": [(48, 57)],
        "SPACE": [(9, 13), (32, 32)],
        "WORD": [(48, 57), (65, 90), (95, 95), (97, 122)],
    }
    found = chars(members[kind])
    return complement(found) if "_NOT_" in name else found


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


def compact(found: Chars) -> tuple[bool, tuple[tuple[int, int], ...]]:
    """Whether the class is shorter when negated, and the ranges to write."""
    inverse = complement(found).ranges
    if found.ranges and found.ranges[-1][1] == LAST:
        return True, inverse
    return False, found.ranges


def _rust_class(found: Chars) -> str:
    negated, ranges = compact(found)
    if not ranges:
        return r"(?s:.)" if negated else "[^\\x{0}-\\x{10ffff}]"
    members = (
        escape(chr(low)) if low == high else f"{escape(chr(low))}-{escape(chr(high))}"
        for low, high in ranges
    )
    return f"[{'^' if negated else ''}{''.join(members)}]"
