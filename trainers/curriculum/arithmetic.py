"""The task of the curriculum: sums of products, worked digit by digit in the language `arith`.

Here are questions with their solutions, the problems that are asked, and the corpus that the model
reads before any stage. Three kinds of questions: `flat`, 2 to 8 products that are independent;
`dependent`, a second block that needs the sum of the first; `nested`, branches that hold a block of
their own. Work is written so that every digit follows from a few before it; numbers have five
digits, three in a row of a product. Branches stand at the same positions, so a result is named
where it stands: `=2:00645` is the product of step 2, `=2;18252` a multiple of another block's
total. A takeaway adds from the last digit on, so its numbers begin with that, and a digit of a sum
that carries is a letter, A for 10 to J for 19: `71730+2:54600=C6D40` is 3717 + 645 = 4362. So steps
are long, takeaways short, and eight branches can be three times as fast as one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from nprdsl.trace.journal import write_json_lines
from nprdsl.trainers.data.problems import Problem

LARGEST: Final = 99_999
_WITH_CARRY: Final = "0123456789ABCDEFGHIJ"
_PRODUCT: Final = ":"  # between the number of a step and its result
_MULTIPLE: Final = ";"

# Seeds of problems that no model is trained on.
_HELD_OUT: Final = 99
_DEVELOPMENT: Final = 98
_TEST: Final = 97


class QuestionKind(StrEnum):
    FLAT = "flat"
    DEPENDENT = "dependent"
    NESTED = "nested"


@dataclass(frozen=True, slots=True)
class Mixture:
    """How often a question is of each kind, and flat ones have so many parts: weights."""

    kinds: Mapping[QuestionKind, float]
    parts: Mapping[int, float]


ASKED: Final = Mixture(
    {QuestionKind.FLAT: 14, QuestionKind.DEPENDENT: 3, QuestionKind.NESTED: 3},
    {2: 6, 3: 5, 4: 4, 5: 2, 6: 1, 7: 1, 8: 1},
)
# Rare kinds are learned from more examples than they are asked for.
TRAINED: Final = Mixture(
    {QuestionKind.FLAT: 13, QuestionKind.DEPENDENT: 4, QuestionKind.NESTED: 3},
    {2: 5, 3: 4, 4: 4, 5: 3, 6: 2, 7: 2, 8: 2},
)


class Flaw(StrEnum):
    """What a half-taught writer of traces does wrong."""

    LOST_STEP = "lost-step"
    WRONG_LABEL = "wrong-label"
    NO_TAKEAWAY = "no-takeaway"
    STRAY = "stray"
    UNCLOSED = "unclosed"


@dataclass(frozen=True, slots=True)
class SolutionBranch:
    """A branch of a solution: its plan, a block inside it if it has one, the text of the work, and
    the result. `mark` says of what kind that is."""

    plan: str
    text: str
    value: int
    mark: str
    inner: SolutionBlock | None = None

    def step(self, number: int) -> str:
        """The work as step `number`, with its result."""
        return f"{self.text}={number}{self.mark}{self.value:05}"

    def body(self, number: int) -> str:
        """As `step`, behind the block inside."""
        return ("" if self.inner is None else self.inner.trace()) + self.step(number)


@dataclass(frozen=True, slots=True)
class SolutionBlock:
    """Branches and the takeaway that adds them up."""

    branches: tuple[SolutionBranch, ...]

    @property
    def value(self) -> int:
        return sum(branch.value for branch in self.branches)

    @property
    def takeaway(self) -> str:
        """The running total."""
        return totals([branch.value for branch in self.branches], self.branches[0].mark)

    def trace(self, flaw: Flaw | None = None) -> str:
        """The block in the language `arith`, with one flaw or none."""
        branches = list(enumerate(self.branches, 1))
        plans = "".join(f"<plan>{number}:{branch.plan}</plan>" for number, branch in branches)
        steps = [f"<step>{number}:{branch.body(number)}</step>" for number, branch in branches]
        takeaway = f"<takeaway>{self.takeaway}</takeaway>"
        match flaw:
            case Flaw.LOST_STEP:
                steps.pop()
            case Flaw.WRONG_LABEL:
                steps[-1] = f"<step>1:{self.branches[-1].body(len(branches))}</step>"
            case Flaw.NO_TAKEAWAY:
                takeaway = self.takeaway
            case Flaw.STRAY:
                steps[0] += ";"
            case Flaw.UNCLOSED:
                steps[0] = steps[0].removesuffix("</step>")
        return f"<guideline>{plans}</guideline>{''.join(steps)}{takeaway}"

    @property
    def plain(self) -> str:
        """The block without tags, one step after another."""
        steps = [
            ("" if branch.inner is None else branch.inner.plain + ";") + branch.step(number)
            for number, branch in enumerate(self.branches, 1)
        ]
        return ";".join([*steps, self.takeaway])


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its whole solution."""

    kind: QuestionKind
    prompt: str
    blocks: tuple[SolutionBlock, ...]

    @property
    def answer(self) -> str:
        return str(self.blocks[-1].value)

    @property
    def parts(self) -> int:
        """Branches of the first block."""
        return len(self.blocks[0].branches)

    def trace(self, flaw: Flaw | None = None) -> str:
        """The solution in the language `arith`; a flaw is put into its last block."""
        *blocks, last = self.blocks
        text = "".join(block.trace() for block in blocks) + last.trace(flaw)
        return f"{text}\\boxed{{{self.answer}}}"

    @property
    def plain(self) -> str:
        """The solution without tags, one step after another."""
        return ";".join(block.plain for block in self.blocks) + f";\\boxed{{{self.answer}}}"

    def problem(self, name: str) -> Problem:
        return Problem(name, self.prompt, self.answer)


