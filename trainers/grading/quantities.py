"""Numbers as they are written: exact values, roundings and tolerances, bases, residues, intervals.

In go expressions in one spelling (`spelling.plain`), out come values, or None where an expression
is something else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from typing import Final

from nprdsl.trainers.grading.number_words import ordinal, said_number
from nprdsl.trainers.grading.spelling import words

_VALUE: Final = re.compile(
    r"(?P<sign>[+-]?)\s*(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)"
    r"(?:\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*(?:\{\s*(?P<braced>[+-]?\d+)\s*\}|(?P<bare>-?\d+)))?"
)
_POWER_OF_TEN: Final = re.compile(r"([+-]?)\s*10\s*\^\s*(?:\{\s*([+-]?\d+)\s*\}|(\d+))")
_FRACTION: Final = re.compile(
    r"(-?)\s*(?:\\frac\s*(?:\{\s*(-?\d+)\s*\}|(\d))\s*(?:\{\s*(-?\d+)\s*\}|(\d))|(\d+)\s*/\s*(\d+))"
)
_LARGEST: Final = 400  # powers of ten beyond are left to the caller
_LONGEST: Final = 1000  # digits
_LEAST_DIGITS: Final = 3  # significant ones, of a decimal that another may be a rounding of
_DECIMAL: Final = re.compile(r"[+-]?([\d,]*)\.(\d+)")
_BASE: Final = re.compile(
    r"\(?\s*(?P<digits>[0-9A-Za-z]+(?:\.[0-9A-Za-z]+)?)\s*\)?\s*"
    r"(?:_\s*\{?\s*\(?\s*(?:base\s*)?(?P<low>\w+)\s*\)?\s*\}?"
    r"|\(?\s*(?:in\s+)?base[\s-]+(?P<said>\w+)\s*\)?)"
)
_SAID: Final = {
    "infinity": r"\infty", "inf": r"\infty", "positive infinity": r"\infty", "+infinity": r"\infty",
    "-infinity": r"-\infty", "-inf": r"-\infty", "negative infinity": r"-\infty",
    "all real numbers": r"\mathbb{R}", "all reals": r"\mathbb{R}", r"\r": r"\mathbb{R}",
    r"+\infty": r"\infty", "empty set": r"\emptyset",
}  # fmt: skip
_ALL: Final = re.compile(r"\(\s*-\s*\\infty\s*,\s*\+?\s*\\infty\s*\)")
_NAMED: Final = re.compile(
    r"(?:[a-zA-Z]|\\theta)\s*\\in(?![A-Za-z])\s*|\(\s*[a-z](?:\s*,\s*[a-z])+\s*\)\s*=\s*"
    r"|[A-Za-z](?:\s*:\s*[A-Za-z])+\s*=\s*"
)
_RESIDUE: Final = re.compile(
    r"(?:(?P<name>.+?)\s*\\equiv\s*)?(?P<value>[^\\]+?)\s*[,(]?\s*(?:\\ )?\s*"
    r"(?:\\pmod|\\bmod|\\mod|\(\s*\\?mod)\s*(?:\{(?P<braced>[^{}]*)\}|(?P<bare>\w+))\s*\)?"
)
_TURNED_OUT: Final = re.compile(r"([\[\]])([^\[\](),;]+[,;][^\[\](),;]+)([\[\]])")
_RELATION: Final = r"(<=|>=|<|>|\\(?:le|ge|lt|gt)(?![A-Za-z]))"
_NAME: Final = r"(?:[a-zA-Z]|\\theta|\\lambda|\\alpha|\\beta)"
_ONE_SIDED: Final = re.compile(rf"({_NAME})\s*{_RELATION}\s*((?:(?!{_RELATION})[^=])+)")
_TURNED: Final = re.compile(rf"((?:(?!{_RELATION})[^=])+?)\s*{_RELATION}\s*({_NAME})")
_TWO_SIDED: Final = re.compile(
    rf"((?:(?!{_RELATION})[^=])+?)\s*{_RELATION}\s*({_NAME})\s*{_RELATION}\s*((?:(?!{_RELATION})[^=])+)"
)
_ABSOLUTE: Final = re.compile(
    rf"\|\s*{_NAME}\s*\|\s*{_RELATION}\s*(\d+(?:\.\d+)?(?:/\d+)?|\\(?:frac|sqrt)\s*[{{}}\d]+)"
)
_BUILDER: Final = re.compile(
    rf"\\\{{\s*{_NAME}\s*(?:\\in\s*\\mathbb\s*\{{?R\}}?\s*)?[|:]\s*(.+)\\\}}", re.S
)
_UNEQUAL: Final = re.compile(rf"{_NAME}\s*\\ne(?![A-Za-z])\s*([^=<>,;\\]+)")
OR: Final = re.compile(r"\s*(?:\\(?:text|mathrm|mbox)\s*\{\s*or\s*\}|\bor\b|\\lor\b|\\vee\b)\s*")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far an answer may be from the one that a data set gives: by `absolute`, or by `relative`
    of that; 0 and 0 is not at all."""

    absolute: float = 0.0
    relative: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("absolute", self.absolute), ("relative", self.relative)):
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"the {name} tolerance is {value}; it is a number from 0")

    def allows(self, given: Fraction, wanted: Fraction) -> bool:
        """Whether `given` is as near as that; an error that is on the border counts."""
        bound = max(Fraction(repr(self.absolute)), Fraction(repr(self.relative)) * abs(wanted))
        return abs(given - wanted) <= bound


