"""A regular expression to the automaton of its positions over bytes (Glushkov 1961).

A position is one place of the regex that takes a byte, code points spelled in UTF-8. The result
says of every position which bytes it takes and which positions may follow; `nprdsl.regular.dfa`
makes it deterministic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from nprdsl.regular.codepoints import ByteTree, byte_tree
from nprdsl.regular.syntax import (
    STATE_LIMIT,
    TOO_LARGE,
    Chars,
    Concat,
    Regex,
    RegexError,
    Times,
    Union,
    parse,
)

END = 1  # the bit of position 0, which stands for the end of the text


@dataclass(frozen=True, slots=True)
class Positions:
    """`first` and `follow[p]` are sets of positions, `bytes[p]` of bytes, written as bits."""

    first: int
    follow: tuple[int, ...]
    bytes: tuple[int, ...]


def positions(pattern: str) -> Positions:
    """The positions of `pattern`; position 0 is the end of the text. Raises RegexError."""
    glushkov = _Glushkov(pattern)
    whole = glushkov.part(parse(pattern))
    for place in bits(whole.last):
        glushkov.follow[place] |= END
    first = whole.first | (END if whole.nullable else 0)
    return Positions(first, tuple(glushkov.follow), tuple(glushkov.bytes))


def bits(members: int) -> Iterator[int]:
    """The members of a set that is written as the bits of an integer, ascending."""
    while members:
        low = members & -members
        yield low.bit_length() - 1
        members ^= low


class _Fragment(NamedTuple):
    """A part of a regex: can it be empty, and which positions begin and end it."""

    nullable: bool
    first: int
    last: int


_EMPTY = _Fragment(True, 0, 0)


@dataclass(slots=True)
class _Glushkov:
    pattern: str
    bytes: list[int] = field(default_factory=lambda: [0])
    follow: list[int] = field(default_factory=lambda: [0])

    def part(self, regex: Regex) -> _Fragment:
        match regex:
            case Chars(ranges=ranges):
                return self.characters(byte_tree(ranges))
            case Concat(parts=parts):
                whole = _EMPTY
                for part in parts:
                    whole = self.join(whole, self.part(part))
                return whole
            case Union(options=options):
                return _either(self.part(option) for option in options)
            case Times():
                return self.repeat(regex)

    def repeat(self, regex: Times) -> _Fragment:
        inner, low, high = regex.regex, regex.low, regex.high
        rest = _EMPTY
        if high is None and low == 0:
            rest = _optional(self.loop(self.part(inner)))
        elif high is not None:
            # x{0,3} is (x(x(x)?)?)?, which keeps every `follow` small
            for _ in range(high - low):
                rest = _optional(self.join(self.part(inner), rest))
        whole = _EMPTY
        for copy in range(low):
            part = self.part(inner)
            last = high is None and copy == low - 1
            whole = self.join(whole, self.loop(part) if last else part)
        return self.join(whole, rest)

    def characters(self, tree: ByteTree) -> _Fragment:
        return _either(
            self.join(self.characters(before), self.leaf(last)) if before else self.leaf(last)
            for before, last in tree
        )

    def leaf(self, members: int) -> _Fragment:
        if len(self.bytes) > STATE_LIMIT:
            raise RegexError(TOO_LARGE, self.pattern)
        self.bytes.append(members)
        self.follow.append(0)
        place = 1 << len(self.bytes) - 1
        return _Fragment(False, place, place)

    def join(self, left: _Fragment, right: _Fragment) -> _Fragment:
        for place in bits(left.last):
            self.follow[place] |= right.first
        return _Fragment(
            left.nullable and right.nullable,
            left.first | right.first if left.nullable else left.first,
            left.last | right.last if right.nullable else right.last,
        )

    def loop(self, part: _Fragment) -> _Fragment:
        for place in bits(part.last):
            self.follow[place] |= part.first
        return part


def _either(options: Iterable[_Fragment]) -> _Fragment:
    nullable, first, last = False, 0, 0
    for option in options:
        nullable |= option.nullable
        first |= option.first
        last |= option.last
    return _Fragment(nullable, first, last)


def _optional(part: _Fragment) -> _Fragment:
    return part._replace(nullable=True)
