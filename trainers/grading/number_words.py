"""Numbers that are written as words: `twenty-one`, `minus three`, `two thirds`, `one and a half`.

In goes a text without commands and signs, out its exact value, or None where a word of it is of no
number. A word that is an ordinal too (`third`) counts as a fraction only behind a number, and not
in `twenty-third`. `ordinal` is the number of a place: `third`, `21st`. `in_digits` writes the whole
numbers of a longer text in digits.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

_UNITS: Final = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14,
    "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19,
}  # fmt: skip
_TENS: Final = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
    "ninety": 90,
}  # fmt: skip
_SCALES: Final = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS: Final = {
    "half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6,
    "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10,
}  # fmt: skip
_ROUND: Final = frozenset((*_TENS, "hundred", *_SCALES))  # before an ordinal: `twenty-third`
_PLACES: Final = {
    "first": "one", "second": "two", "third": "three", "fifth": "five", "eighth": "eight",
    "ninth": "nine", "twelfth": "twelve",
}  # fmt: skip
_PLACE: Final = re.compile(r"(\d{1,9})\s*\^?\s*\{?\s*(?:st|nd|rd|th)\s*\}?")
_ONE: Final = re.compile(r"an?\s+")
_MOST: Final = 12  # words
_NAMES: Final = "|".join((*_UNITS, *_TENS, "hundred", *_SCALES))
_RUN: Final = re.compile(rf"\b(?:{_NAMES})(?:[\s-]+(?:and\s+)?(?:{_NAMES}))*\b", re.I)
_NAME: Final = re.compile(rf"\b(?:{_NAMES})\b", re.I)


def said_number(text: str) -> Fraction | None:
    """The value of a number in English words."""
    said = text.casefold().strip()
    unsigned = re.sub(r"^(?:minus|negative)\s+", "", said)
    whole, _, more = unsigned.rpartition(" and ")
    value = _whole(unsigned)
    if value is None:
        part = _part(more if whole else unsigned)
        above = _whole(whole) if whole else Fraction(0)
        value = None if part is None or above is None else above + part
    if value is None:
        return None
    return value if unsigned == said else -value


def in_digits(text: str) -> str:
    """The text with whole numbers in digits: `twenty-one apples` as `21 apples`. Words that make no
    number together (`two three`) are numbers one by one."""
    return _RUN.sub(lambda run: _shown(run[0]) or _NAME.sub(lambda m: _shown(m[0]), run[0]), text)


def _shown(words: str) -> str:
    value = _whole(words.casefold())
    if value is None and words.casefold() in ("hundred", *_SCALES):
        return words
    return "" if value is None else str(value)


def ordinal(text: str) -> int | None:
    """The number of a place, in English words or in digits."""
    said = text.casefold().strip().removeprefix("the ")
    match = _PLACE.fullmatch(said)
    if match is not None:
        return int(match[1])
    before, _, last = said.replace("-", " ").rpartition(" ")
    number = _PLACES.get(last) or last.removesuffix("th").replace("tie", "ty")
    if number == last or (number not in _UNITS and number not in _TENS):
        return None
    value = _whole(f"{before} {number}".strip())
    return None if value is None else int(value)


def _part(text: str) -> Fraction | None:
    """Of `two thirds`; also of `half` and `a half`."""
    number, _, name = text.replace("-", " ").rpartition(" ")
    below = _PARTS.get(name, _PARTS.get(name.removesuffix("s")))
    if below is None or (not number and below != 2):
        return None
    if name in _PARTS and number.rpartition(" ")[2] in _ROUND:
        return None
    above = Fraction(1) if number in ("", "a", "an") else _whole(number)
    return None if above is None else above / below


def _whole(text: str) -> Fraction | None:
    """A cardinal number: groups of hundreds, each with its scale, which fall."""
    words = _ONE.sub("one ", text, count=1).replace("-", " ").split() if text else []
    words = [word for word in words if word != "and"] if words[-1:] != ["and"] else []
    total, group, least = 0, 0, 10**15
    if not words or len(words) > _MOST:
        return None
    room = 1000  # what the group can still take: a word must be less
    for word in words:
        if word in _SCALES:
            if not group or _SCALES[word] >= least:
                return None
            least = _SCALES[word]
            total, group, room = total + group * least, 0, 1000
        elif word == "hundred":
            if not 0 < group < 10:
                return None
            group, room = 100 * group, 100
        else:
            value = _UNITS.get(word, _TENS.get(word))
            if value is None or value >= room or (value == 0 and len(words) > 1):
                return None
            group += value
            room = 10 if word in _TENS else 0
    return Fraction(total + group)
