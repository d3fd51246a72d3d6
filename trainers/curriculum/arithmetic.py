"""The task: sums of products, worked digit by digit in the language `arith`.

Three kinds of questions: `flat`, 2 to 8 products that are independent; `dependent`, a second block
that needs the sum of the first; `nested`, branches that hold a block of their own. Work is written
so that every digit follows from a few before it; numbers have five digits, three in a row of a
product. Branches stand at the same positions, so a result is named where it stands: `=2:00645` is
the product of step 2, `=2;18252` a multiple of another block's total. A takeaway adds from the last
digit on, so its numbers begin with that, and a digit of a sum that carries is a letter, A for 10 to
J for 19: `71730+2:54600=C6D40` is 3717 + 645 = 4362. So steps are long, takeaways short, and eight
branches can be three times as fast as one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from nprdsl.trainers.data.problems import Problem

LARGEST: Final = 99_999
_WITH_CARRY: Final = "0123456789ABCDEFGHIJ"
MOST: Final = 8  # parts of a flat question that are trained
_PRODUCT: Final = ":"  # between the number of a step and its result
_MULTIPLE: Final = ";"

_HELD_OUT: Final = 99  # the seed of held-out problems


class Kind(StrEnum):
    FLAT = "flat"
    DEPENDENT = "dependent"
    NESTED = "nested"


@dataclass(frozen=True, slots=True)
class Mixture:
    """How often a question is of each kind, and flat ones have so many parts: weights."""

    kinds: Mapping[Kind, float]
    parts: Mapping[int, float]


ASKED: Final = Mixture(
    {Kind.FLAT: 14, Kind.DEPENDENT: 3, Kind.NESTED: 3}, {2: 6, 3: 5, 4: 4, 5: 2, 6: 1, 7: 1, 8: 1}
)
# Rare kinds are learned from more examples than they are asked for.
TRAINED: Final = Mixture(
    {Kind.FLAT: 13, Kind.DEPENDENT: 4, Kind.NESTED: 3}, {2: 5, 3: 4, 4: 4, 5: 3, 6: 2, 7: 2, 8: 2}
)


class Flaw(StrEnum):
    """What a half-taught writer of traces does wrong."""

    LOST_STEP = "lost-step"
    WRONG_LABEL = "wrong-label"
    NO_TAKEAWAY = "no-takeaway"
    STRAY = "stray"
    UNCLOSED = "unclosed"


@dataclass(frozen=True, slots=True)
class Work:
    """One branch: its plan, a block inside it if it has one, the text of its work, and its result.
    `mark` says of what kind that is."""

    plan: str
    text: str
    value: int
    mark: str
    inner: Block | None = None

    def told(self, number: int) -> str:
        """The work as step `number`, with its result."""
        return f"{self.text}={number}{self.mark}{self.value:05}"


@dataclass(frozen=True, slots=True)
class Block:
    """Branches and the takeaway that adds them up."""

    works: tuple[Work, ...]

    @property
    def value(self) -> int:
        return sum(work.value for work in self.works)

    @property
    def takeaway(self) -> str:
        """The running total."""
        return totals([work.value for work in self.works], self.works[0].mark)


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its whole solution."""

    kind: Kind
    prompt: str
    blocks: tuple[Block, ...]

    @property
    def answer(self) -> str:
        return str(self.blocks[-1].value)

    @property
    def parts(self) -> int:
        """Branches of the first block."""
        return len(self.blocks[0].works)

    @property
    def trace(self) -> str:
        """The solution in the language `arith`."""
        return "".join(map(_block, self.blocks)) + f"\\boxed{{{self.answer}}}"

    def flawed(self, flaw: Flaw) -> str:
        """The solution with one flaw in its last block."""
        *blocks, last = self.blocks
        text = "".join(map(_block, blocks)) + _block(last, flaw)
        return text + f"\\boxed{{{self.answer}}}"

    @property
    def plain(self) -> str:
        """The solution without tags, one step after another."""
        return ";".join(map(_plain, self.blocks)) + f";\\boxed{{{self.answer}}}"

    def problem(self, name: str) -> Problem:
        return Problem(name, self.prompt, self.answer)


