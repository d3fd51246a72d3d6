"""The parts that make up a field, in the order in which they must be written."""

from __future__ import annotations

from dataclasses import dataclass

from nprdsl.regular.dfa import Dfa


@dataclass(frozen=True, slots=True)
class LiteralPart:
    """Fixed bytes; `tokens` where they must be these, as a branch repeats a text."""

    data: bytes
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class AnyGluePart:
    """Any white space, or none."""


@dataclass(frozen=True, slots=True)
class TextPart:
    """Free text; `counted` if a branch repeats it, token by token."""

    counted: bool = False


@dataclass(frozen=True, slots=True)
class RegularPart:
    dfa: Dfa


@dataclass(frozen=True, slots=True)
class FreshPart:
    """A label that a branch repeats; none of `taken`."""

    dfa: Dfa
    taken: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class TagPart:
    """The tag that ends a field. `reserve` tokens are owed behind it: a branch's repeat of a
    label.

    A spelled tag behind a counted text is `counted` too: its tokens might still be text, and are
    counted as such, so each of them takes one off the reserve; `inside` while one is being read.
    """

    tag: str
    data: bytes
    reserve: int = 0
    counted: bool = False
    inside: bool = False


Part = LiteralPart | AnyGluePart | TextPart | RegularPart | FreshPart | TagPart
Progress = int | bytes


class Chain:
    """A part and what follows it. `cost` is the fewest tokens that finish it all, tag included."""

    __slots__ = ("cost", "part", "rest")

    def __init__(self, part: Part, rest: Chain | None, cost: int) -> None:
        self.part = part
        self.rest = rest
        self.cost = cost


Place = tuple[Chain, Progress]
