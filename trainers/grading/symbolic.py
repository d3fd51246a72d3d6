"""Equality of mathematical expressions, by `math-verify` and sympy.

Asked about expressions that hold nothing but mathematics, in one spelling. Decimal numbers count
with the value that they show: `1.414214` is not the root of 2.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final, TypeVar

import sympy
from math_verify import LatexExtractionConfig, parse, verify

from nprdsl.trainers.grading.quantities import EXACT, Tolerance

Value = TypeVar("Value")
_LATEX: Final = (LatexExtractionConfig(boxed_match_priority=0),)
_COMMAND: Final = re.compile(r"\\[A-Za-z]+")
_WORD: Final = re.compile(r"[A-Za-z]{3,}")
_FUNCTIONS: Final = frozenset(
    ("sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "sqrt", "max", "min", "gcd", "lcm",
     "abs", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "deg", "det", "dim")
)  # fmt: skip
_APART: Final = re.compile(r"(?<![_\d])\d+\s+\d|\d\s+\\frac|\.\d*\.")
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
_DIGITS: Final = 60
_ZERO: Final = Fraction(1, 10**40)  # of values that are smaller than
_LARGEST: Final = 10**12

logging.getLogger("math_verify").setLevel(logging.CRITICAL)


def equal(given: str, wanted: str, tolerance: Tolerance = EXACT) -> bool:
    """Whether two expressions are equal, or as near as allowed."""
    said = _words(given)
    if said != _words(wanted) or any(map(_APART.search, (given, wanted))):
        return False
    if said and _numbers(given) != _numbers(wanted):
        return False
    return attempt(lambda: _equal(given, wanted, tolerance), failed=False)


def attempt(call: Callable[[], Value], failed: Value) -> Value:
    """What `call` makes of expressions by sympy, or `failed` where that raises."""
    try:
        return call()
    except Exception:  # of any kind: what cannot be worked out is nothing
        return failed


def _equal(given: str, wanted: str, tolerance: Tolerance) -> bool:
    one, other = read(given), read(wanted)
    if one is None or other is None:
        return False
    relations = all(isinstance(side, sympy.core.relational.Relational) for side in (one, other))
    if relations and _names(one) != _names(other):
        return False
    values = _values(one), _values(other)
    if all(values) and max(map(abs, (*values[0], *values[1]))) < _LARGEST:
        return _same_values(*values, tolerance)
    return bool(verify([other], [one], timeout_seconds=None))


def _words(expression: str) -> list[str]:
    """Words that are no functions; computer algebra reads them as products, or not at all."""
    found = _WORD.findall(_COMMAND.sub(" ", expression.replace(r"\text", " ")))
    return sorted(word for word in found if word not in _FUNCTIONS)


def _numbers(expression: str) -> list[Fraction]:
    """In order, as words between them say what each is: `3 remainder 2`, `2 by 3 matrix`."""
    return [*map(Fraction, _NUMBER.findall(expression))]


@lru_cache(maxsize=4096)
def read(expression: str) -> Any:
    """The expression for sympy; None where it cannot be read."""
    found = parse(rf"\boxed{{{expression}}}", extraction_config=_LATEX, parsing_timeout=None)
    value = next((one for one in found if not isinstance(one, str)), None)
    if isinstance(value, sympy.Basic):
        shown = {f: sympy.Rational(str(f)) for f in value.atoms(sympy.Float)}
        value = value.xreplace(shown) if shown else value
        if isinstance(value, sympy.Expr) and _names(value) == {"i"}:
            value = value.subs(dict.fromkeys(value.free_symbols, sympy.I))
    return value


def _names(value: Any) -> set[str]:
    return (
        {symbol.name for symbol in value.free_symbols} if isinstance(value, sympy.Basic) else set()
    )


def _same_values(
    given: tuple[Fraction, ...], wanted: tuple[Fraction, ...], tolerance: Tolerance
) -> bool:
    (real, imaginary), (other, other_imaginary) = given, wanted
    if tolerance != EXACT and imaginary == other_imaginary == 0 and tolerance.allows(real, other):
        return True
    return max(abs(real - other), abs(imaginary - other_imaginary)) < _ZERO


def _values(side: Any) -> tuple[Fraction, ...]:
    """Real and imaginary part of an expression without names, to 60 digits; () where it has no
    value."""
    if not (isinstance(side, sympy.Expr) and side.is_number):
        return ()
    parts = [part.evalf(_DIGITS) for part in side.evalf(_DIGITS).as_real_imag()]
    if not all(part.is_Rational or part.is_Float for part in parts):
        return ()
    exactly = [sympy.Rational(part) for part in parts]
    return tuple(Fraction(int(part.p), int(part.q)) for part in exactly)