EXACT: Final = Tolerance()


def number(expression: str) -> Fraction | None:
    """The exact value of a decimal number, powers of ten included."""
    power = _POWER_OF_TEN.fullmatch(expression)
    match = _VALUE.fullmatch(expression)
    if len(expression) > _LONGEST or (match is None and power is None):
        return None
    exponent = int((power[2] or power[3]) if power else (match["braced"] or match["bare"] or 0))  # type: ignore[index]
    if abs(exponent) > _LARGEST:
        return None
    digits = "1" if match is None else match["digits"].replace(",", "")
    value = Fraction(digits) * Fraction(10) ** exponent
    sign = power[1] if match is None else match["sign"]  # type: ignore[index]
    return -value if sign == "-" else value


def exact(expression: str) -> Fraction | None:
    """The value of a decimal number or of a fraction of integers."""
    match = _FRACTION.fullmatch(expression)
    if match is None or len(expression) > _LONGEST:
        return number(expression)
    above = int(match[2] or match[3] or match[6])
    below = int(match[4] or match[5] or match[7])
    if not below:
        return None
    return Fraction(-above if match[1] else above, below)


def is_rounding(one: str, other: str) -> bool:
    """Whether one of two decimal numbers is the other, rounded, with three digits that count at
    least: measured values are published with as many digits as somebody chose."""
    digits = [_digits(one), _digits(other)]
    a, b = exact(one), exact(other)
    if a is None or b is None or None in digits:
        return False
    step = max(d for d in digits if d is not None)
    return abs(a - b) * 2 <= step and min(abs(a), abs(b)) >= step * 10 ** (_LEAST_DIGITS - 1)


def _digits(expression: str) -> Fraction | None:
    """What the last digit behind the point stands for; None for what has no point."""
    match = _VALUE.fullmatch(expression)
    if match is None or (mantissa := _DECIMAL.fullmatch(match["digits"])) is None:
        return None
    exponent = int(match["braced"] or match["bare"] or 0)
    return Fraction(10) ** (exponent - len(mantissa[2])) if abs(exponent) <= _LARGEST else None


def counted(expression: str) -> str:
    """A number word in digits, also before what it counts, an ordinal with `th`, infinity and the
    real numbers in signs; any other expression as it is."""
    word = words(expression).casefold()
    if place := _place(word):
        return place
    value = said_number(word)
    if value is None:
        number, _, thing = word.rpartition(" ")
        count = said_number(number) if thing.isalpha() else None
        whole = count is not None and count.denominator == 1
        return rf"{count}\text{{ {thing}}}" if whole else _SAID.get(word, expression)
    if value.denominator == 1:
        return str(value)
    return rf"{'-' if value < 0 else ''}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def _place(word: str) -> str:
    """`third` and `21st floor` as `3\\text{th}` and `21\\text{th floor}`; "" for what is none."""
    before, _, thing = word.rpartition(" ")
    if (number := ordinal(word)) is not None:
        return rf"{number}\text{{th}}"
    number = ordinal(before) if thing.isalpha() else None
    return "" if number is None else rf"{number}\text{{th {thing}}}"


# -- bases and residues ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Numeral:
    """The digits of a number in a base, from 2 to 36."""

    digits: str
    base: int


def numeral(expression: str) -> Numeral | None:
    """A number that names its base: `4210_{5}`, `4210_{\\text{five}}`, `4210 (base 5)`."""
    match = _BASE.fullmatch(words(expression).replace(",", ""))
    if match is None:
        return None
    name = (match["low"] or match["said"]).casefold()
    said = Fraction(name) if name.isdecimal() and len(name) < 3 else said_number(name)
    base = 0 if said is None or said.denominator > 1 else int(said)
    digits = match["digits"].upper().lstrip("0") or "0"
    if not 2 <= base <= 36 or (base <= 10 and not any(map(str.isdecimal, match["digits"]))):
        return None
    return Numeral(digits, base)


