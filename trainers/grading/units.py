"""Units of measured answers: what they measure, and how many of the base unit they are.

`split(expression)` parts a value from what is written behind it (`70 \\text{ cm}`, `3 m/s`,
`\\$12`, `5 apples`, `2.5 million`). Two units that measure the same are converted; what is no unit
of a table counts as the thing that it names, so that 5 apples are no 5 oranges. In go expressions
in one spelling (`spelling.plain`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final

Powers = tuple[tuple[str, int], ...]  # base unit -> power, in order of names

_BASE: Final = (
    "m", "kg", "s", "A", "K", "mol", "$", "€", "£", "deg", "rad", "°C", "°F", "%", "bit",
    "eV", "year", "revolution", "parsec", "unit",
)  # fmt: skip
_DERIVED: Final[dict[str, tuple[str, str]]] = {  # how many of what
    "g": ("1/1000", "kg"), "N": ("1", "kg m/s^2"), "J": ("1", "kg m^2/s^2"), "Hz": ("1", "s^-1"),
    "W": ("1", "kg m^2/s^3"), "Pa": ("1", "kg/m/s^2"), "V": ("1", "kg m^2/s^3/A"),
    "C": ("1", "A s"), "F": ("1", "A^2 s^4/kg/m^2"), "T": ("1", "kg/s^2/A"),
    "Ω": ("1", "kg m^2/s^3/A^2"), "Wb": ("1", "kg m^2/s^2/A"), "H": ("1", "kg m^2/s^2/A^2"),
    "L": ("1/1000", "m^3"), "h": ("3600", "s"), "min": ("60", "s"), "d": ("86400", "s"),
    "wk": ("604800", "s"), "yr": ("1", "year"), "ft": ("381/1250", "m"), "in": ("127/5000", "m"),
    "yd": ("1143/1250", "m"), "mi": ("201168/125", "m"), "lb": ("45359237/100000000", "kg"),
    "oz": ("45359237/1600000000", "kg"), "t": ("1000", "kg"), "cal": ("523/125", "kg m^2/s^2"),
    "bar": ("100000", "kg/m/s^2"), "atm": ("101325", "kg/m/s^2"), "M": ("1000", "mol/m^3"),
    "ha": ("10000", "m^2"), "¢": ("1/100", "$"), "B": ("8", "bit"), "Å": ("1/10000000000", "m"),
    "mph": ("1", "mi/h"), "kph": ("1", "km/h"), "rpm": ("1", "revolution/min"),
    "pc": ("1", "parsec"),
    "gal": ("473176473/125000000000", "m^3"), "kWh": ("3600000", "kg m^2/s^2"),
    "Nm": ("1", "kg m^2/s^2"), "Ns": ("1", "kg m/s"),
}  # fmt: skip
_PREFIXES: Final = {
    "f": -15, "p": -12, "n": -9, "µ": -6, "m": -3, "c": -2, "d": -1, "k": 3, "M": 6, "G": 9,
    "T": 12,
}  # fmt: skip
_PREFIX_NAMES: Final = {
    "femto": "f", "pico": "p", "nano": "n", "micro": "µ", "milli": "m", "centi": "c", "deci": "d",
    "kilo": "k", "mega": "M", "giga": "G", "tera": "T",
}  # fmt: skip
_PREFIXED: Final = frozenset(
    ("m", "g", "s", "A", "K", "mol", "N", "J", "W", "Pa", "V", "Hz", "eV", "T", "F", "C", "Ω", "L",
     "cal", "bar", "Wb", "H", "bit", "B", "pc", "M", "Nm", "Ns")
)  # fmt: skip
_NAMES: Final = {
    "meter": "m", "metre": "m", "inch": "in", "inche": "in", "foot": "ft", "feet": "ft",
    "yard": "yd", "mile": "mi", "second": "s", "sec": "s", "minute": "min", "hour": "h", "hr": "h",
    "day": "d", "week": "wk", "yr": "yr", "gram": "g", "gramme": "g", "kg": "kg", "kilo": "kg",
    "pound": "lb", "ounce": "oz", "liter": "L", "litre": "L", "l": "L", "ml": "mL", "cl": "cL",
    "dl": "dL", "dollar": "$", "usd": "$", "cent": "¢", "euro": "€", "eur": "€", "gbp": "£",
    "degree": "deg",
    "radian": "rad", "kelvin": "K", "newton": "N", "joule": "J", "watt": "W", "volt": "V",
    "ampere": "A", "amp": "A", "ohm": "Ω", "hertz": "Hz", "pascal": "Pa", "coulomb": "C",
    "farad": "F", "tesla": "T", "weber": "Wb", "henry": "H", "mole": "mol", "percent": "%",
    "percentage": "%", "calorie": "cal", "atmosphere": "atm", "ton": "t", "tonne": "t",
    "hectare": "ha", "byte": "B", "celsius": "°C", "fahrenheit": "°F", "electronvolt": "eV",
    "angstrom": "Å", "gallon": "gal", "people": "person", "children": "child", "men": "man",
    "women": "woman", "mice": "mouse", "geese": "goose", "unit": "unit", "sq": "square",
    "cu": "cubic", "year": "year", "parsec": "parsec", "revolution": "revolution",
}  # fmt: skip
_TIMES: Final = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "dozen": 12,
}  # fmt: skip
_SAYS_MORE: Final = frozenset(  # a text with one of these says more than what a value counts
    ("or", "and", "not", "no", "but", "than", "at", "less", "more", "least", "most", "about", "is",
     "are", "was", "if", "as", "to", "from", "for", "by", "with", "the", "mod", "base", "plus",
     "minus", "times", "over", "half", "quarter", "third", "either", "both", "otherwise", "each",
     "factorial", "choose", "remainder", "pair", "score", "sin", "cos", "tan", "log", "ln", "exp",
     "max", "gcd", "lcm", "inf", "infinity", "approximately", "roughly", "when", "where",
     "because", "undefined", "none")
)  # fmt: skip
_STYLE: Final = re.compile(r"\\(?:text|textrm|mathrm|mbox|rm|operatorname|textit)\s*\{([^{}]*)\}")
_MARK: Final = "\u241f"  # where a styled text begins: a unit, though it be one letter
_PLAIN: Final = (  # before styles are read
    (re.compile(r"\\(?:[,;:! ]|quad\b|cdot\b(?!\s*\d))|~"), " "),
    (re.compile(
        r"\\frac\s*\{\s*(\\(?:text|mathrm)\s*\{[^{}]*\}(?:\s*\^\s*\d)?)\s*\}"
        r"\s*\{\s*(\\(?:text|mathrm)\s*\{[^{}]*\}(?:\s*\^\s*\d)?)\s*\}"), r"\1/\2"),
    (re.compile(r"\\[Oo]hm\b|\\Omega\b"), "Ω"),
    (re.compile(r"\\mu\b\s*|\u03bc"), "µ"), (re.compile(r"\\(?:mathring\{A\}|AA\b|r\{A\})"), "Å"),
    (re.compile(r"\\%"), "%"), (re.compile(r"²"), "^2"), (re.compile(r"³"), "^3"),
    (re.compile(r"\bsq\.\s*"), "square "), (re.compile(r"\bcu\.\s*"), "cubic "),
    (re.compile(r"\^\s*\{\s*(-?\d)\s*\}"), r"^\1"), (re.compile(r"(?<=[A-Za-z])\^-"), "^-"),
)  # fmt: skip
_STYLED: Final = (  # behind
    (re.compile(r"µ\s*␟"), "␟µ"), (re.compile(r"\^\s*\{?\s*\\circ\s*\}?\s*␟?\s*C\b"), " ␟°C"),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?\s*␟?\s*F\b"), " ␟°F"),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?"), " ␟deg "),
)  # fmt: skip
_MONEY: Final = re.compile(r"(-?)\s*(?:(?:USD?\s*)?\\?\$|USD|(€|£|EUR|GBP))\s*(-?[\d.].*)")
_CODES: Final = {"EUR": "€", "GBP": "£"}
_STARTS: Final = re.compile(r"(?<![A-Za-z\\])(?=[A-Za-zµΩÅ%°¢€$␟])|␟")
_UNIT_TEXT: Final = re.compile(r"[A-Za-zµΩÅ%°¢€$␟./^\s()*0-9-]+")
_PIECE: Final = re.compile(
    r"\s*(?P<times>[/]|\bper\b)?\s*(?P<name>[A-Za-zµΩÅ°]+\.?|[%¢€$])"
    r"(?:(?:\s*\^\s*)?\(?(?P<power>-?[1-9])\)?(?!\d))?"
)
_COMPONENT: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+\.?)")
_COMPOUND: Final = re.compile(
    r"\s*\d+(?:\.\d+)?\s*[A-Za-z]+\.?(?:,?\s*(?:and\s*)?\d+(?:\.\d+)?\s*[A-Za-z]+\.?)+\s*"
)
_SIZE: Final = re.compile(r"\d+(?:\s*\\times\s*\d+)+")  # of a matrix or a board: no product
_VALUE_END: Final = re.compile(r"(?:[\d.)}\]!%]|\\[A-Za-z]+|(?<![A-Za-z])[A-Za-z])\s*$")
_COUNT: Final = re.compile(r"\d|\\[A-Za-z]")  # in what a bare word may be the unit of
_VALUE_WORD: Final = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{3,}")


@dataclass(frozen=True, slots=True)
class Measure:
    """`factor` of the base units with these `powers`; `times` are number words (million), which
    belong to the value. Nothing is the unit of a plain number."""

    factor: Fraction = Fraction(1)
    powers: Powers = ()
    times: int = 1

    @property
    def degree(self) -> int:
        return sum(power for _, power in self.powers)

    @property
    def names_a_thing(self) -> bool:
        """Whether it is no unit of a table, but what is counted."""
        return any(name not in _BASE for name, _ in self.powers)

    def measures(self, other: Measure) -> bool:
        """Whether both measure the same. Units that are not told (`5 square units`) measure what is
        as often multiplied."""
        if "unit" in (names := {name for name, _ in (*self.powers, *other.powers)}):
            plain = all(len(one.powers) == 1 for one in (self, other))
            return plain and self.degree == other.degree and "%" not in names
        return self.powers == other.powers

    def over(self, other: Measure) -> Fraction:
        """How many of the other unit one of this is."""
        untold = any(name == "unit" for name, _ in (*self.powers, *other.powers))
        return Fraction(1) if untold else self.factor / other.factor


NO_MEASURE: Final = Measure()


@lru_cache(maxsize=4096)
def split(expression: str) -> tuple[str, Measure, bool]:
    """The value, its unit, and whether the unit may as well be a factor of the value: one bare
    letter (`5m`)."""
    money = _MONEY.fullmatch(expression.strip())
    if money is not None:
        value, unit, _ = split(money[1] + money[3])
        if unit.powers in ((), (("$", 1),)):
            sign = _CODES.get(money[2], money[2]) or "$"
            return value, Measure(powers=((sign, 1),), times=unit.times), False
        return expression, NO_MEASURE, False
    text = expression
    for pattern, replacement in _PLAIN:
        text = pattern.sub(replacement, text)
    text = _STYLE.sub(lambda m: f" {_MARK}{m[1]} ", text)
    for pattern, replacement in _STYLED:
        text = pattern.sub(replacement, text)
    if (compound := _sum(text.replace(_MARK, " "))) is not None:
        return *compound, False
    for match in _STARTS.finditer(text):
        value, tail = text[: match.start()].strip(), text[match.start() :]
        if not value or _MARK in value or not _VALUE_END.search(value):
            continue
        if _MARK not in tail and not _COUNT.search(value):
            continue
        if any(word not in _FUNCTIONS for word in _VALUE_WORD.findall(value)):
            continue
        found = _read(tail, styled=_MARK in tail, glued=not text[: match.start()][-1:].isspace())
        if found is not None and not (_SIZE.fullmatch(value) and found.names_a_thing):
            one = _MARK not in tail and len(tail.strip()) == 1 and tail.strip().isalpha()
            letter = one and not text[: match.start()].rstrip(" ")[-1:].isdigit()
            letter |= one and value == text[: match.start()]
            return value, found, letter
    return expression, NO_MEASURE, False


def _sum(text: str) -> tuple[str, Measure] | None:
    """`5 ft 3 in` as a value in base units."""
    if not _COMPOUND.fullmatch(text):
        return None
    total, measured = Fraction(0), Measure()
    for value, name in _COMPONENT.findall(text):
        unit = _known(name.rstrip("."))
        if unit is None or (measured.powers and not unit.measures(measured)):
            return None
        total, measured = total + Fraction(value) * unit.factor, unit
    return str(total), Measure(powers=measured.powers)


_FUNCTIONS: Final = frozenset(("sqrt", "frac", "sin", "cos", "tan", "log", "exp"))


def _read(tail: str, *, styled: bool, glued: bool) -> Measure | None:
    """The unit that a text names; None where it is none."""
    if not _UNIT_TEXT.fullmatch(tail):
        return None
    text = tail.replace(_MARK, " ").strip().rstrip(".")
    if not styled and glued and not all(_known(piece) for piece in _names(text)):
        return None
    return _product(text, styled)


def _names(text: str) -> Iterator[str]:
    for match in _PIECE.finditer(text):
        yield match["name"].rstrip(".")


@lru_cache(maxsize=1024)
def _product(text: str, styled: bool) -> Measure | None:
    factor, times, powers = Fraction(1), 1, Counter[str]()
    at, sign, ahead, latest = 0, 1, 1, NO_MEASURE
    things: list[str] = []  # words of one name that is in no table
    while (match := _PIECE.match(text, at)) is not None:
        at = match.end()
        name, power = match["name"].rstrip("."), int(match["power"] or 1)
        lower = name.casefold()
        if match["times"]:
            sign = -1
        if lower in _TIMES:
            times *= _TIMES[lower]
        elif lower in ("square", "sq", "cubic", "cu"):
            ahead = 2 if lower[0] == "s" else 3
        elif lower in ("squared", "cubed") and latest.powers:
            more = 1 if lower == "squared" else 2
            factor *= latest.factor**more
            for base, count in latest.powers:
                powers[base] += count * more
        elif lower in _SAYS_MORE:
            return None
        elif (known := _known(name)) is not None:
            count = sign * power * ahead
            latest = Measure(known.factor**count, tuple((b, p * count) for b, p in known.powers))
            factor *= latest.factor
            for base, exponent in latest.powers:
                powers[base] += exponent
            ahead = 1
        elif power != 1 or (not styled and len(name) < 3) or len(name) < 2 or ahead != 1:
            return None
        else:
            if not things or sign < 0:
                things.append(("/" if sign < 0 else "") + _single(lower))
            else:
                things[-1] += f" {_single(lower)}"
    if text[at:].strip():
        return None
    for thing in things:
        powers[thing.removeprefix("/")] += -1 if thing.startswith("/") else 1
    return Measure(factor, tuple(sorted((n, p) for n, p in powers.items() if p)), times)


def _single(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith(("ses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and len(word) > 3 and not word.endswith("ss") else word


@lru_cache(maxsize=1024)
def _known(name: str) -> Measure | None:
    """The unit of a symbol or a name that the tables have."""
    unit = _symbol(name)
    if unit is not None:
        return unit
    lower = name.casefold()
    for word in (lower, lower.removesuffix("s")):
        if word in _NAMES:
            return _symbol(_NAMES[word]) or Measure(powers=((_NAMES[word], 1),))
        for prefix, letter in _PREFIX_NAMES.items():
            rest = _NAMES.get(word.removeprefix(prefix), "")
            if word.startswith(prefix) and rest in _PREFIXED:
                return _symbol(letter + rest)
    return None


def _symbol(symbol: str) -> Measure | None:
    if symbol in _BASE:
        return Measure(powers=((symbol, 1),))
    if symbol in _DERIVED:
        count, of = _DERIVED[symbol]
        one = _product(of, styled=True)
        assert one is not None
        return Measure(Fraction(count) * one.factor, one.powers)
    if symbol[:1] in _PREFIXES and symbol[1:] in _PREFIXED:
        of_one = _symbol(symbol[1:])
        assert of_one is not None
        return Measure(of_one.factor * Fraction(10) ** _PREFIXES[symbol[0]], of_one.powers)
    return None