# -- questions -------------------------------------------------------------------------------------


def question(rng: random.Random, mixture: Mixture = ASKED) -> Question:
    """One question of the mixture."""
    (kind,) = rng.choices(list(mixture.kinds), weights=list(mixture.kinds.values()))
    match kind:
        case Kind.FLAT:
            (parts,) = rng.choices(list(mixture.parts), weights=list(mixture.parts.values()))
            return flat(rng, parts)
        case Kind.DEPENDENT:
            return dependent(rng)
        case Kind.NESTED:
            return nested(rng)


def flat(rng: random.Random, parts: int) -> Question:
    """`59*63+15*43+75*72?`"""
    works = _products(rng, parts)
    return Question(Kind.FLAT, "+".join(work.plan for work in works) + "?", (Block(works),))


def dependent(rng: random.Random) -> Question:
    """`x=59*63+15*43;x*6+x*3?`: the second block needs x."""
    while True:
        first = Block(_products(rng, rng.randint(2, 3)))
        factors = [rng.randint(2, 9) for _ in range(rng.randint(2, 4))]
        if first.value * sum(factors) <= LARGEST:
            break
    second = Block(tuple(multiple(first.value, factor) for factor in factors))
    given = "+".join(work.plan for work in first.works)
    asked = "+".join(f"x*{factor}" for factor in factors)
    return Question(Kind.DEPENDENT, f"x={given};{asked}?", (first, second))


def nested(rng: random.Random) -> Question:
    """`(97*52+70*81)*3+(55*65+50*88)*5?`: every branch has a block inside."""
    while True:
        works = tuple(_bracket(rng) for _ in range(rng.randint(2, 3)))
        if sum(work.value for work in works) <= LARGEST:
            break
    return Question(Kind.NESTED, "+".join(work.plan for work in works) + "?", (Block(works),))


def _bracket(rng: random.Random) -> Work:
    inner, factor = Block(_products(rng, 2)), rng.randint(2, 9)
    work = multiple(inner.value, factor) if inner.value * factor <= LARGEST else None
    if work is None:
        return _bracket(rng)
    plan = f"({'+'.join(part.plan for part in inner.works)})*{factor}"
    return replace(work, plan=plan, inner=inner)


def _products(rng: random.Random, count: int) -> tuple[Work, ...]:
    return tuple(product(rng.randint(10, 99), rng.randint(10, 99)) for _ in range(count))


# -- work ------------------------------------------------------------------------------------------


