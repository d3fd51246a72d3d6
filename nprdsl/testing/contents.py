"""Strategies for what stands between tags: free text, and values of regular and typed terminals."""

from __future__ import annotations

import re
from functools import cache

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nprdsl.grammar import ir
from nprdsl.testing.reference import WHITE_SPACE, tag_pattern, value_pattern

PLAIN_PIECES = (
    "x",
    "two words",
    "3 + 4 = 7",
    "the rest,",
    " ",
    "\n",
    "\n\n",
    "1:",
    "0",
    "\t",
    "\r\n",
)
ODD_PIECES = (
    "<",
    ">",
    "</",
    "[",
    "]",
    "\\boxed{4}",
    "é",
    "ß→∞",
    "漢字",
    "🙂",
    "\u200b",
    "\x00",
    "{",
    '"',
)
POOL = 40
LONG = 20  # how often a long text repeats its piece


def free_text(tags: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Text that is not blank and holds no tag, with pieces of tags in it."""
    pieces = _pieces(tags)
    pattern = tag_pattern(tags)

    def written(number: int) -> str:
        """One piece, or two, or a piece many times: one draw, and smaller is simpler."""
        if number < len(pieces):
            text = pieces[number]
        else:
            first, second = divmod(number - len(pieces), len(pieces))
            again = LONG if first == second else 1
            text = pieces[first] * again + pieces[second]
        while pattern.search(text):
            text = pattern.sub("x", text)
        return text if text.strip(WHITE_SPACE) else text + "x"

    return st.integers(0, len(pieces) * (len(pieces) + 1) - 1).map(written)


def _pieces(tags: tuple[str, ...]) -> tuple[str, ...]:
    partial = [part for tag in tags for part in (tag[:-1], tag[1:], tag.swapcase()) if part]
    return (*PLAIN_PIECES, *ODD_PIECES, *dict.fromkeys(partial))


def values(terminal: ir.Terminal, tags: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Values of a regular or typed terminal; none holds a tag."""
    pattern = value_pattern(terminal)
    forbidden = tag_pattern(tags)
    strategy = st.from_regex(pattern, fullmatch=True)
    return strategy.filter(lambda v: forbidden.search(v) is None and bool(pattern.fullmatch(v)))


@cache
def _value_pool(pattern: str) -> tuple[str, ...]:
    """Some values of a pattern, short ones first: drawing from a regex anew takes milliseconds."""
    pool: set[str] = set()

    @settings(
        max_examples=POOL,
        database=None,
        deadline=None,
        derandomize=True,
        phases=(Phase.generate,),
        suppress_health_check=tuple(HealthCheck),
    )
    @given(st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True))
    def collect(value: str) -> None:
        pool.add(value)

    collect()
    return tuple(sorted(pool, key=lambda value: (len(value), value)))[: POOL // 2]


def quick_values(terminal: ir.Terminal, tags: tuple[str, ...]) -> st.SearchStrategy[str]:
    """As `values`, but mostly from a small pool."""
    pattern, forbidden = value_pattern(terminal), tag_pattern(tags)
    pool = [v for v in _value_pool(terminal.pattern) if not forbidden.search(v)]
    pool = [v for v in pool if pattern.fullmatch(v)]
    return st.sampled_from(pool) if pool else values(terminal, tags)


def without_tags(tags: re.Pattern[str], text: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return text.filter(lambda t: tags.search(t) is None and bool(t.strip(WHITE_SPACE)))
