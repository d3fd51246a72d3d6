"""Word problems as people put them: short tales of one to four things, and plain sums.

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

from nprdsl.trainers.smol.families import Asked, Measure
from nprdsl.trainers.smol.parts import Calculation, Part, Size, drawn_numbers, work, worked_part

_DAYS: Final = "uvs"
_THINGS: Final = "xyzw"
_HOLDERS: Final = "pq"
_BEGINNING: Final = re.compile(r"(?:^|(?<=\. ))[a-z]")
_VOWEL: Final = re.compile(r"(?<=\b[Aa])(?= [aeiou])")
_MANY: Final = 3  # parts, which have smaller numbers
_SPELLED: Final = 0.2  # share of tales with small numbers in words
_WORDS: Final = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve",
)  # fmt: skip


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
    """A text in several wordings. `pool`: what its things are drawn from; `things`: what is in
    them, where they hold something; `holders`: what they may be in."""

    name: str
    told: Sequence[str]
    parts: Sequence[TalePart]
    measure: Measure
    pool: Sequence[str]
    things: Sequence[str]
    holders: Sequence[str]


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


@cache
def _library() -> _Library:
    file = importlib.resources.files("nprdsl.trainers.smol") / "tales.json"
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    pools: Mapping[str, Sequence[str]] = data["pools"]
    measures = {
        name: {Asked(asked): phrases for asked, phrases in group.items()}
        for name, group in data["asks"].items()
    }
    tales = [
        Tale(
            name=entry["name"],
            told=entry["told"],
            parts=[
                TalePart(**{**part, "chain": Calculation[part["chain"].upper()]})
                for part in entry["parts"]
            ],
            measure=measures[entry["ask"]],
            pool=pools.get(entry.get("pool"), ()),
            things=pools.get(entry.get("things"), ()),
            holders=pools.get(f"{entry.get('pool')} holders", pools["holders"]),
        )
        for entry in data["tales"]
    ]
    return _Library(tales, pools["days"])


def tales() -> Sequence[Tale]:
    """All of them."""
    return _library().tales


def tell(rng: random.Random, who: str) -> Told:
    """A tale about `who`, with numbers that suit it."""
    tale = rng.choice(tales())
    slots = {"who": who, **_things(rng, tale)}
    large = 0.4 if len(tale.parts) < _MANY else 0.1
    size = Size.LARGE if rng.random() < large else Size.SMALL
    while (numbers := _numbers(rng, tale, size)) is None:
        pass
    shown = {slot: str(number) for slot, number in numbers.items()}
    parts = [
        worked_part(
            part.name.format(**slots, **shown),
            part.note.format(**slots, **shown),
            part.chain,
            [_value(numbers, letter) for letter in part.numbers],
        )
        for part in tale.parts
    ]
    if tale.measure.get(Asked.TOTAL) != [""] and rng.random() < _SPELLED:
        shown = {slot: _spelled(number) for slot, number in numbers.items()}
    text = rng.choice(tale.told).format(**slots, **shown)
    return Told(tale.name, _put_right(text), parts, tale.measure)


def _things(rng: random.Random, tale: Tale) -> dict[str, str]:
    """What the slots of things, holders and days stand for; `{x1}` is one of the things `{x}`."""
    slots = (
        dict(zip(_THINGS, rng.sample(list(tale.pool), len(_THINGS)), strict=True))
        if tale.pool
        else {}
    )
    slots |= {f"{slot}1": thing.removesuffix("s") for slot, thing in slots.items()}
    slots |= dict(zip(_HOLDERS, rng.choices(tale.holders, k=len(_HOLDERS)), strict=True))
    days = sorted(rng.sample(range(len(_library().days)), len(_DAYS)))
    slots |= {slot: _library().days[day] for slot, day in zip(_DAYS, days, strict=True)}
    if tale.things:
        slots["t"] = rng.choice(list(tale.things))
    return slots


def _numbers(rng: random.Random, tale: Tale, size: Size) -> dict[str, int] | None:
    """Numbers for all slots, or None where those drawn do not suit each other."""
    numbers: dict[str, int] = {}
    for part in tale.parts:
        drawn = drawn_numbers(rng, part.chain, size)
        for letter, number in zip(part.numbers, drawn, strict=False):
            if letter.isalpha():
                numbers.setdefault(letter, number)
        given = [_value(numbers, letter) for letter in part.numbers]
        try:
            value = work(part.chain, given).value
        except ValueError:
            return None
        if not 0 < value <= size.most:
            return None
    return numbers


def _value(numbers: Mapping[str, int], letter: str) -> int:
    return numbers[letter] if letter.isalpha() else int(letter)


def _put_right(text: str) -> str:
    """Sentences begin with capitals, but for a text that has none, and vowels have `an`."""
    text = _VOWEL.sub("n", text)
    return text if text[:3] == "how" else _BEGINNING.sub(lambda m: m[0].upper(), text)


def _spelled(number: int) -> str:
    return _WORDS[number] if number < len(_WORDS) else str(number)
