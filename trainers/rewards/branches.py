"""What stands in the elements of a legal trace: branches that repeat each other, short texts.

A reward for parallel work must not pay for the same work twice, nor a reward for form for elements
that hold next to nothing. In goes a legal trace's text, out come its forks with the branches that
repeat another, and the elements that are shorter than they may be.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Final

from rapidfuzz.distance import Indel, LCSseq

from nprdsl.grammar.ir import Grammar
from nprdsl.schema import Schema
from nprdsl.structure.violations import TraceError
from nprdsl.trace.trace import Element
from nprdsl.trainers.rewards.roles import RuleRole, roles_of

ALIKE: Final = 0.9  # from 0 to 1: how much of two texts stands in both, in order
SAME_VALUES: Final = 0.85  # how many of the numbers and signs of two branches stand in both
WITHIN: Final = 0.6  # of a longer branch, when all of a shorter one stands in it
NEW: Final = 0.1  # of the words of a longer branch, where the rest is a shorter one, also twice
_LEAST: Final = 6  # tokens of a branch that may be found within another
_LETTERS: Final = 40  # of words, from which on misspelled ones are the same
_LABEL: Final = re.compile(r"\s*[\w.]{1,12}[:)]\s*")
_UNSPACED: Final = r"\u3040-\u30ff\u3400-\u9fff"  # scripts of China and Japan, sign by sign
_TOKEN: Final = re.compile(
    rf"\d+(?:[.,]\d+)*|\\?[^\W\d_{_UNSPACED}]+|[-+*/=<>^|!%\u00d7\u00b7{_UNSPACED}]"
)
_WORD: Final = re.compile(r"\\?[^\W\d_]{2,}")
_ARTICLES: Final = frozenset(("a", "i"))
_CLAUSE: Final = re.compile(
    r"[;:\n\u3001\u3002]|[.,?!](?!\d)|\b(?:and|so|because|since|then|thus|hence|therefore)\b"
)
_DIGITS: Final = {
    "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10", "plus": "+", "minus": "-", "times": "*",
    "equals": "=", "\u00d7": "*", "\u00b7": "*", "\\times": "*", "\\cdot": "*", "\u2212": "-",
}  # fmt: skip


_LOOKALIKES: Final = str.maketrans("авекмнорстухіѕ", "abekmhopctyxis")  # Cyrillic


def copied_branches(grammar: Grammar, text: str) -> list[list[bool]]:
    """For each fork, in order of beginning, whether each of its branches repeats an earlier one.

    A copy has nearly the same words in nearly the same order, also where its clauses stand in
    another, and nearly the same numbers and signs; or one holds all of the other and little more;
    or it has the same numbers between misspelled words; or neither letters nor digits. The same way
    of working with other numbers is none. Empty for a text that is no legal trace.
    """
    root = _root(grammar, text)
    return [] if root is None else [_copies(fork) for fork in _forks(root, grammar)]


def last_words(grammar: Grammar, text: str) -> str:
    """What stands behind the last tag of a text."""
    ends = [match.end() for match in _schema(grammar).tag_pattern.finditer(text)]
    return text[ends[-1] :] if ends else text


def short_elements(
    grammar: Grammar, text: str, shortest: Mapping[RuleRole, int]
) -> Iterator[tuple[Element, int]]:
    """Elements that hold fewer characters than those of their role may. Tags, white space and what
    is not seen do not count."""
    root = _root(grammar, text)
    if root is None:
        return
    roles, tags = roles_of(grammar), _schema(grammar).tag_pattern
    for element in root.walk():
        role = roles.get(element.name)
        if role is not None and role in shortest:
            length = len(
                "".join(filter(str.isprintable, tags.sub("", element.text))).replace(" ", "")
            )
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
    seen: list[_Words] = []
    copies = []
    for branch in branches:
        label = _LABEL.match(branch)
        words = _words(branch if label is None else branch[label.end() :])
        copies.append(not words.tokens or any(_repeats(words, other) for other in seen))
        seen.append(words)
    return copies


@dataclass(frozen=True, slots=True)
class _Words:
    """The tokens of a branch in order, the same with its clauses in order of spelling, and how
    often each number, sign and name of one letter (a value) stands in it; `ordered` are the values
    in order, `letters` the words without spaces. No tokens: neither letters nor digits."""

    tokens: tuple[str, ...]
    by_clause: tuple[str, ...]
    values: Counter[str]
    ordered: tuple[str, ...]
    letters: str


def _words(text: str) -> _Words:
    plain = (
        unicodedata.normalize("NFKC", text).casefold().replace("\u2212", "-").translate(_LOOKALIKES)
    )
    clauses = [_tokens(clause) for clause in _CLAUSE.split(plain)]
    tokens = _tokens(plain) if any(map(str.isalnum, plain)) else ()
    values = tuple(t for t in tokens if not _WORD.fullmatch(t) and t not in _ARTICLES)
    by_clause = tuple(t for clause in sorted(clauses) for t in clause)
    return _Words(
        tokens, by_clause, Counter(values), values, "".join(filter(_WORD.fullmatch, tokens))
    )


def _tokens(text: str) -> tuple[str, ...]:
    return tuple(_DIGITS.get(token, token) for token in _TOKEN.findall(text))


def _is_misspelled(one: _Words, other: _Words) -> bool:
    letters = one.letters, other.letters
    long = min(map(len, letters)) >= _LETTERS
    return long and one.ordered == other.ordered and Indel.normalized_similarity(*letters) >= ALIKE


def _repeats(one: _Words, other: _Words) -> bool:
    both = (one.values & other.values).total()
    if both >= SAME_VALUES * max(one.values.total(), other.values.total()):
        alike = Indel.normalized_similarity(one.tokens, other.tokens)
        if max(alike, Indel.normalized_similarity(one.by_clause, other.by_clause)) >= ALIKE:
            return True
    if _is_misspelled(one, other):
        return True
    short, long = sorted((one, other), key=lambda words: len(words.tokens))
    more = set(long.tokens) - set(short.tokens)
    nothing_new = len(more) <= NEW * len(set(long.tokens)) and more.isdisjoint(long.values)
    if len(short.tokens) < _LEAST or not (
        nothing_new or len(short.tokens) >= WITHIN * len(long.tokens)
    ):
        return False
    common = LCSseq.similarity(short.tokens, long.tokens)
    return both == short.values.total() and common >= ALIKE * len(short.tokens)