# -- questions -------------------------------------------------------------------------------------


def question(rng: random.Random, mixture: Mixture = ASKED) -> Question:
    """One question of the mixture."""
    (kind,) = rng.choices(list(mixture.kinds), weights=list(mixture.kinds.values()))
    match kind:
        case QuestionKind.FLAT:
            (parts,) = rng.choices(list(mixture.parts), weights=list(mixture.parts.values()))
            return flat(rng, parts)
        case QuestionKind.DEPENDENT:
            return dependent(rng)
        case QuestionKind.NESTED:
            return nested(rng)


def flat(rng: random.Random, parts: int) -> Question:
    """`59*63+15*43+75*72?`"""
    block = SolutionBlock(_products(rng, parts))
    return Question(QuestionKind.FLAT, f"{_plans(block)}?", (block,))


def dependent(rng: random.Random) -> Question:
    """`x=59*63+15*43;x*6+x*3?`: the second block needs x."""
    while True:
        first = SolutionBlock(_products(rng, rng.randint(2, 3)))
        factors = [rng.randint(2, 9) for _ in range(rng.randint(2, 4))]
        if first.value * sum(factors) <= LARGEST:
            break
    second = SolutionBlock(tuple(multiple(first.value, factor) for factor in factors))
    asked = "+".join(f"x*{factor}" for factor in factors)
    return Question(QuestionKind.DEPENDENT, f"x={_plans(first)};{asked}?", (first, second))


def nested(rng: random.Random) -> Question:
    """`(97*52+70*81)*3+(55*65+50*88)*5?`: every branch has a block inside."""
    while True:
        block = SolutionBlock(tuple(_bracket(rng) for _ in range(rng.randint(2, 3))))
        if block.value <= LARGEST:
            break
    return Question(QuestionKind.NESTED, f"{_plans(block)}?", (block,))


def _bracket(rng: random.Random) -> SolutionBranch:
    while True:
        inner, factor = SolutionBlock(_products(rng, 2)), rng.randint(2, 9)
        if inner.value * factor <= LARGEST:
            plan = f"({_plans(inner)})*{factor}"
            return replace(multiple(inner.value, factor), plan=plan, inner=inner)


def _products(rng: random.Random, count: int) -> tuple[SolutionBranch, ...]:
    return tuple(product(rng.randint(10, 99), rng.randint(10, 99)) for _ in range(count))


def _plans(block: SolutionBlock) -> str:
    return "+".join(branch.plan for branch in block.branches)


# -- work ------------------------------------------------------------------------------------------


def product(a: int, b: int) -> SolutionBranch:
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
    return SolutionBranch(f"{a}*{b}", f"{a}*{b}:{first};{second};{columns}", a * b, _PRODUCT)


def _row(high: int, low: int, digit: int) -> str:
    """A two-digit number by a digit: `9*3=27,5*3+2=17=177`."""
    ones = low * digit
    tens = high * digit + ones // 10
    return (
        f"{low}*{digit}={ones:02},{high}*{digit}+{ones // 10}={tens:02}={tens * 10 + ones % 10:03}"
    )


def multiple(number: int, factor: int) -> SolutionBranch:
    """Five digits by one, from the last digit on."""
    parts, carry = [], 0
    for index, digit in enumerate(map(int, _reversed(number))):
        value = digit * factor + carry
        carried = f"+{carry}" if index else ""
        parts.append(f"{digit}*{factor}{carried}={value:02}")
        carry = value // 10
    name = f"{number:05}*{factor}"
    return SolutionBranch(name, f"{name}:{','.join(parts)}", number * factor, _MULTIPLE)


