"""Values are parted from what they count, and what measures the same is converted."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nprdsl.trainers.grading.grading import same
from nprdsl.trainers.grading.units import split

# what another library of units would say: how many of the second one of the first is
CONVERSIONS = [
    ("m", "cm", 100), ("km", "m", 1000), ("h", "min", 60), ("min", "s", 60), ("d", "h", 24),
    ("wk", "d", 7), ("ft", "in", 12), ("yd", "ft", 3), ("mi", "yd", 1760), ("kg", "g", 1000),
    ("lb", "oz", 16), ("L", "mL", 1000), ("m^3", "L", 1000), ("m^2", "cm^2", 10_000),
    ("kJ", "J", 1000),
    ("J", "N m", 1), ("W", "J/s", 1), ("V", "W/A", 1), ("Ω", "V/A", 1), ("Pa", "N/m^2", 1),
    ("bar", "kPa", 100), ("t", "kg", 1000), ("m/s", "km/h", Fraction(18, 5)), ("ha", "m^2", 10_000),
    ("B", "bit", 8), ("kWh", "MJ", Fraction(18, 5)), ("Hz", "s^-1", 1), ("mol", "mmol", 1000),
    ("MW", "mW", 10**9), ("square feet", "square inches", 144),
]  # fmt: skip
APART = ["m", "s", "kg", "$", "deg", "°C", "°F", "K", "A", "mol", "apples", "%", "m^2", "m/s", "N"]


@pytest.mark.parametrize(("one", "other", "count"), CONVERSIONS)
def test_conversions(one: str, other: str, count: Fraction) -> None:
    first, second = split(f"1 {one}")[1], split(f"1 {other}")[1]
    assert first.measures(second) and first.over(second) == count
    assert same(f"3 {one}", f"{float(3 * Fraction(count))!r} {other}") or count == Fraction(
        "3.785411784"
    )
    assert not same(f"3 {one}", f"{3 * Fraction(count) + 1} {other}")


@given(st.sampled_from(APART), st.sampled_from(APART), st.integers(1, 99))
def test_other_quantities_are_never_equal(one: str, other: str, value: int) -> None:
    assert same(f"{value} {one}", f"{value} {other}") is (one == other)


@pytest.mark.parametrize(
    ("text", "value", "powers"),
    [
        (r"12\pi\text{ cm}", r"12\pi", (("m", 1),)),
        (r"\$12.50", "12.50", (("$", 1),)),
        ("5 red apples", "5", (("red apple", 1),)),
        (r"3\times 10^8\ \mathrm{m\,s^{-1}}", r"3\times 10^8", (("m", 1), ("s", -1))),
        ("3 feet per second squared", "3", (("m", 1), ("s", -2))),
        ("5 minutes 30 seconds", "330", (("s", 1),)),
        (r"5\,\mu\text{m}", "5", (("m", 1),)),
        ("5x", "5x", ()),
        ("2 e", "2 e", ()),
        ("3 or 4", "3 or 4", ()),
        ("B or C", "B or C", ()),
        (r"2\sin x", r"2\sin x", ()),
        ("5 at least", "5 at least", ()),
    ],
)
def test_values_and_units(text: str, value: str, powers: tuple[tuple[str, int], ...]) -> None:
    found, unit, _ = split(text)
    assert (found, unit.powers) == (value, powers)