def fits(digits: str, base: int) -> bool:
    """Whether all digits are some of this base."""
    values = (int(d, 36) if d.isascii() and d.isalnum() else 36 for d in digits.replace(".", ""))
    return bool(digits) and all(value < base for value in values)


def same_base(given: str, wanted: str) -> bool | None:
    """Whether two numerals are equal, of which one names a base at least; None where none does. A
    base that only one names is taken to be meant by the other."""
    one, other = numeral(given), numeral(wanted)
    if one is None and other is None:
        return None
    if one is not None and other is not None:
        return one == other
    named = one or other
    bare = words(wanted if other is None else given).upper().replace(",", "").lstrip("0") or "0"
    assert named is not None
    if not any(map(str.isdecimal, named.digits)):
        return None
    return bare == named.digits and fits(named.digits, named.base)


def residue(expression: str) -> tuple[str, str, str] | None:
    """What is congruent to a value, "" if that is not told, the value and the modulus."""
    match = _RESIDUE.fullmatch(expression)
    if match is None:
        return None
    value, modulus = match["value"].strip(), (match["braced"] or match["bare"] or "").strip()
    return (match["name"] or "").strip(), value, modulus


# -- inequalities ----------------------------------------------------------------------------------


def as_interval(expression: str) -> str:
    """An inequality in one name, or several with `or` between them, as the set that it states, and
    an open interval without `]` turned outwards; any other expression as it is."""
    expression = _NAMED.sub("", expression, count=1) if _NAMED.match(expression) else expression
    if _ALL.fullmatch(expression):
        return r"\mathbb{R}"
    if all(map(_TURNED_OUT.fullmatch, pieces := re.split(r"\s*\\cup\s*", expression))):
        return r"\cup".join(_TURNED_OUT.sub(_turned_in, piece) for piece in pieces)
    if (unequal := _UNEQUAL.fullmatch(expression)) is not None:
        return rf"\mathbb{{R}}\setminus\{{{unequal[1].strip()}\}}"
    builder = _BUILDER.fullmatch(expression)
    text = expression if builder is None else builder[1].strip()
    intervals = [_interval(part) for part in OR.split(text)]
    if not all(intervals):
        return expression
    return r"\cup".join(map(str, intervals))


def _turned_in(match: re.Match[str]) -> str:
    """`]1,2[` as `(1,2)`."""
    return f"{'(' if match[1] == ']' else '['}{match[2]}{')' if match[3] == '[' else ']'}"


def _interval(text: str) -> str | None:
    text = text.strip()
    if (match := _TWO_SIDED.fullmatch(text)) is not None:
        groups = [group for group in match.groups() if group is not None]
        low, first, _, second, high = groups
        (first_low, first_closed), (second_low, second_closed) = _side(first), _side(second)
        if first_low != second_low:
            return None
        ends = (low, first_closed, high, second_closed)
        low, first_closed, high, second_closed = ends if not first_low else (*ends[2:], *ends[:2])
        left, right = "[" if first_closed else "(", "]" if second_closed else ")"
        return f"{left}{low.strip()},{high.strip()}{right}"
    if (match := _ABSOLUTE.fullmatch(text)) is not None:
        above, closed = _side(match[1])
        rays = _ray(f"-{match[2]}", closed, below=False), _ray(match[2], closed, below=True)
        left, right = ("[", "]") if closed else ("(", ")")
        return r"\cup".join(rays) if above else f"{left}-{match[2]},{match[2]}{right}"
    if (match := _ONE_SIDED.fullmatch(text)) is not None:
        bounded_below, closed = _side(match[2])
        return _ray(match[3], closed, below=bounded_below)
    if (match := _TURNED.fullmatch(text)) is not None:
        groups = [group for group in match.groups() if group is not None]
        bounded_below, closed = _side(groups[1])
        return _ray(groups[0], closed, below=not bounded_below)
    return None


def _ray(bound: str, closed: bool, *, below: bool) -> str:
    bound = bound.strip()
    if below:
        return rf"{'[' if closed else '('}{bound},\infty)"
    return rf"(-\infty,{bound}{']' if closed else ')'}"


def _side(relation: str) -> tuple[bool, bool]:
    """Whether a relation bounds what stands before it from below, and whether it may be equal."""
    below = relation[0] == ">" or relation.startswith(r"\g")
    return below, "=" in relation or relation.startswith((r"\le", r"\ge"))
