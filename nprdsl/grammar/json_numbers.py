"""Numbers between two bounds, as regular expressions of how JSON writes them.

Whoever reads a text makes a binary float of it, so a text that lies inside the bounds as a decimal
might be read as a number outside. Bounds are therefore moved inwards to a decimal that is read
right: reading never reverses the order of two numbers, so all between two such decimals are right,
too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor

Bound = int | float | Decimal

# The most digits of a whole part without bound: readers refuse integers of some thousands, and some
# make no float of an integer beyond 64 bits.
INTEGER_DIGITS = 40
WHOLE_DIGITS = 18
_PLACES = 9  # digits behind the point
_ONE = 10**_PLACES
_EXACT = 2**53  # the first whole number that a float may miss
_MOST_MULTIPLES = 1_000
# Zero to 99 in the exponent: what is read is never infinite.
_ANY_NUMBER = rf"-?(?:0|[1-9][0-9]{{0,{WHOLE_DIGITS - 1}}})(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{{1,2}})?"


@dataclass(frozen=True, slots=True)
class Interval:
    """Numbers between two bounds; None is no bound, an open bound is not itself included."""

    low: Bound | None = None
    high: Bound | None = None
    low_open: bool = False
    high_open: bool = False

    def __str__(self) -> str:
        lower = "" if self.low is None else f"{'>' if self.low_open else '≥'} {self.low}"
        upper = "" if self.high is None else f"{'<' if self.high_open else '≤'} {self.high}"
        return ", ".join(filter(None, (lower, upper)))

    def apart(self, other: Interval) -> bool:
        """Whether no number is in both."""
        return self._below(other) or other._below(self)

    def _below(self, other: Interval) -> bool:
        if self.high is None or other.low is None:
            return False
        touching = self.high == other.low and (self.high_open or other.low_open)
        return self.high < other.low or touching

    def clipped(self, most: int) -> Interval:
        """Without bounds that no number below `most` meets."""
        low = None if self.low is not None and self.low <= -most else self.low
        high = None if self.high is not None and self.high >= most else self.high
        return replace(self, low=low, high=high)

    def whole(self) -> tuple[int | None, int | None]:
        """The least and the greatest integer inside."""
        low = high = None
        if self.low is not None:
            low = floor(self.low) + 1 if self.low_open else ceil(self.low)
        if self.high is not None:
            high = ceil(self.high) - 1 if self.high_open else floor(self.high)
        return low, high


def number_pattern(interval: Interval, step: int | None, places: int = _PLACES) -> str:
    """The numbers of `interval`; of whole ones the multiples of `step`, None for all numbers
    with up to `places` digits behind the point.

    Raises ValueError where there are none, or too many to be listed.
    """
    most = 10 ** (WHOLE_DIGITS if step is None else INTEGER_DIGITS)
    found: str | None = None
    if (interval.low or 0) < most and (interval.high or 0) > -most:
        within = interval.clipped(most)
        if step is not None:
            found = integers(within) if step == 1 else multiples(within, step)
        elif interval == Interval():
            found = _ANY_NUMBER
        else:
            found = decimals(within, places)
    if found is None:
        kind = "number" if step is None else "integer" if step == 1 else f"multiple of {step}"
        raise ValueError(f"no {kind} that may be written is {interval}")
    return found


def integers(interval: Interval) -> str | None:
    """The integers of `interval`, written without leading zeros or `-0`; None where it is empty."""
    low, high = interval.whole()
    options: list[str] = []
    if low is None or low < 0:
        least = 1 if high is None or high >= 0 else -high
        options.extend(
            f"-{part}" for part in _naturals(least, None if low is None else -low, INTEGER_DIGITS)
        )
    if high is None or high >= 0:
        options.extend(_naturals(0 if low is None else max(low, 0), high, INTEGER_DIGITS))
    return _either(options)


def multiples(interval: Interval, step: int) -> str | None:
    """The multiples of `step` in `interval`; None where there are none.

    Raises ValueError where there are more than can be listed.
    """
    low, high = interval.whole()
    if low is None or high is None or (high - low) // step > _MOST_MULTIPLES:
        raise ValueError(f"more than {_MOST_MULTIPLES:,} multiples of {step}")
    return _either([str(n) for n in range(-(-low // step) * step, high + 1, step)])


def decimals(interval: Interval, places: int = _PLACES) -> str | None:
    """The numbers of `interval` with up to `places` digits, 9 at most, behind the point.

    None where there are none.
    """
    low = None if interval.low is None else _least(interval.low, interval.low_open)
    high = None if interval.high is None else _least(-interval.high, interval.high_open)
    high = None if high is None else -high
    options: list[str] = []
    if low is None or low < 0:
        least = 1 if high is None or high >= 0 else -high
        found = _magnitudes(least, None if low is None else -low, places)
        options.extend(f"-{part}" for part in found)
    if high is None or high >= 0:
        options.extend(_magnitudes(0 if low is None else max(low, 0), high, places))
    return _either(options)


def _least(bound: Bound, is_open: bool) -> int:
    """The least decimal, in billionths, that is inside the bound as it is read, too."""
    exact = Fraction(float(bound) if isinstance(bound, Decimal) else bound)
    units: int = ceil(Fraction(str(bound)) * _ONE)
    coarseness = 1
    while not _inside(units, exact, is_open):
        units = (units // coarseness + 1) * coarseness
        coarseness *= 10
    return units


def _inside(units: int, exact: Fraction, is_open: bool) -> bool:
    """A whole number may be read as it stands; below 2**53 a float is no different."""
    value = Fraction(units, _ONE)
    readings = [Fraction(float(value)), *([value] if abs(value) >= _EXACT else [])]
    return all(read > exact if is_open else read >= exact for read in readings)


def _magnitudes(low: int, high: int | None, places: int) -> Iterator[str]:
    """Options for the numbers from `low` to `high`, both at least 0 and in billionths."""
    if high is not None and low > high:
        return
    first, first_rest = divmod(low, _ONE)
    last, last_rest = (None, _ONE - 1) if high is None else divmod(high, _ONE)
    if first == last:
        yield from _with_fraction([str(first)], first_rest, last_rest, places)
        return
    if first_rest:
        yield from _with_fraction([str(first)], first_rest, _ONE - 1, places)
        first += 1
    if last is not None and last_rest < _ONE - 1:
        yield from _with_fraction([str(last)], 0, last_rest, places)
        last -= 1
    yield from _with_fraction(_naturals(first, last, WHOLE_DIGITS), 0, _ONE - 1, places)


def _with_fraction(wholes: list[str], low: int, high: int, places: int) -> Iterator[str]:
    """One of `wholes` with a fraction from `low` to `high` billionths behind it, or nothing."""
    unit = 10 ** (_PLACES - places)
    low, high = -(-low // unit), high // unit
    if wholes and low <= high:
        fraction = rf"\.(?:{_fraction(low, high, places)})" if places else ""
        optional = f"(?:{fraction})?" if fraction and not low else fraction
        yield f"(?:{'|'.join(wholes)}){optional}"


def _fraction(low: int, high: int, places: int) -> str:
    """One to `places` digits that, filled up with zeros, are a number from `low` to `high`."""
    unit = 10 ** (places - 1)
    options: list[str] = []
    free: list[int] = []  # digits that anything may follow
    for digit in range(low // unit, high // unit + 1):
        least, most = max(low - digit * unit, 0), min(high - digit * unit, unit - 1)
        if (least, most) == (0, unit - 1):
            free.append(digit)
        else:
            rest = _fraction(least, most, places - 1)
            options.append(f"{digit}(?:{rest}){'' if least else '?'}")
    if free:
        options.append(_digit(free[0], free[-1]) + (f"[0-9]{{0,{places - 1}}}" if unit > 1 else ""))
    return "|".join(options)


def _naturals(low: int, high: int | None, most_digits: int) -> list[str]:
    """Options for the natural numbers low..high, by number of digits."""
    if high is None:
        digits = len(str(low))
        longer = [f"[1-9][0-9]{{{digits},{most_digits - 1}}}"] if digits < most_digits else []
        return [*_naturals(low, 10**digits - 1, digits), *longer]
    options: list[str] = []
    for digits in range(len(str(low)), len(str(high)) + 1):
        least = max(low, 10 ** (digits - 1) if digits > 1 else 0)
        greatest = min(high, 10**digits - 1)
        if least <= greatest:
            options.append(_same_length(str(least), str(greatest)))
    return options


def _same_length(low: str, high: str) -> str:
    rest = len(low) - 1
    if low[1:] == "0" * rest and high[1:] == "9" * rest:
        return _digit(int(low[0]), int(high[0])) + (f"[0-9]{{{rest}}}" if rest else "")
    if low[0] == high[0]:
        return low[0] + _same_length(low[1:], high[1:])
    options = [low[0] + _same_length(low[1:], "9" * rest)]
    if int(low[0]) + 1 < int(high[0]):
        options.append(_digit(int(low[0]) + 1, int(high[0]) - 1) + f"[0-9]{{{rest}}}")
    options.append(high[0] + _same_length("0" * rest, high[1:]))
    return f"(?:{'|'.join(options)})"


def _digit(low: int, high: int) -> str:
    return str(low) if low == high else f"[{low}-{high}]"


def _either(options: list[str]) -> str | None:
    return f"(?:{'|'.join(options)})" if options else None
