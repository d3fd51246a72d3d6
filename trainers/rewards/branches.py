"""What stands in the elements of a legal trace: branches that repeat each other, short texts.

A reward for parallel work must not pay for the same work twice, nor a reward for form for elements
that hold next to nothing. In goes a legal trace's text, out come its forks with the branches that
repeat another, and the elements that are shorter than they may be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import groupby
from typing import Final

from rapidfuzz import fuzz

from nprdsl.grammar.ir import Grammar
from nprdsl.schema import Schema
from nprdsl.structure.violations import TraceError
from nprdsl.trace.trace import Element
from nprdsl.trainers.rewards.roles import RuleRole, roles_of

ALIKE: Final = 90  # of 100, by the words of two branches that have the same numbers
_LABEL: Final = re.compile(r"\s*[\w.]{1,12}[:)]\s*")
_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")
_WORD: Final = re.compile(r"[^\W\d_]+")


def copied_branches(grammar: Grammar, text: str) -> list[list[bool]]:
    """For each fork, in order of beginning, whether each of its branches repeats an earlier one:
    the same numbers, and words that are nearly the same. Empty for a text that is no legal
    trace."""
    root = _root(grammar, text)
    return [] if root is None else [_copies(fork) for fork in _forks(root, grammar)]


def short_elements(
    grammar: Grammar, text: str, shortest: Mapping[RuleRole, int]
) -> Iterator[tuple[Element, int]]:
    """Elements that hold fewer characters, tags left out, than those of their role may."""
    root = _root(grammar, text)
    if root is None:
        return
    roles, tags = roles_of(grammar), _schema(grammar).tag_pattern
    for element in root.walk():
        role = roles.get(element.name)
        if role is not None and role in shortest:
            length = len(tags.sub("", element.text).strip())
            if length < shortest[role]:
                yield element, length


@lru_cache(maxsize=8)
def _schema(grammar: Grammar) -> Schema:
    return Schema(grammar)


def _root(grammar: Grammar, text: str) -> Element | None:
    try:
        return _schema(grammar).parse(text).root
    except TraceError:
        return None


def _forks(root: Element, grammar: Grammar) -> Iterator[list[str]]:
    """The texts of the branches of each fork, without tags."""
    branches, tags = {block.branch for block in grammar.blocks}, _schema(grammar).tag_pattern
    for element in root.walk():
        for name, group in groupby(element.children, key=lambda child: child.name):
            if name in branches:
                yield [tags.sub(" ", one.text) for one in group]


def _copies(branches: list[str]) -> list[bool]:
    seen: list[tuple[list[str], str]] = []
    copies = []
    for branch in branches:
        label = _LABEL.match(branch)
        text = branch if label is None else branch[label.end() :]
        numbers = sorted(_NUMBER.findall(text))
        words = " ".join(_WORD.findall(text.casefold()))
        copies.append(any(n == numbers and fuzz.ratio(w, words) >= ALIKE for n, w in seen))
        seen.append((numbers, words))
    return copies
