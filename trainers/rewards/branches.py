"""What stands in the elements of a legal trace: branches that repeat each other, short texts.

A reward for parallel work must not pay for the same work twice, nor a reward for form for elements
that hold next to nothing. In goes a legal trace's text, out come its forks with the branches that
repeat another of any block, and the elements that are shorter than they may be.
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

from rapidfuzz import fuzz
from rapidfuzz.distance import Indel, LCSseq

from nprdsl.grammar.ir import Grammar
from nprdsl.schema import Schema
from nprdsl.structure.violations import TraceError
from nprdsl.trace.trace import Element
from nprdsl.trainers.grading.number_words import in_digits
from nprdsl.trainers.rewards.roles import RuleRole, roles_of

ALIKE: Final = 0.9  # from 0 to 1: how much of two texts stands in both, in order
SAME_VALUES: Final = 0.85  # how many of the numbers and signs of two branches stand in both
WITHIN: Final = 0.6  # of a longer branch, when all of a shorter one stands in it
NEW: Final = 0.1  # of the words of a longer branch, where the rest is a shorter one, also twice
JUMBLED: Final = 0.6  # of words in order, under which the same words in another order say nothing
_LEAST: Final = 6  # tokens of a branch that may be found within another
_PASSAGE: Final = 8  # tokens of a branch that may stand in another as a passage
_WORDS: Final = 12  # of a branch that may be jumbled
_LETTERS: Final = 40  # of words, from which on misspelled ones are the same
_LABEL: Final = re.compile(r"\s*[\w.]{1,12}[:)]\s*")
_MARKER: Final = re.compile(
    r"^\s*(?:[(\[]?(?:\d{1,3}|[a-z]|[ivx]{2,5})[.)\]]\s|[-*\u2022]\s+(?=[^\W\d_]))", re.M
)  # of a list
_UNSPACED: Final = r"\u3040-\u30ff\u3400-\u9fff"  # scripts of China and Japan, sign by sign
_TOKEN: Final = re.compile(
    rf"\d+(?:[.,]\d+)*|\\?[^\W\d_{_UNSPACED}]+"
    rf"|[-+*/=<>^|!%\u00d7\u00b7\u00b1\u2260\u2264\u2265{_UNSPACED}]"
)
_WORD: Final = re.compile(r"\\?[^\W\d_]{2,}")
_ARTICLES: Final = frozenset(("a", "i"))
_CLAUSE: Final = re.compile(
    r"[;:\n\u3001\u3002]|[.,?!](?!\d)|\b(?:and|so|because|since|then|thus|hence|therefore)\b"
)
_SIGNS: Final = {
    "plus": "+", "minus": "-", "times": "*", "equals": "=", "\u00d7": "*", "\u00b7": "*",
    "\\times": "*", "\\cdot": "*", "\\pm": "\u00b1", "\\le": "\u2264", "\\leq": "\u2264",
    "\\ge": "\u2265", "\\geq": "\u2265", "\\lt": "<", "\\gt": ">", "\\ne": "\u2260",
    "\\neq": "\u2260",
}  # fmt: skip
_HYPHEN: Final = re.compile(r"(?<=[^\W\d_]{2})-(?=[^\W\d_])|(?<=[^\W\d_])-(?=[^\W\d_]{2})")
_GROUPED: Final = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_LOOKALIKES: Final = str.maketrans("авекмнорстухіѕ", "abekmhopctyxis")  # Cyrillic
_GREEK: Final = str.maketrans("αειοτυνκρ", "aeiotuvkp")  # in words with Latin letters
_MIXED: Final = re.compile(
    r"[a-z]*(?:[a-z][\u03b1-\u03c9]|[\u03b1-\u03c9][a-z])[a-z\u03b1-\u03c9]*"
)


def copied_branches(grammar: Grammar, text: str) -> list[list[bool]]:
    """For each fork, in order of beginning, whether each of its branches repeats an earlier one.

    A copy has nearly the same words in nearly the same order, also where its clauses stand in
    another, and nearly the same numbers and signs; or one holds all of the other and little more;
    or it has the same numbers between misspelled words, the same words in no order, or neither
    letters nor digits. A branch that stands in a longer one as a passage is a copy, though it be
    the earlier. Branches of other blocks count, as deeply nested ones. The same way of working with
    other numbers is none. Empty for a text that is no legal trace.
    """
    root = _root(grammar, text)
    return [] if root is None else _copies(list(_forks(root, grammar)))


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


def _forks(root: Element, grammar: Grammar) -> Iterator[tuple[int, list[str]]]:
    """Of each fork the number of branches that it lies in, and the texts of its own, without
    tags."""
    branches, tags = {block.branch for block in grammar.blocks}, _schema(grammar).tag_pattern
    pending = [(root, 0)]
    while pending:
        element, depth = pending.pop()
        for name, group in groupby(element.children, key=lambda child: child.name):
            if name in branches:
                yield depth, [tags.sub(" ", one.text) for one in group]
        pending += [
            (child, depth + (child.name in branches)) for child in reversed(element.children)
        ]


def _copies(forks: list[tuple[int, list[str]]]) -> list[list[bool]]:
    seen: dict[int, list[tuple[_Words, int, int]]] = {}
    copies = [[False] * len(branches) for _, branches in forks]
    for number, (depth, branches) in enumerate(forks):
        others = seen.setdefault(depth, [])
        for place, branch in enumerate(branches):
            words = _words(branch)
            copies[number][place] = not words.tokens
            for other, fork, at in others:
                which = _copy_of(other, words)
                copies[number][place] |= which is words
                copies[fork][at] |= which is other
            others.append((words, number, place))
    return copies


@dataclass(frozen=True, slots=True)
class _Words:
    """The tokens of a branch in order, how often each stands in it, the same with its clauses in
    order of spelling, and how often each number, sign and name of one letter (a value) stands in
    it; `ordered` are the values in order; `letters` the words, `tight` all tokens, without spaces.
    No tokens: neither letters nor digits."""

    tokens: tuple[str, ...]
    counted: Counter[str]
    by_clause: tuple[str, ...]
    values: Counter[str]
    ordered: tuple[str, ...]
    letters: str
    tight: str


def _words(branch: str) -> _Words:
    label = _LABEL.match(branch)
    plain = _MARKER.sub("", _plain(branch if label is None else branch[label.end() :]))
    clauses = [_tokens(clause) for clause in _CLAUSE.split(plain)]
    tokens = _tokens(plain) if any(map(str.isalnum, plain)) else ()
    values = tuple(t for t in tokens if not _WORD.fullmatch(t) and t not in _ARTICLES)
    by_clause = tuple(t for clause in sorted(clauses) for t in clause)
    letters = "".join(filter(_WORD.fullmatch, tokens))
    tight = "".join(tokens)
    return _Words(tokens, Counter(tokens), by_clause, Counter(values), values, letters, tight)


def _plain(text: str) -> str:
    """Without what is not seen, marks over letters and letters of other scripts that look alike;
    numbers in digits."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("\u2212", "-")
    seen = (s for s in text if unicodedata.category(s) != "Cf" and not unicodedata.combining(s))
    text = "".join(map(_bare, seen))
    text = _MIXED.sub(lambda word: word[0].translate(_GREEK), text.translate(_LOOKALIKES))
    return in_digits(_HYPHEN.sub(" ", text))


