"""Bounds what the regexes of a `stop_regex` may cost.

SGLang searches for each of them behind every token, in the loop that serves all requests, with
Python's backtracking `re`: one such as `(a*)*b` would keep everybody waiting for ever. In go the
patterns of a request; out comes an error for one that is no regex, that may match without end, or
that could be tried in too many ways at one place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import import_module
from typing import Any, Final

from nprdsl.runtime.http.refusals import RefusedError

_parser: Any = import_module("re._parser")  # it has no public name
_op: Any = import_module("re._constants")

MOST_CHARACTERS: Final = 256  # that one pattern may match
MOST_WRITTEN: Final = 4096  # characters of one, which is read in the loop that serves all
MOST_WAYS: Final = 1000  # in which all patterns may be tried at one place
_SINGLE: Final = (_op.LITERAL, _op.NOT_LITERAL, _op.IN, _op.ANY)
_REPEATS: Final = (_op.MAX_REPEAT, _op.MIN_REPEAT)


def check_stop_patterns(given: Any) -> None:
    """Raises RefusedError; `given` is the field as it came."""
    patterns = given if isinstance(given, list) else [] if given is None else [given]
    ways = 0
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise RefusedError("`stop_regex` must be a text, or a list of texts")
        if len(pattern) > MOST_WRITTEN:
            raise RefusedError(
                f"a regex of `stop_regex` has {len(pattern):,} characters, at most "
                f"{MOST_WRITTEN:,} are taken"
            )
        try:
            length, tried = _cost(_parser.parse(pattern))
        except (re.error, RecursionError, OverflowError) as error:
            raise RefusedError(f"`stop_regex` has a regex that cannot be read: {error}") from error
        ways += tried
        if length > MOST_CHARACTERS:
            raise RefusedError(
                f"a regex of `stop_regex` may match more than {MOST_CHARACTERS} characters: give "
                "each repetition an end, as in `{0,20}`"
            )
    if ways > MOST_WAYS:
        raise RefusedError(
            f"the regexes of `stop_regex` may be tried in more than {MOST_WAYS:,} ways at one "
            "place: nest no repetitions, and use smaller counts"
        )


def _cost(parts: Iterable[tuple[Any, Any]]) -> tuple[int, int]:
    """The most characters that it matches, and in how many ways; both are cut off beyond what is
    allowed."""
    length, ways = 0, 1
    for kind, value in parts:
        more, times = _cost_of_part(kind, value)
        length, ways = _cut(length + more, ways * times)
    return length, ways


def _cost_of_part(kind: Any, value: Any) -> tuple[int, int]:
    if kind in _SINGLE:
        return 1, 1
    if kind is _op.AT:
        return 0, 1
    if kind is _op.SUBPATTERN:
        return _cost(value[-1])
    if kind is _op.BRANCH:
        options = [_cost(option) for option in value[1]]
        return max(length for length, _ in options), sum(ways for _, ways in options)
    if kind in _REPEATS:
        return _cost_of_repeat(*value)
    raise RefusedError(
        "a regex of `stop_regex` looks around, refers to a group, or never goes back: write its "
        "alternatives out"
    )


def _cost_of_repeat(low: int, high: int, inner: Iterable[tuple[Any, Any]]) -> tuple[int, int]:
    length, each = _cost(inner)
    if high > MOST_CHARACTERS:  # `*` and `+` too
        return MOST_CHARACTERS + 1, MOST_WAYS + 1
    ways, so_far = 0, 1
    for times in range(high + 1):
        ways += so_far if times >= low else 0
        so_far = min(so_far * each, MOST_WAYS + 1)
    return _cut(length * high, ways)


def _cut(length: int, ways: int) -> tuple[int, int]:
    return min(length, MOST_CHARACTERS + 1), min(ways, MOST_WAYS + 1)