def totals(numbers: Sequence[int], mark: str = _PRODUCT) -> str:
    """The sums of the first two numbers, three, … all."""
    total, *rest = numbers
    parts = [_reversed(total)]
    for ordinal, number in enumerate(rest, 2):
        parts.append(f"{ordinal}{mark}{_reversed(number)}={_added(total, number)}")
        total += number
    return "+".join(parts)


def _added(a: int, b: int) -> str:
    """Digits of the sum, the last one first, each with what it carries."""
    digits, carry = "", 0
    for one, other in zip(_reversed(a), _reversed(b), strict=True):
        value = int(one) + int(other) + carry
        digits += _WITH_CARRY[value]
        carry = value // 10
    return digits


def _reversed(number: int) -> str:
    return f"{number:05}"[::-1]


# -- problems --------------------------------------------------------------------------------------


def problems(
    count: int, seed: int, without: Sequence[Problem] = (), mixture: Mixture = ASKED
) -> tuple[Problem, ...]:
    """`count` problems of the mixture that differ from each other and from those of `without`."""
    taken = {problem.prompt for problem in without}
    rng = random.Random(seed)
    made: list[Problem] = []
    while len(made) < count:
        asked = question(rng, mixture)
        if asked.prompt not in taken:
            taken.add(asked.prompt)
            made.append(asked.problem(f"{asked.kind}-{asked.parts}-{len(made)}"))
    return tuple(made)


def held_out(count: int = 500) -> tuple[Problem, ...]:
    """Problems that no model is trained on; fewer are the first of more."""
    return problems(count, _HELD_OUT)


def development(count: int = 200) -> tuple[Problem, ...]:
    """Others, to choose a recipe by."""
    return problems(count, _DEVELOPMENT, held_out())


def reported(count: int = 500) -> tuple[Problem, ...]:
    """Others, to report the recipe's models by, once it is chosen."""
    return problems(count, _TEST, (*held_out(), *development()))


def longer(count: int = 100) -> tuple[Problem, ...]:
    """Flat questions with more parts than are trained, 9 to 12."""
    rng = random.Random(_HELD_OUT)
    asked = [flat(rng, 9 + number % 4) for number in range(count)]
    return tuple(q.problem(f"{q.kind}-{q.parts}-{number}") for number, q in enumerate(asked))


# -- corpus ----------------------------------------------------------------------------------------


class DocumentKind(StrEnum):
    DRILL = "drill"
    PLAIN = "plain"
    LEGAL = "legal"
    FLAWED = "flawed"


_WEIGHTS: Final = {
    DocumentKind.DRILL: 0.4,
    DocumentKind.PLAIN: 0.15,
    DocumentKind.LEGAL: 0.2,
    DocumentKind.FLAWED: 0.25,
}
_SHORT: Final = 0.3  # of all documents, the first, have questions of two parts


def write_corpus(file: Path, count: int, seed: int) -> None:
    """`count` documents as rows of prompt and trace: what the model reads before any stage.

    Drills in adding, solutions without tags, traces, and traces with a flaw, as a half-taught
    writer makes them; short ones first. So the base model can do some of the arithmetic, and writes
    the format wrong half of the time: what the stages are there to mend.
    """
    rows = enumerate(_documents(count, seed))
    write_json_lines(
        file, ({"id": f"{kind}-{n}", "prompt": p, "trace": t} for n, (kind, p, t) in rows)
    )


def _documents(count: int, seed: int) -> Iterator[tuple[DocumentKind, str, str]]:
    rng = random.Random(seed)
    for number in range(count):
        (kind,) = rng.choices(list(_WEIGHTS), weights=list(_WEIGHTS.values()))
        if kind is DocumentKind.DRILL:
            yield kind, *_drill(rng)
            continue
        asked = flat(rng, 2) if number < _SHORT * count else question(rng, TRAINED)
        match kind:
            case DocumentKind.PLAIN:
                yield kind, asked.prompt, asked.plain
            case DocumentKind.LEGAL:
                yield kind, asked.prompt, asked.trace()
            case DocumentKind.FLAWED:
                yield kind, asked.prompt, asked.trace(rng.choice(list(Flaw)))


def _drill(rng: random.Random) -> tuple[str, str]:
    """A sum as it stands in a takeaway: `03717+00645?`."""
    count = rng.randint(2, 8)
    most = rng.choice((9_801, LARGEST // count))
    numbers = [rng.randint(100, most) for _ in range(count)]
    prompt = "+".join(f"{number:05}" for number in numbers) + "?"
    return prompt, f"{totals(numbers)}\\boxed{{{sum(numbers)}}}"
