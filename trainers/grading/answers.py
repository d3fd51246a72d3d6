"""The answer of a text, in one spelling: the last box, freed of what only changes its looks.

`plain` takes away delimiters, spacing commands and full stops, and writes degrees, grouped digits
and powers of ten in one way; the value is never changed. `number` is the value of what is no more
than a number.
"""

from __future__ import annotations

import re
from enum import StrEnum
from fractions import Fraction
from itertools import chain
from typing import Final

_BOXED: Final = re.compile(r"\\(?:boxed|fbox)\s*\{")
_NUMBER: Final = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")

# What is written in several ways, and the one way; applied in this order.
_SPELLINGS: Final = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:displaystyle|textstyle|limits)\b\s*", ""),
        (r"\\[Bb]igg?[lr]?(?=[()\[\]|\\])", ""),
        (r"\u2212", "-"),
        (r"\u03c0", r"\\pi "),
        (r"\^?\s*(?:\u00b0|\\degree\b)", r"^\\circ"),
        (r"(?<=\d),?(?:\\[,!;: ]\s*)+(?=\d{3}(?!\d))", ","),
        (r"(?<=\d)\s+dollars?$", ""),
        (r"_\s*\{?\s*\\text\s*\{\s*(\d+)\s*\}\s*\}?", r"_{\1}"),
        (r"(\d)\s*(?:\\cdot|\\times|\*)\s*i\b", r"\1i"),
    )
)
_SCIENTIFIC: Final = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))[eE]([+-]?\d+)")
_UNIT: Final = re.compile(
    r"(?:\\[,;: ]|~|\s)*\\(?:text|mathrm|mbox)\s*\{[^{}]*\}(?:\^\{?-?\d\}?)?$"
)
_VALUE: Final = re.compile(
    r"(?P<sign>[+-]?)\s*(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)"
    r"(?:\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{\s*(?P<braced>[+-]?\d+)\s*\}|(?P<bare>\d)))?"
)
_LARGEST: Final = 400  # powers of ten beyond are left to the caller
_STOP: Final = re.compile(r"(?<![.\s])\s*\.\s*$")
_DELIMITERS: Final = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("{", "}"))
_STYLED: Final = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}"
)


class Fallback(StrEnum):
    """What counts as the answer of a text in which nothing is boxed."""

    NONE = "none"
    LAST_NUMBER = "last_number"


def answer_of(text: str, fallback: Fallback = Fallback.NONE, marked: str = "") -> str | None:
    """The last boxed expression of a text, or what `fallback` allows; None if there is none.

    `marked` is the part of the text that its schema marks as the answer, "" if that is not known:
    what stands there goes before what stands elsewhere.
    """
    places = [marked, text] if marked else [text]
    boxed = (_last_box(place) for place in places)
    numbers = (_last_number(place) for place in places)
    ways = chain(boxed, numbers if fallback is Fallback.LAST_NUMBER else ())
    return next((answer for answer in ways if answer is not None), None)


def _last_box(text: str) -> str | None:
    answer = None
    for match in _BOXED.finditer(text):
        inner = _balanced(text, match.end())
        if inner is not None and inner.strip():
            answer = inner.strip()
    return answer


def _last_number(text: str) -> str | None:
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else None


def plain(expression: str) -> str:
    """The expression in one spelling."""
    spelling = _STOP.sub("", _undelimited(expression.strip()))
    for pattern, replacement in _SPELLINGS:
        spelling = pattern.sub(replacement, spelling)
    scientific = _SCIENTIFIC.fullmatch(spelling.strip())
    if scientific is not None:
        return rf"{scientific[1]} \times 10^{{{int(scientific[2])}}}"
    return _undelimited(spelling.strip())


def number(expression: str) -> Fraction | None:
    """The exact value of a decimal number, powers of ten included and units left out; None where an
    expression is anything else."""
    match = _VALUE.fullmatch(_UNIT.sub("", plain(expression)))
    if match is None:
        return None
    power = int(match["braced"] or match["bare"] or 0)
    if abs(power) > _LARGEST:
        return None
    value = Fraction(match["digits"].replace(",", "")) * Fraction(10) ** power
    return -value if match["sign"] == "-" else value


def words(expression: str) -> str:
    """The expression as words: without commands of style, with single spaces."""
    return " ".join(_STYLED.sub(r"\1", plain(expression)).split()).rstrip(".")


def _undelimited(expression: str) -> str:
    """Without `$…$`, `\\(…\\)` or braces around the whole."""
    for left, right in _DELIMITERS:
        inner = expression[len(left) : -len(right)]
        whole = expression.startswith(left) and expression.endswith(right)
        if whole and inner.strip() and left not in inner and not inner.endswith("\\"):
            return _undelimited(inner.strip())
        if whole and left == "{" and _balanced(expression, 1) == inner:
            return _undelimited(inner.strip())
    return expression


def _balanced(text: str, start: int) -> str | None:
    """What stands up to the brace that closes the one before `start`."""
    depth = 1
    for place in range(start, len(text)):
        if text[place] in "{}" and text[place - 1] != "\\":
            depth += 1 if text[place] == "{" else -1
            if not depth:
                return text[start:place]
    return None
