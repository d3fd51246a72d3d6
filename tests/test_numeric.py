"""Regexes of bounded numbers against arithmetic."""

from __future__ import annotations

import json
import re
from decimal import Decimal

from hypothesis import example, given
from hypothesis import strategies as st

from nprdsl.grammar.json_schema import Interval, decimals, integers

NUMBERS = st.one_of(st.integers(-30, 30), st.integers(-12_000, 12_000))
BOUNDS = st.one_of(st.none(), NUMBERS)
INTERVALS = st.builds(Interval, BOUNDS, BOUNDS, st.booleans(), st.booleans())


def inside(number: Decimal, interval: Interval) -> bool:
    low, high = interval.low, interval.high
    return (low is None or number > low or (number == low and not interval.low_open)) and (
        high is None or number < high or (number == high and not interval.high_open)
    )


def matches(pattern: str | None, text: str) -> bool:
    return pattern is not None and re.fullmatch(pattern, text) is not None


@given(INTERVALS, st.lists(NUMBERS, min_size=5))
@example(Interval(-9, 10), list(range(-12, 13)))
@example(Interval(0, 0), [0, 1, 10])
@example(Interval(99, 1001, high_open=True), [9, 99, 100, 999, 1000, 1001])
def test_integers(interval, numbers):
    pattern = integers(interval)
    for n in {
        *numbers,
        *(b + d for b in (interval.low or 0, interval.high or 0) for d in (-1, 0, 1)),
    }:
        assert matches(pattern, str(n)) == inside(Decimal(n), interval)
        assert not matches(pattern, f"0{n}") and not matches(pattern, "-0")
    if pattern is None:
        assert not any(inside(Decimal(n), interval) for n in numbers)


FRACTIONS = st.sampled_from(["", ".0", ".000", ".5", ".000000001", ".999999999", ".10"])
SIGNED = st.builds(lambda n, f: f"{n}{f}", NUMBERS, FRACTIONS)


@given(INTERVALS, st.lists(SIGNED, min_size=5), FRACTIONS)
@example(Interval(0, 1), ["0.5", "1.0", "1.5", "-0.5", "1", "0"], "")
@example(Interval(-1, 1, True, True), ["-0.5", "-1", "0", "0.0", "1", "-0.000000001"], "")
def test_decimals(interval, texts, fraction):
    pattern = decimals(interval)
    near = [f"{b}{fraction}" for b in (interval.low, interval.high, -1, 0) if b is not None]
    for text in {*texts, *near}:
        if text.startswith("-") and not Decimal(text):
            continue
        assert matches(pattern, text) == inside(Decimal(text), interval), text
        if matches(pattern, text):
            assert inside(Decimal(json.loads(text)), interval)
    assert not matches(pattern, "01") and not matches(pattern, "1.") and not matches(pattern, ".5")
    assert not matches(pattern, "1.0123456789") and not matches(pattern, "-0.0123456789")
