"""The parts of a word problem: each a small chain of arithmetic of its own, told in plain English.

A `Form` is a way to tell one kind of chain: noun phrases for lists (`7 packs of 23 pens`),
sentences, and the note with which its working begins. `Form.part` draws the numbers and gives a
`Part`: what the question says, what the plan is called, and the step.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
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
    values = dict(zip("abc", (*numbers, 0, 0), strict=False))
    done: Worked | None = None
    for operation, left, right in _OPERATIONS.get(chain, ()):
        if done is not None:
            values["_"] = done.value
        one, other = (values[x] if isinstance(x, str) else x for x in (left, right))
        if operation is _plus and not other:
            continue  # hours and no minutes
        worked = operation(one, other)
        done = worked if done is None else done.then(worked)
    return given(values["a"]) if done is None else done


def _plus(one: int, other: int) -> Worked:
    return added([one, other])


_Operation = tuple[Callable[[int, int], Worked], str, str | int]
_TIMES: Final[_Operation] = (multiplied, "a", "b")
_SUM: Final[_Operation] = (_plus, "a", "b")
_LESS: Final[_Operation] = (subtracted, "a", "b")
_SHARE: Final[_Operation] = (divided, "a", "b")

# What a chain works out, one after another; `_` is what came out before.
_OPERATIONS: Final[Mapping[Calculation, Sequence[_Operation]]] = {
    Calculation.TIMES: [_TIMES],
    Calculation.TIMES_PLUS: [_TIMES, (_plus, "_", "c")],
    Calculation.TIMES_MINUS: [_TIMES, (subtracted, "_", "c")],
    Calculation.TIMES_TIMES: [_TIMES, (multiplied, "_", "c")],
    Calculation.TIMES_SHARE: [_TIMES, (divided, "_", "c")],
    Calculation.SUM: [_SUM],
    Calculation.SUM_THREE: [_SUM, (_plus, "_", "c")],
    Calculation.SUM_LESS: [_SUM, (subtracted, "_", "c")],
    Calculation.SUM_TIMES: [_SUM, (multiplied, "_", "c")],
    Calculation.SUM_SHARE: [_SUM, (divided, "_", "c")],
    Calculation.LESS: [_LESS],
    Calculation.LESS_LESS: [_LESS, (subtracted, "_", "c")],
    Calculation.LESS_PLUS: [_LESS, (_plus, "_", "c")],
    Calculation.LESS_TIMES: [_LESS, (multiplied, "_", "c")],
    Calculation.LESS_SHARE: [_LESS, (divided, "_", "c")],
    Calculation.LESS_PRODUCT: [(multiplied, "b", "c"), (subtracted, "a", "_")],
    Calculation.SHARE: [_SHARE],
    Calculation.SHARE_TIMES: [_SHARE, (multiplied, "_", "c")],
    Calculation.SHARE_PLUS: [_SHARE, (_plus, "_", "c")],
    Calculation.SHARE_LESS: [_SHARE, (subtracted, "_", "c")],
    Calculation.PERCENT: [(percent, "a", "b")],
    Calculation.RAISED: [(percent, "a", "b"), (_plus, "a", "_")],
    Calculation.REDUCED: [(reduced, "a", "b")],
    Calculation.REDUCED_TIMES: [(reduced, "a", "b"), (multiplied, "_", "c")],
    Calculation.HOURS: [(multiplied, "a", 60), (_plus, "_", "b")],
    Calculation.HOURS_LESS: [(multiplied, "a", 60), (_plus, "_", "b"), (subtracted, "_", "c")],
    Calculation.WEEKS: [(multiplied, "a", 7), (_plus, "_", "b")],
    Calculation.DOZENS: [(multiplied, "a", 12), (_plus, "_", "b")],
    Calculation.DOZENS_LESS: [(multiplied, "a", 12), (subtracted, "_", "b")],
    Calculation.FEET: [(multiplied, "a", 3), (_plus, "_", "b")],
}


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
        case Calculation.DOZENS:
            return (rng.randint(2, 7 if small else 20), rng.choice((0, rng.randint(1, 11))))
        case Calculation.DOZENS_LESS:
            return (rng.randint(2, 7 if small else 20), rng.randint(2, 60))
        case Calculation.HOURS_LESS:
            return (rng.randint(1, 5), rng.randint(1, 59), rng.randint(5, 60))
        case Calculation.HOURS:
            return (rng.randint(1, 1 if small else 6), rng.randint(1, 59))
        case Calculation.WEEKS | Calculation.FEET:
            return (rng.randint(1, 20), rng.randint(1, 6 if chain is Calculation.WEEKS else 2))
        case _:
            return _drawn_shares(rng, chain, digit, small)


def _drawn_shares(
    rng: random.Random, chain: Calculation, digit: int, small: bool
) -> tuple[int, ...]:
    """For chains with a quotient or percents, which come out whole."""
    match chain:
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
        case _:
            price = 10 * rng.randint(2, 10 if small else 30)
            return (price, rng.choice((10, 20, 20, 30, 40, 50, 50)), rng.randint(2, 6))


def _factor(rng: random.Random, small: bool) -> int:
    draw = rng.random()
    if draw < 0.4:
        return rng.randint(2, 12)
    if draw < 0.55:
        return 10 * rng.randint(1, 5 if small else 9)
    return rng.randint(11, 30 if small else 99)


def _shuffled(rng: random.Random, one: int, other: int) -> tuple[int, int]:
    return (one, other) if rng.random() < 0.75 else (other, one)
