"""The parts of a word problem: each a small chain of arithmetic of its own, told in plain English.

A `Form` is a way to tell one kind of chain: noun phrases for lists (`7 packs of 23 pens`),
sentences, and the note with which its working begins. `Form.part` draws the numbers and gives a
`Part`: what the question says, what the plan is called, and the step.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from nprdsl.trainers.smol.worked import (
    Worked,
    added,
    divided,
    given,
    multiplied,
    percent,
    reduced,
    subtracted,
)


class Calculation(StrEnum):
    """What is worked out of the numbers a, b, c of a part."""

    GIVEN = "a"
    TIMES = "a*b"
    TIMES_PLUS = "a*b+c"
    TIMES_MINUS = "a*b-c"
    TIMES_TIMES = "a*b*c"
    TIMES_SHARE = "a*b/c"
    SUM = "a+b"
    SUM_THREE = "a+b+c"
    SUM_LESS = "a+b-c"
    SUM_TIMES = "(a+b)*c"
    LESS = "a-b"
    LESS_LESS = "a-b-c"
    LESS_PLUS = "a-b+c"
    LESS_TIMES = "(a-b)*c"
    LESS_PRODUCT = "a-b*c"
    LESS_SHARE = "(a-b)/c"
    SHARE = "a/b"
    SHARE_TIMES = "a/b*c"
    SHARE_PLUS = "a/b+c"
    SHARE_LESS = "a/b-c"
    SUM_SHARE = "(a+b)/c"
    PERCENT = "b percent of a"
    RAISED = "a and b percent more"
    REDUCED = "a less b percent"
    REDUCED_TIMES = "c times (a less b percent)"
    HOURS = "60*a+b"
    HOURS_LESS = "60*a+b-c"
    WEEKS = "7*a+b"
    DOZENS = "12*a+b"
    DOZENS_LESS = "12*a-b"
    FEET = "3*a+b"


_UNITS: Final = {
    Calculation.HOURS: 60,
    Calculation.WEEKS: 7,
    Calculation.DOZENS: 12,
    Calculation.FEET: 3,
}


class Size(StrEnum):
    """How large the numbers of a part are: its result has at most two digits, or three."""

    SMALL = "small"
    LARGE = "large"

    @property
    def most(self) -> int:
        return 99 if self is Size.SMALL else 990


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a question. `told` is a sentence, `listed` a noun phrase for an enumeration."""

    name: str
    listed: str
    told: str
    step: str
    value: int


@dataclass(frozen=True, slots=True)
class Form:
    """A way to tell a chain. Texts have the slots {a} {b} {c} of numbers and {x} of what is
    counted. `note` is how the step begins; it says which number is what."""

    chain: Calculation
    listed: str
    told: Sequence[str]
    note: str = ""

    def part(self, rng: random.Random, thing: str, size: Size) -> Part:
        """A part with numbers drawn for the size."""
        while True:
            numbers = drawn_numbers(rng, self.chain, size)
            slots = dict(zip("abc", numbers, strict=False)) | {"x": thing}
            listed = self.listed.format(**slots)
            note = (self.note or self.listed).format(**slots)
            try:
                part = worked_part(thing, note, self.chain, numbers)
            except ValueError:
                continue
            if 0 < part.value <= size.most:
                break
        told = rng.choice(self.told).format(**slots) if self.told else ""
        return replace(part, listed=listed, told=told)


def worked_part(name: str, note: str, chain: Calculation, numbers: Sequence[int]) -> Part:
    """A part that is told elsewhere. Raises ValueError where its numbers do not suit the chain."""
    worked = work(chain, numbers)
    shown = note if chain is Calculation.GIVEN else f"{note}: {worked.text}"
    return Part(name, "", "", f"{shown}.", worked.value)


def work(chain: Calculation, numbers: Sequence[int]) -> Worked:
    """The working of a chain. Raises ValueError where its numbers do not suit it."""
    a, b, c = (*numbers, 0, 0)[:3]
    match chain:
        case Calculation.GIVEN:
            return given(a)
        case Calculation.TIMES:
            return multiplied(a, b)
        case Calculation.TIMES_PLUS:
            product = multiplied(a, b)
            return product.then(added([product.value, c]))
        case Calculation.TIMES_MINUS:
            product = multiplied(a, b)
            return product.then(subtracted(product.value, c))
        case Calculation.TIMES_TIMES:
            product = multiplied(a, b)
            return product.then(multiplied(product.value, c))
        case Calculation.TIMES_SHARE:
            product = multiplied(a, b)
            return product.then(divided(product.value, c))
        case Calculation.SUM:
            return added([a, b])
        case Calculation.SUM_THREE:
            return added([a, b, c])
        case Calculation.SUM_LESS:
            both = added([a, b])
            return both.then(subtracted(both.value, c))
        case Calculation.SUM_TIMES:
            both = added([a, b])
            return both.then(multiplied(both.value, c))
        case Calculation.LESS:
            return subtracted(a, b)
        case Calculation.LESS_LESS:
            rest = subtracted(a, b)
            return rest.then(subtracted(rest.value, c))
        case Calculation.LESS_PLUS:
            rest = subtracted(a, b)
            return rest.then(added([rest.value, c]))
        case Calculation.LESS_TIMES:
            rest = subtracted(a, b)
            return rest.then(multiplied(rest.value, c))
        case Calculation.LESS_PRODUCT:
            product = multiplied(b, c)
            return product.then(subtracted(a, product.value))
        case Calculation.DOZENS_LESS:
            dozens = multiplied(a, 12)
            return dozens.then(subtracted(dozens.value, b))
        case Calculation.HOURS_LESS:
            hours = work(Calculation.HOURS, (a, b))
            return hours.then(subtracted(hours.value, c))
        case Calculation.LESS_SHARE:
            rest = subtracted(a, b)
            return rest.then(divided(rest.value, c))
        case Calculation.SHARE:
            return divided(a, b)
        case Calculation.SHARE_TIMES:
            share = divided(a, b)
            return share.then(multiplied(share.value, c))
        case Calculation.SHARE_PLUS:
            share = divided(a, b)
            return share.then(added([share.value, c]))
        case Calculation.SHARE_LESS:
            share = divided(a, b)
            return share.then(subtracted(share.value, c))
        case Calculation.SUM_SHARE:
            both = added([a, b])
            return both.then(divided(both.value, c))
        case Calculation.PERCENT:
            return percent(a, b)
        case Calculation.RAISED:
            more = percent(a, b)
            return more.then(added([a, more.value]))
        case Calculation.REDUCED:
            return reduced(a, b)
        case Calculation.REDUCED_TIMES:
            price = reduced(a, b)
            return price.then(multiplied(price.value, c))
        case _:
            whole = multiplied(a, _UNITS[chain])
            return whole.then(added([whole.value, b])) if b else whole


