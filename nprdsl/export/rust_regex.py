"""Regular expressions in the syntax of Rust's `regex`, which outlines-core and llguidance read.

`\\d`, `\\w`, `\\s` are ASCII classes in a schema and Unicode ones in Rust, so every class is
written out as ranges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nprdsl.regular.codepoints import EVERYTHING
from nprdsl.regular.syntax import Chars, Concat, Regex, Times, Union, complement, quantifier

_SYNTAX: Final = frozenset(r"\.+*?()|[]{}^$#&-~/")
_CONTROL: Final = {"\n": r"\n", "\t": r"\t", "\r": r"\r", "\f": r"\x0c", "\v": r"\x0b"}
_LAST: Final = EVERYTHING[-1][1]


def to_rust(regex: Regex) -> str:
    match regex:
        case Chars(ranges=((low, high),)) if low == high:
            return escape(chr(low))
        case Chars(ranges=()):
            return r"[^\x{0}-\x{10ffff}]"
        case Chars() if regex.ranges == EVERYTHING:
            return r"(?s:.)"
        case Chars():
            return bracketed(regex, escape)
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


def bracketed(chars: Chars, escape: Callable[[str], str]) -> str:
    """The class in brackets, negated where that is shorter; `escape` writes one character."""
    negated = bool(chars.ranges) and chars.ranges[-1][1] == _LAST
    ranges = complement(chars).ranges if negated else chars.ranges
    members = (
        escape(chr(low)) if low == high else f"{escape(chr(low))}-{escape(chr(high))}"
        for low, high in ranges
    )
    return f"[{'^' if negated else ''}{''.join(members)}]"
