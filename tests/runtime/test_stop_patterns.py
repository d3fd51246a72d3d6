"""Regexes that end plain texts are searched for in the scheduler's loop; without SGLang."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from nprdsl.runtime.http.refusals import RefusedError
from nprdsl.runtime.sglang.http.stop_patterns import MOST_CHARACTERS, check_stop_patterns

KIND = [
    r"\n\s{0,20}Question",
    r"[.!?]$",
    r"(yes|no)\b",
    r"\d{1,9}(,\d{3}){0,3}",
    "",
    ["END", r"\[\w{1,32}\]"],
]
UNKIND = [
    (r"(((a*)*)*)*b", "end"),
    (r"\d+", "end"),
    (r"(.|.){1,30}!", "ways"),
    (r"((a{1,1000}){1,1000}){1,1000}", "end"),
    (r"((a{0,9}){0,9}){0,2}b", "ways"),
    ([r"a{0,200}a{0,50}!"], "ways"),
    ([r"a{0,200}!"] * 6, "ways"),
    (r"a{99999999}", "end"),
    (r"a{999999999999999999999999}", "cannot be read"),
    ("(", "cannot be read"),
    ("(" * 2000 + ")" * 2000, "cannot be read"),
    (r"(?<=a)b", "around"),
    (r"(a)\1", "around"),
    (7, "a text"),
    ([7], "a text"),
    ({"a": 1}, "a text"),
]


@pytest.mark.parametrize("given", [None, [], *KIND], ids=str)
def test_what_is_cheap_passes(given: Any) -> None:
    check_stop_patterns(given)


@pytest.mark.parametrize(("given", "told"), UNKIND, ids=lambda value: str(value)[:30])
def test_what_could_keep_the_server_is_told(given: Any, told: str) -> None:
    with pytest.raises(RefusedError, match=told):
        check_stop_patterns(given)


@pytest.mark.parametrize("pattern", [r"(a|a){1,8}!", r"(a{0,5}){0,3}!", r"a{0,30}a{0,30}!"])
def test_the_dearest_that_passes_is_quick(pattern: str) -> None:
    """On the worst text of as many tokens as SGLang looks at, each of four characters."""
    check_stop_patterns(pattern)
    begin = time.perf_counter()
    assert re.search(pattern, "a" * 4 * MOST_CHARACTERS) is None
    assert time.perf_counter() - begin < 0.5


def test_a_long_pattern_is_not_read() -> None:
    with pytest.raises(RefusedError, match="at most 4,096 are taken"):
        check_stop_patterns("(" * 1_000_000)
