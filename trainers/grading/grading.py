"""Whether an answer is right: the boxed expression of a text against the benchmark's own answer.

What is equal is decided by `math-verify` (numbers, fractions, units, intervals, sets, matrices);
here is only what it leaves open: one spelling for what looks different, words and the letters of
choices, and a limit of time for expressions that are made to take for ever.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from math_verify import parse, verify

from nprdsl.trainers.grading.answers import Fallback, answer_of, plain, words
from nprdsl.trainers.grading.quantities import as_interval, clash, exact, is_rounding

SECONDS: Final = 5  # for one expression; only the main thread can be interrupted
_CHOICE: Final = re.compile(r"\(?([A-Za-z])(?:\)|[.:](?!\d)|$)")  # `B`, `(B) 42`, `B. 42`
_SEVERAL: Final = re.compile(r"(?:\b(?:or|and)\b|[,;/&])\s*\(?[A-Z]\)?(?![A-Za-z])")  # letters
_WORDS: Final = re.compile(r"[a-z][a-z' -]+")

logging.getLogger("math_verify").setLevel(logging.CRITICAL)


def is_right(
    text: str,
    wanted: str,
    fallback: Fallback = Fallback.NONE,
    choices: Sequence[str] = (),
    marked: str = "",
) -> bool:
    """Whether the answer of `text` equals `wanted`, which stands as the benchmark has it.

    `marked` is the part of it that its schema marks as the answer, as for `answer_of`. Where there
    are `choices`, `wanted` is the letter of one; its text is as good as the letter.
    """
    given = answer_of(text, fallback, marked)
    if given is None:
        return False
    return same_choice(given, wanted, choices) if choices else same(given, wanted)


def same(given: str, wanted: str) -> bool:
    """Whether two expressions, as they stand in a box, are equal."""
    if plain(given) == plain(wanted):
        return True
    if clash(given, wanted):
        return False
    value, other = exact(wanted), exact(given)
    if value is not None and other is not None:  # `verify` rounds to six digits behind the point
        return value == other or is_rounding(given, wanted)
    letter, word = _letter(wanted), words(wanted).casefold()
    if letter.isupper() and letter == _letter(given):
        return not _SEVERAL.search(words(given))
    if _WORDS.fullmatch(word) and word == words(given).casefold():
        return True
    sides = (_parsed(as_interval(wanted)), _parsed(as_interval(given)))
    return bool(verify(*map(list, sides), timeout_seconds=_limit()))


def same_choice(given: str, wanted: str, choices: Sequence[str]) -> bool:
    """Whether `given` is the choice under the letter `wanted`, by its letter or by its text."""
    right = choices[ord(wanted) - ord("A")]
    said = words(given).casefold()
    if said in [words(choice).casefold() for choice in choices]:
        return said == words(right).casefold()
    letter = _letter(given)
    if letter:
        return letter.upper() == wanted and not _SEVERAL.search(words(given))
    return same(given, right) and sum(same(given, choice) for choice in choices) == 1


def _letter(expression: str) -> str:
    """The letter of a choice that an expression begins with; "" if it begins with none."""
    match = _CHOICE.match(words(expression))
    return match[1] if match else ""


@lru_cache(maxsize=4096)
def _parsed(expression: str) -> tuple[object, ...]:
    boxed = f"\\boxed{{{plain(expression)}}}"
    return tuple(parse(boxed, parsing_timeout=_limit()))


def _limit() -> int | None:
    """Seconds; None outside the main thread, where nothing can be interrupted."""
    return SECONDS if threading.current_thread() is threading.main_thread() else None
