"""Word problems as people put them: short tales of one to five things, and plain sums.

Families tell every part in the same few ways; who asks in earnest does not. A `Tale` is a whole
text with slots for numbers and things, which names its parts and how each is worked. They stand in
`tales.json`, which this module reads; in goes a source of chance, out come a text, its `Part`s and
how it may be asked about. Training holds them, none of the generated suites does.
"""

from __future__ import annotations

import importlib.resources
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from nprdsl.trainers.smol.families import Asked, Measure, world
from nprdsl.trainers.smol.parts import Calculation, Part, Size, drawn_numbers, work, worked_part

_DAYS: Final = "uvs"
_THINGS: Final = "xyzw"
_HOLDERS: Final = "pq"
_BEGINNING: Final = re.compile(r"(?:^|(?<=[.?!] ))[a-z]")
_VOWEL: Final = re.compile(r"(?<=\b[Aa])(?= (?:[aio]|e(?!u)|u(?!ni|s)|8|1[18]\b))")
_ONE: Final = re.compile(r"(?<![\w.-])(1|[Oo]ne) (hour|minute|week|day|dollar|mile|yard|cent)s\b")
_FOOT: Final = re.compile(r"(?<![\w.-])(1|[Oo]ne) feet\b")
# Wordings whose numbers are not written in words.
_FIGURES: Final = re.compile(r"\}[%x:/*]|\} x |\bx ?\{|[$:/*]\{")
_HISSING: Final = re.compile(r"(?<=ch|sh|.x|ss)es$")
_MANY: Final = 3  # parts, which have smaller numbers
_SPELLED: Final = 0.2  # share of tales with small numbers in words
_WORDS: Final = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS: Final = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


@dataclass(frozen=True, slots=True)
class TalePart:
    """One part: its plan, how its step begins, its chain, and the slots or digits of its numbers;
    a slot that a part before it has means the same number."""

    name: str
    chain: Calculation
    numbers: str
    note: str


@dataclass(frozen=True, slots=True)
class Tale:
    """A text in several wordings; `{ask}` in one is where the question stands, else it is last.
    `pool`: what its things are drawn from; `things`: what is in them, where they hold something;
    `holders`: what they may be in; `ranges`: the numbers that suit its slots, where not all do."""

    name: str
    told: Sequence[str]
    parts: Sequence[TalePart]
    measure: Measure
    pool: Sequence[str]
    things: Sequence[str]
    holders: Sequence[str]
    ranges: Mapping[str, range]


@dataclass(frozen=True, slots=True)
class Told:
    """A tale with its numbers, and how its parts may be asked about."""

    name: str
    text: str
    parts: Sequence[Part]
    measure: Measure


@dataclass(frozen=True, slots=True)
class _Library:
    tales: Sequence[Tale]
    days: Sequence[str]
    idle: Sequence[str]


@cache
def _library() -> _Library:
    file = importlib.resources.files("nprdsl.trainers.smol") / "tales.json"
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    pools: Mapping[str, Sequence[str]] = data["pools"]
    measures: Mapping[str, Mapping[str, Sequence[str]]] = data["asks"]
    tales = [
        Tale(
            name=entry["name"],
            told=entry["told"],
            parts=[
                TalePart(**{**part, "chain": Calculation[part["chain"].upper()]})
                for part in entry["parts"]
            ],
            measure=_asks({**measures.get(entry.get("ask"), {}), **entry.get("asks", {})}),
            pool=pools.get(entry.get("pool"), ()),
            things=pools.get(entry.get("things"), ()),
            holders=pools.get(f"{entry.get('pool')} holders", pools["holders"]),
            ranges={
                slot: range(least, most + 1, *step)
                for slot, (least, most, *step) in entry.get("ranges", {}).items()
            },
        )
        for entry in data["tales"]
    ]
    return _Library(tales, pools["days"], data["idle"])


def _asks(group: Mapping[str, Sequence[str]]) -> Measure:
    """A measure; what has no phrases is not asked."""
    return {Asked(asked): phrases for asked, phrases in group.items() if phrases}


def tales() -> Sequence[Tale]:
    """All of them."""
    return _library().tales


def aside(rng: random.Random, who: str) -> str:
    """A sentence with a number that does not matter."""
    return rng.choice(_library().idle).format(who=who, k=rng.randint(3, 60))


