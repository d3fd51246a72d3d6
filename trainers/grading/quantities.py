"""What two answers must have in common besides their value: base, unit, kind of brackets.

A comparison of values alone takes `4210_6` for `4210_5`, 70 cm for 70 m and the pair (1, 2) for the
set of 1 and 2. In go two expressions as they stand in boxes; `clash` says whether they cannot mean
the same, the other functions read values that a unit, a fraction or an inequality is written with.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from nprdsl.trainers.grading.answers import number, plain

_BASE: Final = re.compile(r"[0-9A-Za-z]+_\{?(\d+)\}?")
_STYLED_UNIT: Final = re.compile(
    r"(?:\\[,;: ]|~|\s)*\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}(?:\^\{?-?\d\}?)?$"
)
_PLAIN_UNIT: Final = re.compile(
    r"(?<=[\d\s}])\s*([A-Za-z\u00b5]+(?:/[A-Za-z]+)?)(?:\^\{?-?\d\}?)?$"
)
_FRACTION: Final = re.compile(
    r"(-?)\s*(?:\\[dt]?frac\s*(?:\{\s*(-?\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))|(\d+)\s*/\s*(\d+))"
)
_LONG: Final = {  # long names of units, without a plural s
    "meter": "m", "metre": "m", "centimeter": "cm", "centimetre": "cm", "kilometer": "km",
    "kilometre": "km", "millimeter": "mm", "millimetre": "mm", "inch": "in", "inche": "in",
    "foot": "ft", "feet": "ft", "yard": "yd", "mile": "mi", "second": "s", "sec": "s",
    "minute": "min", "hour": "h", "hr": "h", "day": "d", "week": "wk", "year": "yr", "gram": "g",
    "kilogram": "kg", "pound": "lb", "ounce": "oz", "liter": "L", "litre": "L", "l": "L",
    "milliliter": "mL", "ml": "mL", "dollar": "$", "cent": "ct", "degree": "deg", "radian": "rad",
    "kelvin": "K", "newton": "N", "joule": "J", "watt": "W", "volt": "V", "mph": "mi/h",
    "kph": "km/h", "percent": "%",
}  # fmt: skip
_UNITS: Final = frozenset(_LONG.values()) | {"Hz", "Pa", "C", "A", "mg", "nm", "kJ", "kW"}
_MULTIPLE: Final = re.compile(r"-?\d+(?:\.\d+)?\s*[a-z]\s*=")  # `2x = 4` does not say what x is
_OPEN: Final = re.compile(r"(?:\\left\s*)?(\\\{|\(|\[)")
_LEAST_DIGITS: Final = 3  # significant ones, of a decimal that another may be a rounding of
_DECIMAL: Final = re.compile(r"[+-]?(\d*)\.(\d+)")
_RELATION: Final = r"(<=|>=|<|>|\\leq?\b|\\geq?\b|\\lt\b|\\gt\b|\u2264|\u2265)"
_ONE_SIDED: Final = re.compile(rf"([a-z])\s*{_RELATION}\s*([^<>=\\]+|\\frac.+)")
_TWO_SIDED: Final = re.compile(rf"([^<>=]+?)\s*{_RELATION}\s*([a-z])\s*{_RELATION}\s*([^<>=]+)")


def clash(one: str, other: str) -> bool:
    """Whether two answers cannot mean the same, whatever their values: other bases, other units, a
    set and a tuple, a multiple of an unknown and a value. What only one of them states is not held
    against the other."""
    pairs = (
        (_base(one), _base(other)),
        (unit(one), unit(other)),
        (_brackets(one), _brackets(other)),
    )
    if any(a and b and a != b for a, b in pairs):
        return True
    return any(_MULTIPLE.match(plain(a)) and "=" not in b for a, b in ((one, other), (other, one)))


def unit(expression: str) -> str:
    """The unit that a number is given with, in short and without powers, which are often left out:
    `m/s`, `cm`; "" for none that is known."""
    return split_unit(expression)[1]


def split_unit(expression: str) -> tuple[str, str]:
    """An expression without its unit, and the unit."""
    text = plain(expression)
    match = _STYLED_UNIT.search(text) or _PLAIN_UNIT.search(text)
    if match is None:
        return text, ""
    parts = [_short(part) for part in match[1].strip().split("/")]
    if not all(part in _UNITS for part in parts):
        return text, ""
    return text[: match.start()].strip(), "/".join(parts)


def _short(name: str) -> str:
    word = name.strip().rstrip(".")
    single = word[:-1] if len(word) > 2 and word.endswith("s") else word
    return _LONG.get(word.lower(), _LONG.get(single.lower(), word))


def exact(expression: str) -> Fraction | None:
    """The value of a decimal number or of a fraction of integers, units left out; None for anything
    else."""
    text, _ = split_unit(expression)
    match = _FRACTION.fullmatch(text)
    if match is None:
        return number(text)
    above = int(match[2] or match[3] or match[6])
    below = int(match[4] or match[5] or match[7])
    if not below:
        return None
    return Fraction(-above if match[1] else above, below)


def is_rounding(one: str, other: str) -> bool:
    """Whether one of two decimal numbers is the other, rounded, with three digits that count at
    least: measured values are published with as many digits as somebody chose."""
    digits = [_digits(split_unit(text)[0]) for text in (one, other)]
    a, b = exact(one), exact(other)
    if a is None or b is None or None in digits:
        return False
    step = max(d for d in digits if d is not None)
    return abs(a - b) * 2 <= step and min(abs(a), abs(b)) >= step * 10 ** (_LEAST_DIGITS - 1)


def _digits(expression: str) -> Fraction | None:
    """What the last digit behind the point stands for; None for what has no point."""
    mantissa, _, power = plain(expression).partition(r"\times 10^")
    match = _DECIMAL.fullmatch(mantissa.strip())
    if match is None:
        return None
    exponent = int(power.strip().strip("{}") or 0)
    return Fraction(10) ** (exponent - len(match[2]))


def as_interval(expression: str) -> str:
    """An inequality in one letter as the interval that it states; any other expression as it is."""
    text = plain(expression)
    if (match := _ONE_SIDED.fullmatch(text)) is not None:
        low, closed = _side(match[2])
        bound = match[3].strip()
        if low:
            return rf"{'[' if closed else '('}{bound},\infty)"
        return rf"(-\infty,{bound}{']' if closed else ')'}"
    if (match := _TWO_SIDED.fullmatch(text)) is not None:
        (first_low, first), (second_low, second) = _side(match[2]), _side(match[4])
        if first_low or second_low:
            return expression
        left, right = "[" if first else "(", "]" if second else ")"
        return f"{left}{match[1].strip()},{match[5].strip()}{right}"
    return expression


def _side(relation: str) -> tuple[bool, bool]:
    """Whether a relation bounds what stands before it from below, and whether it may be equal."""
    below = relation in (">", ">=", "\u2265") or relation.startswith((r"\g",))
    return below, relation in ("<=", ">=", "\u2264", "\u2265") or relation.startswith(
        (r"\le", r"\ge")
    )


def _base(expression: str) -> str:
    match = _BASE.fullmatch(plain(expression))
    return match[1] if match is not None else ""


def _brackets(expression: str) -> str:
    """The kind of brackets around a list: of a set, or of a tuple or an interval."""
    text = plain(expression)
    match = _OPEN.match(text)
    if match is None or "," not in text or not text.endswith(("}", ")", "]")):
        return ""
    return "set" if match[1] == r"\{" else "tuple"
