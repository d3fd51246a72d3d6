"""Arithmetic with its working, as a person does it in the head: by hundreds, tens and ones.

In go whole numbers; out come `Worked` values: the lines of the working and the result. Models of
this size know sums and products of single digits and nothing beyond, and their tokenizers split
numbers into digits; so a sum is first written by its places and then put together, two at a time:
`64+99=150+13=163`, a product likewise (`124*6=600+120+24=720+24=744`), and a difference takes one
place after the other away, and ones by way of the ten below where they borrow
(`126-37=96-7=90-1=89`). A quotient is found digit by digit. Tokens are few, and each follows from
facts of single digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

LARGEST: Final = 9_999


@dataclass(frozen=True, slots=True)
class Worked:
    """The working and the number that it ends with."""

    text: str
    value: int

    def __post_init__(self) -> None:
        if not 0 <= self.value <= LARGEST:
            raise ValueError(f"`{self.text}` gives {self.value}; worked are 0 to {LARGEST}")

    def then(self, other: Worked) -> Worked:
        """This working, and the other behind it, which gives the result."""
        return Worked(f"{self.text}, {other.text}", other.value)


def given(value: int) -> Worked:
    """A number that needs no working."""
    return Worked(f"{value}", value)


def added(numbers: Sequence[int]) -> Worked:
    """The sum of two or more numbers, one after another."""
    totals = list(accumulate(numbers))
    texts = [
        _written(f"{total}+{number}", _by_place(total, number), total + number)
        for total, number in zip(totals, numbers[1:], strict=False)
    ]
    return Worked(", ".join(texts), totals[-1])


def subtracted(number: int, less: int) -> Worked:
    """The difference: hundreds, tens and ones are taken away in turn."""
    taken = [part for part in _places(less) if part] or [0]
    if 0 < (over := number % 10) < (ones := less % 10):  # by way of the ten below
        taken = [*taken[:-1], over, ones - over]
    lefts = list(accumulate((-part for part in taken), initial=number))
    rests = list(accumulate((-part for part in taken), initial=less))
    chain = "=".join(
        f"{left}-{rest}" for left, rest in zip(lefts, rests, strict=True) if rest or not less
    )
    return Worked(f"{chain}={number - less}", number - less)


def multiplied(number: int, factor: int) -> Worked:
    """A product, by the places of the longer number; two numbers of two digits by tens and ones of
    the smaller."""
    if min(number, factor) <= 10:
        return _by_digit(number, factor)
    number, factor = max(number, factor), min(number, factor)
    tens, ones = _places(factor)
    by_tens = _by_digit(number, tens)
    if not ones:
        return by_tens
    by_ones = _by_digit(number, ones)
    return by_tens.then(by_ones).then(added([by_tens.value, by_ones.value]))


def divided(number: int, divisor: int) -> Worked:
    """An exact quotient, digit by digit where it has more than one: `156/6: 15 is 2*6+3, 36 is 6*6,
    so 26`."""
    quotient, rest = divmod(number, divisor)
    if rest or not 1 < divisor <= 10:
        raise ValueError(f"{number}/{divisor} is not worked here")
    if quotient <= 10 or divisor == 10 or not quotient % 10 ** (len(f"{quotient}") - 1):
        return Worked(f"{number}/{divisor}={quotient}", quotient)
    found, left = list[str](), 0
    for digit in f"{number}":
        left = 10 * left + int(digit)
        times, rest = divmod(left, divisor)
        if times or found:
            found.append(f"{left} is {times}*{divisor}" + (f"+{rest}" if rest else ""))
        left = rest
    return Worked(f"{number}/{divisor}: {', '.join(found)}, so {quotient}", quotient)


def percent(number: int, rate: int) -> Worked:
    """So many percent of a number: by way of a tenth, a quarter or the half."""
    whole = {50: 2, 25: 4}.get(rate)
    if whole is not None:
        share = divided(number, whole)
        return Worked(f"{rate}% of {number} is {number}/{whole}, {share.text}", share.value)
    if rate % 10 or number % 10:
        raise ValueError(f"{rate}% of {number} is not worked here")
    tenth = Worked(f"10% of {number} is {number // 10}", number // 10)
    return tenth if rate == 10 else tenth.then(multiplied(tenth.value, rate // 10))


def reduced(price: int, rate: int) -> Worked:
    """A price with so many percent off."""
    if rate == 50 and not price % 2:
        return Worked(f"half of {price} is {price // 2}", price // 2)
    off = percent(price, rate)
    return off.then(subtracted(price, off.value))


def _by_digit(number: int, factor: int) -> Worked:
    longer, digit = max(number, factor), min(number, factor)
    places = [longer] if longer < 10 or digit == 10 else _places(longer)
    parts = [place * digit for place in places if place]
    return Worked(_written(f"{number}*{factor}", parts, number * factor), number * factor)


def _places(number: int) -> list[int]:
    """What the digits of a number stand for, from the left: 305 is 300, 0, 5."""
    digits = f"{number}"
    return [int(digit) * 10 ** (len(digits) - place) for place, digit in enumerate(digits, 1)]


def _by_place(one: int, other: int) -> list[int]:
    """The sums of two numbers' hundreds, tens and ones; the whole where no two digits meet."""
    width = len(str(max(one, other)))
    rows = [[0] * (width - len(str(number))) + _places(number) for number in (one, other)]
    if not any(a and b for a, b in zip(*rows, strict=True)):
        return [one + other]
    return [a + b for a, b in zip(*rows, strict=True) if a + b]


def _written(asked: str, parts: Sequence[int], value: int) -> str:
    """`asked`, the parts of the result, summed up two at a time, and the result."""
    totals = list(accumulate(parts))
    sums = ["+".join(map(str, [totals[n], *parts[n + 1 :]])) for n in range(len(parts) - 1)]
    return "=".join([asked, *sums, f"{value}"])
