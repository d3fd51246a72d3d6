"""Expressions in a text: what its formulas state as results, and every part of what they use.

A formula is cut at its relations into sides; a side is read by `math-verify`, and each part of it
that is more than a number, a name or one operation becomes a *key*, the same for every way to write
it that sympy knows, and for its negative. Rational numbers are told by `numbers_of`, names are left
to `isolation`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

import sympy

from nprdsl.trainers.grading.limit import within
from nprdsl.trainers.grading.number_words import in_digits
from nprdsl.trainers.grading.quantities import exact
from nprdsl.trainers.grading.spelling import is_large, plain
from nprdsl.trainers.grading.symbolic import attempt, read

SECONDS: Final = 5.0  # for one side of a formula
_LONGEST: Final = 300  # characters of a side that is read
_OPERATIONS: Final = 3  # from which an expression is taken to be one and the same
_LARGE: Final = 10  # a whole number from which a root or a multiple of pi is
_FORMULA: Final = re.compile(
    r"\\begin\{(?P<env>align\*?|aligned|gather\*?|equation\*?)\}(?P<lines>.*?)\\end\{(?P=env)\}"
    r"|\$\$(?P<shown>.*?)\$\$|(?<!\\)\$(?P<inline>.*?)(?<!\\)\$"
    r"|\\\[(?P<bracket>.*?)\\\]|\\\((?P<round>.*?)\\\)",
    re.S,
)
_RELATION: Final = re.compile(
    r"=|<|>|\\(?:le|leq|ge|geq|lt|gt|approx|equiv|to|implies|Rightarrow)(?![A-Za-z])"
)
_BREAK: Final = re.compile(r"\\\\(?:\[[^\]]*\])?|\\quad|\\qquad|\\text\s*\{[^{}]*\}")
_STATED: Final = re.compile(r"\b(?:is|are|get|gives?|obtain|equals?|becomes?|yields?)\s*:?\s*$")
_NUMBER: Final = re.compile(
    r"\\[dt]?frac\s*\{\d+\}\s*\{\d+\}|(?<![\w./^])(?:\d+/\d+"
    r"|(?:\d+(?:(?:,|\{,\}|,\\!)\d{3})+|\d+)(?:\.\d+)?"
    r"(?:\s*\\(?:times|cdot)\s*10\s*\^\s*(?:\{\s*-?\d+\s*\}|\d)|\s*(?P<times>thousand|million|billion)\b)?)"
    r"(?![\w/])"
)
_TIMES: Final = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_COMPUTED: Final = re.compile(
    r"(?:=|\b(?:is|get|gives?|obtain|find|equals?|becomes?|yields?)\b)\s*\$?\s*-?\s*$"
)
_DIGITS: Final = 3  # from which a number is taken to be one and the same


@dataclass(frozen=True, slots=True)
class Number:
    """A rational number of a text: its value, how it is written, what stands before it,
    and whether it is stated as a result."""

    value: Fraction
    shown: str
    before: str
    computed: bool


def numbers_of(text: str) -> Iterator[Number]:
    """The numbers of a text without signs: as digits, words, decimals, fractions and powers of
    ten. Few digits are no result: anybody may write them."""
    text = in_digits(text)
    for match in _NUMBER.finditer(text):
        shown, times = match[0], match["times"]
        value = exact(plain(shown.removesuffix(times or "").strip()))
        if value is not None:
            before = text[: match.start()]
            own = sum(map(str.isdigit, re.sub(r"10\s*\^.*", "", shown))) >= _DIGITS
            computed = own and bool(_COMPUTED.search(before))
            yield Number(value * _TIMES.get(times or "", 1), shown, before, computed)


def parts_of(text: str) -> frozenset[str]:
    """The keys of all expressions in a text, and of their parts."""
    return frozenset(key for side, _ in _sides(text) for key in _keys(side))


def results_of(text: str) -> frozenset[str]:
    """The keys of what a text states as a result: what stands behind `=`, or behind `is`."""
    return frozenset(
        key for side, result in _sides(text) if result for key in _keys(side)[:1] if key
    )


def written(text: str, key: str) -> str:
    """How a text writes the expression that has this key, as far as it is one side; "" where it is
    within one."""
    return next((side for side, _ in _sides(text) if _keys(side)[:1] == (key,)), "")


@lru_cache(maxsize=1024)
def _sides(text: str) -> tuple[tuple[str, bool], ...]:
    """The sides of all formulas, and whether each is stated as a result."""
    return tuple(_each_side(text))


def _each_side(text: str) -> Iterator[tuple[str, bool]]:
    for match in _FORMULA.finditer(text):
        texts = (text for name, text in match.groupdict().items() if name != "env" and text)
        formula = next(texts, "")
        behind = bool(_STATED.search(text[: match.start()]))
        for line in _BREAK.split(formula.replace("&", " ")):
            sides = _RELATION.split(line)
            signs = [m[0] for m in _RELATION.finditer(line)]
            for number, side in enumerate(sides):
                result = behind if not number else signs[number - 1] == "="
                shown = side.strip().strip(",.;").strip()
                if shown:
                    yield shown, result


@lru_cache(maxsize=4096)
def _keys(side: str) -> tuple[str, ...]:
    """The keys of an expression and its parts, that of the whole first; "" for a whole that has
    none, nothing where it cannot be read."""
    spelling = plain(side)
    if len(spelling) > _LONGEST or is_large(spelling) or not re.search(r"\d|\\", spelling):
        return ()
    nothing: tuple[str, ...] = ()
    return within(SECONDS, lambda: attempt(lambda: _read_keys(spelling), nothing), nothing)


def _read_keys(spelling: str) -> tuple[str, ...]:
    whole = read(spelling)
    if not isinstance(whole, sympy.Expr):
        return ()
    keys = [_key(node) for node in sympy.preorder_traversal(whole)]
    return (keys[0], *(key for key in keys[1:] if key))


def _key(node: Any) -> str:
    """How sympy writes an expression, "" for one that is too plain to be known again."""
    if not isinstance(node, sympy.Expr) or node.is_Atom:
        return ""
    value = _plainest(node)
    if value.is_Rational:  # a number, which may be reached in many ways
        return ""
    if value.is_Atom or not (node.count_ops() >= _OPERATIONS or _is_own(value)):
        return ""
    return min(str(value), str(_plainest(-node)))  # a sign may have gone elsewhere


def _plainest(node: Any) -> Any:
    value = node.doit()
    quotient = value.free_symbols and value.is_rational_function()
    return sympy.cancel(value) if quotient else sympy.expand(value)


def _is_own(value: Any) -> bool:
    """Whether a number with roots or pi in it is not one that anybody would write."""
    plain = value.is_number and not value.has(sympy.Function)
    return plain and any(abs(n.p) >= _LARGE for n in value.atoms(sympy.Rational))