def _bare(sign: str) -> str:
    if sign.isascii() or not sign.isalpha():
        return sign
    parts = unicodedata.normalize("NFD", sign)
    return parts[0] if all(map(unicodedata.combining, parts[1:])) else sign


def _tokens(text: str) -> tuple[str, ...]:
    return tuple(_number(_SIGNS.get(token, token)) for token in _TOKEN.findall(text))


def _number(token: str) -> str:
    """A number without grouping, leading zeros and zeros behind its point."""
    if not token[0].isdecimal():
        return token
    bare = token.replace(",", "") if _GROUPED.fullmatch(token) else token
    if bare.count(".") == 1 and "," not in bare:
        bare = bare.rstrip("0").removesuffix(".")
    return bare.lstrip("0") or "0"


def _copy_of(earlier: _Words, later: _Words) -> _Words | None:
    """Which of two branches is a copy of the other: the later, or one that is a passage."""
    if _is_misspelled(earlier, later) or earlier.tight == later.tight:
        return later
    short, long = sorted((earlier, later), key=lambda words: len(words.tokens))
    common = (short.counted & long.counted).total()  # in order there are no more
    if common < ALIKE * len(short.tokens):
        return None
    if _is_alike(short, long) or _is_jumbled(short, long, common) or _is_held(short, long):
        return later
    return short if _is_passage(short, long) else None


def _is_misspelled(one: _Words, other: _Words) -> bool:
    if one.ordered != other.ordered:
        return False
    long = min(len(one.letters), len(other.letters)) >= _LETTERS
    return long and Indel.normalized_similarity(one.letters, other.letters) >= ALIKE


def _is_alike(one: _Words, other: _Words) -> bool:
    both = (one.values & other.values).total()
    if both < SAME_VALUES * max(one.values.total(), other.values.total()):
        return False
    alike = Indel.normalized_similarity(one.tokens, other.tokens)
    return max(alike, Indel.normalized_similarity(one.by_clause, other.by_clause)) >= ALIKE


def _is_jumbled(short: _Words, long: _Words, common: int) -> bool:
    """Whether both have the same tokens, in so different an order that one says nothing."""
    if len(short.tokens) < _WORDS or common < (ALIKE + 1) / 2 * len(long.tokens):
        return False
    return Indel.normalized_similarity(short.by_clause, long.by_clause) < JUMBLED


def _is_held(short: _Words, long: _Words) -> bool:
    """Whether one holds all of the other, and little more."""
    if len(short.tokens) < _LEAST or not short.values <= long.values:
        return False
    more = set(long.tokens) - set(short.tokens)
    nothing_new = len(more) <= NEW * len(set(long.tokens)) and more.isdisjoint(long.values)
    if not nothing_new and len(short.tokens) < WITHIN * len(long.tokens):
        return False
    return LCSseq.similarity(short.tokens, long.tokens) >= ALIKE * len(short.tokens)


def _is_passage(short: _Words, long: _Words) -> bool:
    """Whether one stands in the other, nearly word by word; its ends may be cut words."""
    if not _PASSAGE <= len(short.tokens) < len(long.tokens):
        return False
    if not short.values - Counter((short.tokens[0], short.tokens[-1])) <= long.values:
        return False
    return fuzz.partial_ratio(short.tokens, long.tokens) >= 100 * ALIKE
