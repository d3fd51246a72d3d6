"""Regexes of bounded numbers against arithmetic."""

from __future__ import annotations

import json
import re
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nprdsl.grammar.json_numbers import Interval, decimals, integers, multiples
from nprdsl.regular.dfa import compile_regex

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


BROKEN = st.one_of(
    st.floats(-1e12, 1e12, allow_nan=False),
    st.floats(-2, 2, allow_nan=False),
    st.sampled_from([1e8, 0.1, -0.1, 1e-12, 1e15, 1e17, 2**53 + 1, -(10**20), 123456.789]),
)
BROKEN_INTERVALS = st.builds(
    Interval, st.none() | BROKEN, st.none() | BROKEN, st.booleans(), st.booleans()
)


@given(BROKEN_INTERVALS, st.lists(st.integers(0, 255), max_size=30))
@example(Interval(1e8, None, low_open=True), [49, 48, 48, 48, 48, 48, 48, 48, 48, 46, 48, 48])
@example(Interval(2**53 + 1, None), [])
def test_decimals_lie_inside_as_they_are_read(interval, choices):
    """As a float (pydantic) and as what `json` makes of it, compared exactly."""
    pattern = decimals(interval)
    if pattern is None:
        return
    dfa = compile_regex(pattern)
    text, state = b"", dfa.start
    for choice in choices:
        alive = dfa.table[state].nonzero()[0]
        text += bytes([alive[choice % len(alive)]]) if len(alive) else b""
        state = dfa.run(text)
    text += dfa.completion(state)
    for read in (float(text), json.loads(text)):
        assert (
            interval.low is None
            or read > interval.low
            or (read == interval.low and not interval.low_open)
        )
        assert (
            interval.high is None
            or read < interval.high
            or (read == interval.high and not interval.high_open)
        )


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        (Interval(0.1, 0.3), ["0.1", "0.30", "0.2999"], ["0.09", "0.300000001", "0"]),
        (Interval(-0.25, 1e-7), ["-0.25", "0", "0.0000001"], ["-0.250000001", "0.0000002"]),
        (Interval(0.5, None, low_open=True), ["0.500000001", "17"], ["0.5", "0.4"]),
    ],
)
def test_bounds_between_whole_numbers(interval, inside, outside):
    pattern = decimals(interval)
    assert all(matches(pattern, text) for text in inside)
    assert not any(matches(pattern, text) for text in outside)


def test_multiples():
    pattern = multiples(Interval(-20, 30, low_open=True), 7)
    assert [n for n in range(-40, 60) if matches(pattern, str(n))] == list(range(-14, 30, 7))
    assert multiples(Interval(1, 6), 7) is None
    with pytest.raises(ValueError, match="more than 1,000 multiples of 7"):
        multiples(Interval(0, None), 7)