def product(a: int, b: int) -> Work:
    """Two digits by two digits: both rows, then their sum column by column."""
    (high, low), (tens, ones) = divmod(a, 10), divmod(b, 10)
    first, second = _row(high, low, ones), _row(high, low, tens)
    (first_tens, first_rest), (second_tens, second_rest) = (
        divmod(a * digit // 10, 10) for digit in (ones, tens)
    )
    second_ones = a * tens % 10
    middle = first_rest + second_ones
    above = first_tens + second_rest + middle // 10
    top = second_tens + above // 10
    columns = (
        f"{first_rest}+{second_ones}={middle:02},"
        f"{first_tens}+{second_rest}+{middle // 10}={above:02},"
        f"{second_tens}+{above // 10}={top:02}"
    )
    return Work(f"{a}*{b}", f"{a}*{b}:{first};{second};{columns}", a * b, _PRODUCT)


def _row(high: int, low: int, digit: int) -> str:
    """A two-digit number by a digit: `9*3=27,5*3+2=17=177`."""
    ones = low * digit
    tens = high * digit + ones // 10
    return (
        f"{low}*{digit}={ones:02},{high}*{digit}+{ones // 10}={tens:02}={tens * 10 + ones % 10:03}"
    )


def multiple(number: int, factor: int) -> Work:
    """Five digits by one, from the last digit on."""
    parts, carry = [], 0
    for place, digit in enumerate(map(int, _reversed(number))):
        value = digit * factor + carry
        carried = f"+{carry}" if place else ""
        parts.append(f"{digit}*{factor}{carried}={value:02}")
        carry = value // 10
    name = f"{number:05}*{factor}"
    return Work(name, f"{name}:{','.join(parts)}", number * factor, _MULTIPLE)


def totals(numbers: Sequence[int], mark: str = _PRODUCT) -> str:
    """The sums of the first two numbers, three, … all."""
    total, *rest = numbers
    parts = [_reversed(total)]
    for place, number in enumerate(rest, 2):
        parts.append(f"{place}{mark}{_reversed(number)}={_added(total, number)}")
        total += number
    return "+".join(parts)


def _added(a: int, b: int) -> str:
    """Digits of the sum, the last one first, each with what it carries."""
    found, carry = "", 0
    for one, other in zip(_reversed(a), _reversed(b), strict=True):
        value = int(one) + int(other) + carry
        found += _WITH_CARRY[value]
        carry = value // 10
    return found


def _reversed(number: int) -> str:
    return f"{number:05}"[::-1]


# -- writing ---------------------------------------------------------------------------------------


def _block(block: Block, flaw: Flaw | None = None) -> str:
    works = list(enumerate(block.works, 1))
    plans = "".join(f"<plan>{number}:{work.plan}</plan>" for number, work in works)
    steps = [f"<step>{number}:{_body(work, number)}</step>" for number, work in works]
    takeaway = f"<takeaway>{block.takeaway}</takeaway>"
    match flaw:
        case Flaw.LOST_STEP:
            steps.pop()
        case Flaw.WRONG_LABEL:
            steps[-1] = f"<step>1:{_body(block.works[-1], len(works))}</step>"
        case Flaw.NO_TAKEAWAY:
            takeaway = block.takeaway
        case Flaw.STRAY:
            steps[0] += ";"
        case Flaw.UNCLOSED:
            steps[0] = steps[0].removesuffix("</step>")
    return f"<guideline>{plans}</guideline>{''.join(steps)}{takeaway}"


def _body(work: Work, number: int) -> str:
    return ("" if work.inner is None else _block(work.inner)) + work.told(number)


def _plain(block: Block) -> str:
    works = [
        ("" if work.inner is None else _plain(work.inner) + ";") + work.told(number)
        for number, work in enumerate(block.works, 1)
    ]
    return ";".join([*works, block.takeaway])


# -- problems --------------------------------------------------------------------------------------


def problems(
    count: int, seed: int, without: Sequence[Problem] = (), mixture: Mixture = ASKED
) -> tuple[Problem, ...]:
    """`count` problems of the mixture that differ from each other and from those of `without`."""
    taken = {problem.prompt for problem in without}
    found: list[Problem] = []
    for asked in _stream(seed, mixture):
        if asked.prompt not in taken:
            taken.add(asked.prompt)
            found.append(asked.problem(f"{asked.kind}-{asked.parts}-{len(found)}"))
        if len(found) == count:
            break
    return tuple(found)


def held_out(count: int = 500) -> tuple[Problem, ...]:
    """The problems that no model is trained on; fewer are the first of more."""
    return problems(count, _HELD_OUT)


def longer(count: int = 100) -> tuple[Problem, ...]:
    """Flat questions with more parts than are trained, 9 to 12."""
    rng = random.Random(_HELD_OUT)
    asked = [flat(rng, 9 + number % 4) for number in range(count)]
    return tuple(q.problem(f"{q.kind}-{q.parts}-{number}") for number, q in enumerate(asked))


def _stream(seed: int, mixture: Mixture) -> Iterator[Question]:
    rng = random.Random(seed)
    while True:
        yield question(rng, mixture)
