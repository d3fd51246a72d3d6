"""Whether an answer is right: the boxed expression of a text against the benchmark's own answer.

What is equal is decided by `math-verify` (numbers, fractions, units, intervals, sets, matrices,
letters of a choice); here is only what it leaves open: which part of the text is the answer, a full
stop behind it, and a limit of time for expressions that are made to take for ever.
Non-goals: rewards (see `nprdsl.trainers.rewards`), proofs, code.
"""

from __future__ import annotations

import logging
import re
import threading
from enum import StrEnum
from functools import lru_cache
from typing import Final

from math_verify import parse, verify

SECONDS: Final = 5  # for one expression; only the main thread can be interrupted
_BOXED: Final = re.compile(r"\\(?:boxed|fbox)\s*\{")
_NUMBER: Final = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
_STOP: Final = re.compile(r"(?<=[\d}\])])\s*\.\s*$")

logging.getLogger("math_verify").setLevel(logging.CRITICAL)


class Fallback(StrEnum):
    """What counts as the answer of a text in which nothing is boxed."""

    NONE = "none"
    LAST_NUMBER = "last_number"


def answer_of(text: str, fallback: Fallback = Fallback.NONE) -> str | None:
    """The last boxed expression of a text, or what `fallback` allows; None if there is none."""
    found = None
    for match in _BOXED.finditer(text):
        inner = _balanced(text, match.end())
        if inner is not None and inner.strip():
            found = inner.strip()
    if found is None and fallback is Fallback.LAST_NUMBER:
        numbers = _NUMBER.findall(text)
        return numbers[-1] if numbers else None
    return found


def _balanced(text: str, start: int) -> str | None:
    """What stands up to the brace that closes the one before `start`."""
    depth = 1
    for place in range(start, len(text)):
        if text[place] in "{}" and text[place - 1] != "\\":
            depth += 1 if text[place] == "{" else -1
            if not depth:
                return text[start:place]
    return None


def is_right(text: str, wanted: str, fallback: Fallback = Fallback.NONE) -> bool:
    """Whether the answer of `text` equals `wanted`, which stands as the benchmark has it."""
    given = answer_of(text, fallback)
    return given is not None and same(given, wanted)


def same(given: str, wanted: str) -> bool:
    """Whether two expressions, as they stand in a box, are equal."""
    if _plain(given) == _plain(wanted):
        return True
    return bool(verify(list(_parsed(wanted)), list(_parsed(given)), timeout_seconds=_limit()))


def _plain(expression: str) -> str:
    return _STOP.sub("", expression.strip())


@lru_cache(maxsize=4096)
def _parsed(expression: str) -> tuple[object, ...]:
    boxed = f"\\boxed{{{_plain(expression)}}}"
    return tuple(parse(boxed, parsing_timeout=_limit()))


def _limit() -> int | None:
    """Seconds; None outside the main thread, where nothing can be interrupted."""
    return SECONDS if threading.current_thread() is threading.main_thread() else None
