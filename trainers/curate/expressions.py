"""Expressions in a text: what its formulas state as results, and every part of what they use.

A formula is cut at its relations into sides; a side is read by `math-verify`, and each part of it
that is more than a number, a name or one operation becomes a *key*, the same for every way to write
it that sympy knows. Whole numbers and names are left to `isolation`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import sympy

from nprdsl.trainers.grading.limit import within
from nprdsl.trainers.grading.spelling import is_large, plain
from nprdsl.trainers.grading.symbolic import attempt, read

SECONDS: Final = 5.0  # for one side of a formula
_LONGEST: Final = 300  # characters of a side that is read
_OPERATIONS: Final = 3  # from which an expression is taken to be one and the same
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
    value = node.doit()
    quotient = value.free_symbols and value.is_rational_function()
    value = sympy.cancel(value) if quotient else sympy.expand(value)
    if value.is_Rational:  # a number, which may be reached in many ways
        return ""
    return str(value) if not value.is_Atom and node.count_ops() >= _OPERATIONS else ""
