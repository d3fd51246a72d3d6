"""Regexes of the JSON numbers between two bounds: integers exactly, decimals between whole bounds.

Decimals have at most nine digits after the point, so that reading them as binary floats cannot
carry them over a bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

_FRACTION = r"(?:\.[0-9]{1,9})?"
_ZERO_FRACTION = r"(?:\.0{1,9})?"
# at least one digit that is not 0, at most nine digits
_NONZERO_FRACTION = r"\.(?:" + "|".join(f"0{{{n}}}[1-9][0-9]{{0,{8 - n}}}" for n in range(9)) + ")"


@dataclass(frozen=True, slots=True)
class Interval:
    """Whole bounds, None for no bound; an open bound is not itself in the interval."""

    low: int | None = None
    high: int | None = None
    low_open: bool = False
    high_open: bool = False


def integers(interval: Interval) -> str | None:
    """The integers of `interval`, written without leading zeros or `-0`; None where it is empty."""
    low, high = interval.low, interval.high
    if low is not None and interval.low_open:
        low += 1
    if high is not None and interval.high_open:
        high -= 1
    options: list[str] = []
    if low is None or low < 0:
        least = 1 if high is None or high >= 0 else -high
        options.extend(f"-{part}" for part in _naturals(least, None if low is None else -low))
    if high is None or high >= 0:
        options.extend(_naturals(0 if low is None else max(low, 0), high))
    return _either(options)


def decimals(interval: Interval) -> str | None:
    """The numbers of `interval` with up to nine digits after the point; None where it is empty."""
    low, high = interval.low, interval.high
    options: list[str] = []
    if low is None or low < 0:
        mirrored = Interval(
            0 if high is None or high > 0 else -high,
            None if low is None else -low,
            True if high is None or high >= 0 else interval.high_open,
            interval.low_open,
        )
        options.extend(f"-{part}" for part in _magnitudes(mirrored))
    if high is None or high >= 0:
        if low is None or low < 0:
            interval = replace(interval, low=0, low_open=False)
        options.extend(_magnitudes(interval))
    return _either(options)


def _magnitudes(interval: Interval) -> list[str]:
    """Options for the numbers of an interval that has a low bound of at least 0."""
    low, high = interval.low or 0, interval.high
    if high is not None and low > high:
        return []
    options: list[str] = []
    if low == high:
        return [] if interval.low_open or interval.high_open else [f"{low}{_ZERO_FRACTION}"]
    options.append(f"{low}{_NONZERO_FRACTION if interval.low_open else _FRACTION}")
    options.extend(
        f"{part}{_FRACTION}" for part in _naturals(low + 1, None if high is None else high - 1)
    )
    if high is not None and not interval.high_open:
        options.append(f"{high}{_ZERO_FRACTION}")
    return options


def _naturals(low: int, high: int | None) -> list[str]:
    """Options for the natural numbers low..high, by number of digits."""
    if high is None:
        digits = len(str(low))
        return [*_naturals(low, 10**digits - 1), f"[1-9][0-9]{{{digits},}}"]
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
