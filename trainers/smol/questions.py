"""Word problems with their whole solution: question, trace in the language `npr`, answer.

`question` draws one: one to six parts of a family, each worked in a branch of its own, then what is
asked of them (`Asked`). Six parts, more than a block of `npr` has plans, make two blocks; what asks
for a product or a share of the total makes a second block of one plan, which depends on the first.
`tale_question` draws one that is told as a person would.
The four splits never meet: seeds differ, equal questions are dropped, and `Split.UNSEEN` has
families, people and ways to ask that the others lack.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from nprdsl.trainers.data.problems import Problem, TraceExample
from nprdsl.trainers.smol.families import Asked, Family, Measure, world
from nprdsl.trainers.smol.parts import Part, Size
from nprdsl.trainers.smol.registers import drawn_register, hailed
from nprdsl.trainers.smol.tales import Tale, aside, tales, tell
from nprdsl.trainers.smol.worked import Worked, added, divided, multiplied, subtracted

_PLANS: Final = 5  # of a block of `npr`
_PARTS: Final = {1: 8, 2: 32, 3: 34, 4: 18, 5: 5, 6: 3}  # weights
_TALES: Final = 0.6  # of the questions of training
_FIRST: Final = 0.15  # of the tales, whose question stands before them where it can
_IDLE: Final = 0.06  # of the tales, with a number that does not matter
_BACKWARD: Final = re.compile(
    r"\b(that|it|they|them|this|these|those|together|total)\b|[.?] .", re.I
)

_GOALS: Final = ("at least", "or more", "enough for {n}")  # `enough` is then a number to reach

_ASKED: Final = {
    Asked.TOTAL: 50,
    Asked.MORE: 13,
    Asked.LEFT: 15,
    Asked.ENOUGH: 6,
    Asked.SHARE: 6,
    Asked.REPEAT: 5,
    Asked.MOST: 5,
}
_ASKED_OF_TALES: Final = {**_ASKED, Asked.MORE: 25, Asked.LEFT: 11, Asked.MOST: 15}


class Split(StrEnum):
    """What a question is for; the values are part of the seed."""

    TRAIN = "train"
    DEVELOP = "develop"
    TEST = "test"
    UNSEEN = "unseen"


@dataclass(frozen=True, slots=True)
class WordProblem:
    """A question with its solution; `parts` are worked side by side, five at most."""

    family: str
    asked: Asked
    parts: int
    prompt: str
    trace: str
    answer: str

    @property
    def name(self) -> str:
        return f"{self.family}-{self.asked}-{self.parts}"


@dataclass(frozen=True, slots=True)
class _Conclusion:
    """What is asked: its sentence, the takeaway, a second block if it needs one, the answer."""

    sentence: str
    takeaway: str
    answer: str
    more: str = ""


def question(rng: random.Random, *, unseen: bool = False) -> WordProblem:
    """One question; `unseen` draws from what training never holds."""
    while True:
        drawn = _question(rng, unseen)
        if drawn is not None:
            return drawn


def tale_question(rng: random.Random, *among: Tale) -> WordProblem:
    """One question that is a tale (`nprdsl.trainers.smol.tales`): one of those given, or of all,
    the more often the more wordings it has."""
    while True:
        who = rng.choice(world().people)
        (tale,) = rng.choices(among or tales(), weights=[len(t.told) for t in among or tales()])
        told = tell(rng, tale, who)
        register = drawn_register(rng, told.text)
        parts = [
            replace(part, name=register.named(part.name), step=register.worked(part.step))
            for part in told.parts
        ]
        is_asked = told.text.endswith("?")
        kinds = [Asked.TOTAL] if is_asked else list(told.measure)
        (asked,) = rng.choices(kinds, weights=[_ASKED_OF_TALES[kind] for kind in kinds])
        concluded = _concluded(rng, told.measure, who, asked, parts, _any_budget)
        if concluded is not None:
            sentence = "" if is_asked else concluded.sentence.format(who=who)
            text = _placed(rng, told.text, sentence, who)
            trace = _trace(parts, concluded)
            prompt = register.typed(text)
            return WordProblem(told.name, asked, len(parts), prompt, trace, concluded.answer)


def _placed(rng: random.Random, told: str, sentence: str, who: str) -> str:
    """A tale with what is asked: where it says so, behind it, or before it."""
    if not sentence and len(told.split()) < 8:  # a plain sum
        return told
    if "{ask}" in told:
        return hailed(rng, told.replace("{ask}", sentence))
    if rng.random() < _IDLE:
        told = f"{aside(rng, who)} {told}"
    if sentence and told[-1] not in ".?!" and rng.random() < 0.7:
        told = f"{told}."
    is_first = rng.random() < _FIRST and not _BACKWARD.search(sentence)
    return hailed(rng, (f"{sentence} {told}" if is_first else f"{told} {sentence}").strip())


def questions(split: Split, count: int, seed: int = 0) -> Iterator[WordProblem]:
    """`count` questions of a split, all different; fewer are the first of more. Most of those for
    training are tales."""
    rng = random.Random(f"smol {split} {seed}")
    taken = set[str]()
    while len(taken) < count:
        if split is Split.TRAIN and rng.random() < _TALES:
            drawn = tale_question(rng)
        else:
            drawn = question(rng, unseen=split is Split.UNSEEN)
        if drawn.prompt not in taken and split in (Split.UNSEEN, _owner(drawn.prompt)):
            taken.add(drawn.prompt)
            yield drawn


def problems(split: Split, count: int, seed: int = 0) -> Iterator[Problem]:
    """The same, as problems."""
    for number, one in enumerate(questions(split, count, seed)):
        yield Problem(f"{split}-{number}-{one.name}", one.prompt, one.answer)


def traces(split: Split, count: int, seed: int = 0) -> Iterator[TraceExample]:
    """The same, as traces to learn from."""
    for number, one in enumerate(questions(split, count, seed)):
        yield TraceExample(f"{split}-{number}-{one.name}", one.prompt, one.trace)


def _owner(prompt: str) -> Split:
    """The split that a question of the known families belongs to, by its text alone."""
    return {0: Split.DEVELOP, 1: Split.TEST}.get(zlib.crc32(prompt.encode()) % 8, Split.TRAIN)


# -- one question ----------------------------------------------------------------------------------


def _question(rng: random.Random, unseen: bool) -> WordProblem | None:
    """One question, or None where its numbers do not suit what is asked."""
    family = rng.choice([family for family in world().families if family.unseen is unseen])
    who = rng.choice(world().unseen_people if unseen else world().people)
    (count,) = rng.choices(list(_PARTS), weights=list(_PARTS.values()))
    (asked,) = rng.choices(list(_ASKED), weights=list(_ASKED.values()))
    count = min(count, len(family.things))
    if count in (1, _PLANS + 1) and asked in (Asked.MORE, Asked.MOST):
        asked = Asked.TOTAL
    parts = _parts(rng, family, count)
    concluded = _concluded(rng, family.measure, who, asked, parts, _budget)
    if concluded is None:
        return None
    prompt = _told(rng, family, who, parts, concluded.sentence)
    trace = _trace(parts, concluded)
    return WordProblem(family.name, asked, count, prompt, trace, concluded.answer)


def _parts(rng: random.Random, family: Family, count: int) -> list[Part]:
    """Parts with names of their own; the more there are, the smaller their numbers."""
    large = {1: 0.6, 2: 0.4, 3: 0.2}.get(count, 0.05)
    few = rng.sample(list(family.forms), min(len(family.forms), rng.randint(1, 4)))
    return [
        rng.choice(few).part(rng, thing, Size.LARGE if rng.random() < large else Size.SMALL)
        for thing in rng.sample(list(family.things), count)
    ]


def _told(rng: random.Random, family: Family, who: str, parts: Sequence[Part], asked: str) -> str:
    """The text of a question: a setting, the parts as a list or as sentences, what is asked."""
    sentences = list[str]()
    if family.settings and rng.random() < 0.4:
        sentences.append(rng.choice(family.settings))
    if rng.random() < 0.5 and all(part.told for part in parts):
        if rng.random() < 0.5:
            sentences.append(rng.choice(family.lists).format(who=who, list=_named(parts)))
        sentences += [part.told for part in parts]
    else:
        listed = _list([part.listed for part in parts])
        sentences.append(rng.choice(family.lists).format(who=who, list=listed))
    if family.idle and rng.random() < 0.15:
        sentences.insert(rng.randint(0, len(sentences)), rng.choice(family.idle))
    if rng.random() < 0.1:
        sentences.insert(0, asked)
    else:
        sentences.append(asked)
    return " ".join(_capital(sentence.format(who=who)) for sentence in sentences)


def _named(parts: Sequence[Part]) -> str:
    return _list([part.name for part in parts])


def _list(texts: Sequence[str]) -> str:
    if len(texts) == 1:
        return texts[0]
    return f"{', '.join(texts[:-1])} and {texts[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# -- what is asked ---------------------------------------------------------------------------------


def _concluded(
    rng: random.Random,
    measure: Measure,
    who: str,
    asked: Asked,
    parts: Sequence[Part],
    budget_above: Callable[[random.Random, int], int],
) -> _Conclusion | None:
    """What is asked, with its working; None where the numbers do not suit it."""
    values = _summed(parts)
    total = sum(values)
    phrase = rng.choice(measure[asked]).replace("{who}", who)
    if total > 999 and asked is not Asked.TOTAL:
        return None
    match asked:
        case Asked.TOTAL:
            return _Conclusion(phrase, _total(values), str(total))
        case Asked.MORE:
            one, other = rng.sample(list(parts), 2)
            if one.value <= other.value:
                return None
            worked = subtracted(one.value, other.value)
            sentence = phrase.format(x=one.name, y=other.name, who=who)
            takeaway = (
                f"{_capital(one.name)} {one.value}, {other.name} {other.value}: {worked.text}."
            )
            return _Conclusion(sentence, takeaway, str(worked.value))
        case Asked.LEFT:
            budget = budget_above(rng, total)
            worked = subtracted(budget, total)
            takeaway = f"{_total(values)} Left: {worked.text}."
            return _Conclusion(phrase.format(n=budget, who=who), takeaway, str(worked.value))
        case Asked.ENOUGH:
            return _enough(rng, phrase, who, values)
        case Asked.SHARE:
            fitting = [n for n in range(2, 10) if total % n == 0]
            if not fitting:
                return None
            number = rng.choice(fitting)
            return _second(phrase, number, values, f"share of {number}", divided(total, number))
        case Asked.REPEAT:
            number = rng.randint(2, 9)
            worked = multiplied(total, number)
            return _second(phrase, number, values, f"{number} times", worked)
        case Asked.MOST:
            most = max(values)
            if values.count(most) > 1:
                return None
            takeaway = f"The largest of {_list([str(value) for value in values])} is {most}."
            return _Conclusion(phrase, takeaway, str(most))


def _second(
    phrase: str, number: int, values: Sequence[int], plan: str, worked: Worked
) -> _Conclusion:
    """A conclusion with a block of its own behind the total."""
    more = _block([(plan, f"{worked.text}.")], f"It is {worked.value}.")
    return _Conclusion(phrase.format(n=number), _total(values), str(worked.value), more)


def _enough(rng: random.Random, phrase: str, who: str, values: Sequence[int]) -> _Conclusion | None:
    """Yes or no: whether a budget covers the total, or the total reaches a goal."""
    total = sum(values)
    limit = max(1, total + rng.choice((-1, 1)) * rng.randint(1, max(2, total // 3)))
    goal = any(words in phrase.casefold() for words in _GOALS)
    if limit == total or limit > 999:
        return None
    answer = "yes" if (total > limit if goal else total < limit) else "no"
    relation = "more" if total > limit else "less"
    takeaway = f"{_total(values)} {total} is {relation} than {limit}."
    return _Conclusion(phrase.format(n=limit, who=who), takeaway, answer)


def _budget(rng: random.Random, total: int) -> int:
    """More than a total: often round, as money is."""
    step = rng.choice((10, 10, 50, 100))
    return (total // step + rng.randint(1, 3)) * step


def _any_budget(rng: random.Random, total: int) -> int:
    """Round, or any number above a total, so that differences of all sizes occur."""
    if rng.random() < 0.4:
        return total + rng.randint(1, rng.choice((9, 99, max(99, min(3 * total, 900 - total)))))
    return _budget(rng, total)


def _total(values: Sequence[int]) -> str:
    if len(values) == 1:
        return f"It is {values[0]}."
    return f"Total: {added(values).text}."


def _summed(parts: Sequence[Part]) -> list[int]:
    """What the last takeaway sums up: the total of a block before it counts as one."""
    values = [part.value for part in parts]
    half = _first_block(len(parts))
    return values if half == len(parts) else [sum(values[:half]), *values[half:]]


def _first_block(parts: int) -> int:
    """How many of the parts are worked in the first block."""
    return parts if parts <= _PLANS else parts // 2


# -- traces ----------------------------------------------------------------------------------------


def _trace(parts: Sequence[Part], concluded: _Conclusion) -> str:
    steps = [(part.name, _capital(part.step)) for part in parts]
    half = _first_block(len(steps))
    blocks = [_block(steps[half:] or steps, concluded.takeaway)]
    if half < len(steps):
        blocks.insert(0, _block(steps[:half], _total([part.value for part in parts[:half]])))
    more = [concluded.more] if concluded.more else []
    return "\n".join([*blocks, *more]) + f"\nThe answer is \\boxed{{{concluded.answer}}}."


def _block(steps: Sequence[tuple[str, str]], takeaway: str) -> str:
    plans = "".join(f"<plan>{n}: {name}</plan>\n" for n, (name, _) in enumerate(steps, 1))
    work = "".join(f"\n<step>\n{n}: {text}\n</step>" for n, (_, text) in enumerate(steps, 1))
    return f"<guideline>\n{plans}</guideline>{work}\n<takeaway>\n{takeaway}\n</takeaway>"
