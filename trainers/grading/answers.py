"""The answer of a text: its last box, or what a caller allows where nothing is boxed."""

from __future__ import annotations

import re
from enum import StrEnum
from itertools import chain
from typing import Final

_BOXED: Final = re.compile(r"\\(?:boxed|fbox)\s*\{")
_NUMBER: Final = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
_BRACE: Final = re.compile(r"\\.|[{}]", re.S)  # what a backslash stands before is no brace


class Fallback(StrEnum):
    """What counts as the answer of a text in which nothing is boxed."""

    NONE = "none"
    LAST_NUMBER = "last_number"


def answer_of(text: str, fallback: Fallback = Fallback.NONE, marked: str = "") -> str | None:
    """The last boxed expression of a text, or what `fallback` allows; None if there is none.

    `marked` is the part of the text that its schema marks as the answer, "" if that is not known:
    what stands there goes before what stands elsewhere.
    """
    places = [marked, text] if marked else [text]
    boxed = (_last_box(place) for place in places)
    numbers = (_last_number(place) for place in places)
    ways = chain(boxed, numbers if fallback is Fallback.LAST_NUMBER else ())
    return next((answer for answer in ways if answer is not None), None)


def _last_box(text: str) -> str | None:
    answer = None
    for match in _BOXED.finditer(text):
        inner = balanced(text, match.end())
        if inner is not None and inner.strip():
            answer = inner.strip()
    return answer


def _last_number(text: str) -> str | None:
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else None


def balanced(text: str, start: int) -> str | None:
    """What stands up to the brace that closes the one before `start`."""
    depth = 1
    for match in _BRACE.finditer(text, start):
        if match[0] in "{}":
            depth += 1 if match[0] == "{" else -1
            if not depth:
                return text[start : match.start()]
    return None