def drawn_numbers(rng: random.Random, chain: Calculation, size: Size) -> tuple[int, ...]:
    """Numbers as they occur in everyday life; those of a small part are small."""
    small = size is Size.SMALL
    digit = rng.randint(2, 9)
    longer = _factor(rng, small)
    match chain:
        case Calculation.GIVEN:
            return (rng.randint(5, 99 if small or rng.random() < 0.7 else 400),)
        case Calculation.TIMES:
            if not small and rng.random() < 0.1:
                return _shuffled(rng, rng.choice((11, 12, 12, 15, 20, 30)), rng.randint(11, 60))
            return _shuffled(rng, digit, longer)
        case Calculation.TIMES_PLUS | Calculation.TIMES_MINUS:
            return (*_shuffled(rng, digit, longer), rng.randint(2, 9 if rng.random() < 0.5 else 60))
        case Calculation.TIMES_TIMES:
            return (rng.randint(2, 6), rng.randint(2, 9), rng.randint(2, 9))
        case Calculation.SUM | Calculation.LESS:
            most = 60 if small else 300
            return (rng.randint(10, most), rng.randint(4, most))
        case (
            Calculation.SUM_LESS
            | Calculation.SUM_THREE
            | Calculation.LESS_LESS
            | Calculation.LESS_PLUS
        ):
            most = 60 if small else 400
            return (rng.randint(20, most), rng.randint(3, most // 2), rng.randint(2, most // 2))
        case Calculation.SUM_TIMES | Calculation.LESS_TIMES:
            return (rng.randint(8, 30 if small else 90), rng.randint(2, 20), digit)
        case Calculation.LESS_PRODUCT:
            return (rng.randint(30, 99 if small else 600), digit, longer)
        case Calculation.SHARE:
            return (digit * (rng.randint(2, 12) if small else rng.randint(5, 60)), digit)
        case Calculation.SHARE_TIMES | Calculation.SHARE_PLUS | Calculation.SHARE_LESS:
            return (digit * rng.randint(2, 12 if small else 40), digit, rng.randint(2, 9))
        case Calculation.TIMES_SHARE:
            return (rng.randint(2, 12), digit * rng.randint(1, 4 if small else 9), digit)
        case Calculation.SUM_SHARE | Calculation.LESS_SHARE:
            other, value = rng.randint(2, 30 if small else 90), rng.randint(2, 12 if small else 40)
            one = digit * value + (other if chain is Calculation.LESS_SHARE else -other)
            return (max(1, one), other, digit)
        case Calculation.PERCENT | Calculation.RAISED:
            return (10 * rng.randint(2, 10 if small else 30), rng.choice((10, 20, 25, 30, 40, 50)))
        case Calculation.REDUCED | Calculation.REDUCED_TIMES:
            price = 10 * rng.randint(2, 10 if small else 30)
            return (price, rng.choice((10, 20, 20, 30, 40, 50, 50)), rng.randint(2, 6))
        case Calculation.DOZENS:
            return (rng.randint(2, 7 if small else 20), rng.choice((0, rng.randint(1, 11))))
        case Calculation.DOZENS_LESS:
            return (rng.randint(2, 7 if small else 20), rng.randint(2, 60))
        case Calculation.HOURS_LESS:
            return (rng.randint(1, 5), rng.randint(1, 59), rng.randint(5, 60))
        case _:
            rest = {Calculation.HOURS: 59, Calculation.WEEKS: 6, Calculation.FEET: 2}[chain]
            most = (
                1
                if chain is Calculation.HOURS and small
                else 6
                if chain is Calculation.HOURS
                else 20
            )
            return (rng.randint(1, most), rng.randint(1, rest))


def _factor(rng: random.Random, small: bool) -> int:
    draw = rng.random()
    if draw < 0.4:
        return rng.randint(2, 12)
    if draw < 0.55:
        return 10 * rng.randint(1, 5 if small else 9)
    return rng.randint(11, 30 if small else 99)


def _shuffled(rng: random.Random, one: int, other: int) -> tuple[int, int]:
    return (one, other) if rng.random() < 0.75 else (other, one)
