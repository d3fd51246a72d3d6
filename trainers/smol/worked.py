"""Arithmetic with its working, as a person writes it on paper: digit by digit, carries named.

In go whole numbers; out come `Worked` values: the lines of the working and the result. Models of
this size know sums and products of single digits and nothing beyond, and their tokenizers split
numbers into digits; so every line follows from facts of single digits. Numbers that are added or
subtracted are padded to one width, so that digits of one column stand at one place:
`064+099: ones 4+9=13, tens 6+9=15+1=16, so 163`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_COLUMNS: Final = ("ones", "tens", "hundreds", "thousands")
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
    """The sum of two or more numbers, column by column from the ones on."""
    if len(numbers) == 2 and max(numbers) < 10:
        return Worked(f"{numbers[0]}+{numbers[1]}={sum(numbers)}", sum(numbers))
    rows = _padded(numbers)
    columns = [[int(row[-1 - place]) for row in rows] for place in range(len(rows[0]))]
    parts, digits, carry = list[str](), "", 0
    for name, column in zip(_COLUMNS, columns, strict=False):
        total = column[0]
        chain = f"{total}"
        for digit in [*column[1:], *([carry] if carry else [])]:
            total += digit
            chain += f"+{digit}={total}"
        parts.append(f"{name} {chain}")
        carry, digits = total // 10, f"{total % 10}{digits}"
    result = int(f"{carry}{digits}")
    return Worked(f"{'+'.join(rows)}: {', '.join(parts)}, so {result}", result)


def subtracted(number: int, less: int) -> Worked:
    """The difference; where a column is too small it takes ten from the next."""
    if number < 20 and less < 10:
        return Worked(f"{number}-{less}={number - less}", number - less)
    rows = _padded([number, less])
    parts, digits, taken = list[str](), "", 0
    for column, (top, bottom) in enumerate(zip(rows[0][::-1], rows[1][::-1], strict=True)):
        short = int(top) < int(bottom) + taken
        start = int(top) + 10 * short
        rest = start - int(bottom)
        chain = f"{start}-{bottom}={rest}"
        if taken:
            rest -= 1
            chain += f"-1={rest}"
        parts.append(f"{_COLUMNS[column]} {chain}")
        digits, taken = f"{rest}{digits}", int(short)
    text = f"{rows[0]}-{rows[1]}: {', '.join(parts)}, so {int(digits)}"
    return Worked(text, number - less)


def multiplied(number: int, factor: int) -> Worked:
    """A product: single digits from memory, else by the digits of the longer number; two numbers
    of two digits by tens and ones of the second."""
    number, factor = max(number, factor), min(number, factor)
    value = number * factor
    if number <= 10:
        return Worked(f"{number}*{factor}={value}", value)
    if factor <= 10:
        return _by_digit(number, factor)
    tens, ones = divmod(factor, 10)
    by_tens = _by_tens(number, tens)
    if not ones:
        return by_tens
    by_ones = multiplied(number, ones)
    return by_tens.then(by_ones).then(added([by_tens.value, by_ones.value]))


def divided(number: int, divisor: int) -> Worked:
    """An exact quotient, digit by digit where it has two."""
    quotient, rest = divmod(number, divisor)
    if rest or divisor > 10:
        raise ValueError(f"{number}/{divisor} is not worked here")
    if quotient <= 10:
        return Worked(f"{number}/{divisor}={quotient}", quotient)
    parts, left, begun = list[str](), 0, False
    for digit in str(number):
        left = left * 10 + int(digit)
        if left < divisor and not begun:
            continue
        begun = True
        whole, rest = divmod(left, divisor)
        parts.append(f"{left}/{divisor}={whole}" + (f" left {rest}" if rest else ""))
        left = rest
    return Worked(f"{number}/{divisor}: {', '.join(parts)}, so {quotient}", quotient)


def reduced(price: int, percent: int) -> Worked:
    """A price, a multiple of ten, with so many percent off."""
    if percent == 50:
        return Worked(f"half of {price} is {price // 2}", price // 2)
    tenth = price // 10
    off = Worked(f"10% of {price} is {tenth}", tenth)
    if percent != 10:
        off = off.then(multiplied(tenth, percent // 10))
    return off.then(subtracted(price, off.value))


def _by_digit(number: int, factor: int) -> Worked:
    if factor == 10:
        return Worked(f"{number}*10={number * 10}", number * 10)
    if number % 10 == 0:
        inner = multiplied(number // 10, factor)
        return Worked(f"{number}*{factor}: {inner.text}, so {inner.value * 10}", inner.value * 10)
    parts, digits, carry = list[str](), "", 0
    for name, digit in zip(_COLUMNS, reversed(str(number)), strict=False):
        total = int(digit) * factor
        chain = f"{digit}*{factor}={total}"
        if carry:
            total += carry
            chain += f"+{carry}={total}"
        parts.append(f"{name} {chain}")
        carry, digits = total // 10, f"{total % 10}{digits}"
    result = int(f"{carry}{digits}")
    return Worked(f"{number}*{factor}: {', '.join(parts)}, so {result}", result)


def _by_tens(number: int, tens: int) -> Worked:
    if tens == 1:
        return _by_digit(number, 10)
    inner = multiplied(number, tens)
    value = inner.value * 10
    return Worked(f"{number}*{tens}0: {inner.text}, so {value}", value)


def _padded(numbers: Sequence[int]) -> list[str]:
    width = len(str(max(numbers)))
    return [f"{number:0{width}}" for number in numbers]