def tell(rng: random.Random, tale: Tale, who: str) -> Told:
    """A tale about `who`, with numbers that suit it."""
    others = rng.sample([one for one in world().people if one != who], 2)
    slots = {"who": who, "who2": others[0], "who3": others[1], **_things(rng, tale)}
    large = 0.4 if len(tale.parts) < _MANY else 0.1
    size = Size.LARGE if rng.random() < large else Size.SMALL
    while (numbers := _numbers(rng, tale, size)) is None:
        pass
    shown = {slot: str(number) for slot, number in numbers.items()}
    parts = [
        worked_part(
            part.name.format(**slots, **shown),
            _put_right(part.note.format(**slots, **shown)),
            part.chain,
            [_value(numbers, letter) for letter in part.numbers],
        )
        for part in tale.parts
    ]
    wording = rng.choice(tale.told)
    if "{who}" not in wording:
        slots["who"] = ""
    measure = {asked: _filled(asked, asks, slots) for asked, asks in tale.measure.items()}
    if [""] not in measure.values() and not _FIGURES.search(wording) and rng.random() < _SPELLED:
        most = rng.choice((12, 99))
        shown = {slot: _spelled(number, most) for slot, number in numbers.items()}
    text = wording.format(**slots, **shown, ask="{ask}")
    return Told(tale.name, _put_right(text), parts, measure)


def _filled(asked: Asked, phrases: Sequence[str], slots: Mapping[str, str]) -> Sequence[str]:
    """Ways to ask with the tale's things in them. What asks for MORE has {x} and {y} for parts, and
    nobody is named who is not in the tale where it can be asked otherwise."""
    if not slots["who"]:
        phrases = [phrase for phrase in phrases if "{who}" not in phrase] or phrases
    kept = {"who", *("xy" if asked is Asked.MORE else "")}
    filling = {slot: text for slot, text in slots.items() if slot not in kept}
    return [re.sub(r"\{(\w+)\}", lambda m: filling.get(m[1], m[0]), phrase) for phrase in phrases]


def _things(rng: random.Random, tale: Tale) -> dict[str, str]:
    """What the slots of things, holders and days stand for; `{x1}` is one of the things `{x}`."""
    slots = (
        dict(zip(_THINGS, rng.sample(list(tale.pool), len(_THINGS)), strict=True))
        if tale.pool
        else {}
    )
    slots |= {f"{slot}1": _single(thing) for slot, thing in slots.items()}
    slots |= dict(zip(_HOLDERS, rng.choices(tale.holders, k=len(_HOLDERS)), strict=True))
    days = sorted(rng.sample(range(len(_library().days)), len(_DAYS)))
    slots |= {slot: _library().days[day] for slot, day in zip(_DAYS, days, strict=True)}
    if tale.things:
        slots["t"] = rng.choice(list(tale.things))
    return slots


def _single(things: str) -> str:
    """One of what is counted."""
    return _HISSING.sub("", things) if _HISSING.search(things) else things.removesuffix("s")


def _numbers(rng: random.Random, tale: Tale, size: Size) -> dict[str, int] | None:
    """Numbers for all slots, or None where those drawn do not suit each other."""
    numbers: dict[str, int] = {}
    for part in tale.parts:
        drawn = drawn_numbers(rng, part.chain, size)
        for letter, number in zip(part.numbers, drawn, strict=False):
            if letter.isalpha():
                fitting = tale.ranges.get(letter)
                numbers.setdefault(letter, rng.choice(fitting) if fitting else number)
        given = [_value(numbers, letter) for letter in part.numbers]
        try:
            value = work(part.chain, given).value
        except ValueError:
            return None
        if not 0 < value <= (Size.LARGE if tale.ranges else size).most:
            return None
    return numbers


def _value(numbers: Mapping[str, int], letter: str) -> int:
    return numbers[letter] if letter.isalpha() else int(letter)


def _put_right(text: str) -> str:
    """Sentences begin with capitals, vowels have `an`, and one hour is no hours."""
    text = _FOOT.sub(r"\1 foot", _ONE.sub(r"\1 \2", _VOWEL.sub("n", text)))
    return _BEGINNING.sub(lambda m: m[0].upper(), text)


def _spelled(number: int, most: int) -> str:
    """In words, up to `most` and at most 99."""
    if number > most:
        return str(number)
    if number < len(_WORDS):
        return _WORDS[number]
    tens, ones = divmod(number, 10)
    return f"{_TENS[tens - 2]}-{_WORDS[ones]}" if ones else _TENS[tens - 2]
