"""Which units may stand at the same place, and which of them a greedy lexer would confuse.

A unit that begins with a literal can be lexed as that literal and a rest, and then shares the rest
with other units (`1:` and `2:` before free text). That is wrong where another unit at the same
place begins alike: the longer lexeme would swallow the literal.
"""

from __future__ import annotations

from itertools import combinations

from nprdsl.export.contents import Unit, Units
from nprdsl.grammar.ir import Alt, Literal, Node, Ref, Repeat, Seq

_Names = frozenset[str]


def head(unit: Unit) -> tuple[str, list[Node]]:
    """The literals that a unit's content begins with, as one text, and the rest of its content."""
    rest = list(unit.content)
    text = ""
    while rest and isinstance(rest[0], Literal):
        text += rest[0].text
        rest.pop(0)
    return text, rest


def conflicting(units: Units) -> frozenset[Unit]:
    """The units that must be one lexeme as a whole."""
    places = _Places(units).all()
    whole: set[str] = set()
    grown = True
    while grown:
        grown = False
        for place in places:
            content = {name for name in place if units.units[name].content}
            if content <= whole:
                continue
            pairs = combinations(sorted(content), 2)
            if content & whole or any(_confused(units, one, other) for one, other in pairs):
                whole |= content
                grown = True
    return frozenset(units.units[name] for name in whole)


def _confused(units: Units, one: str, other: str) -> bool:
    (first, _), (second, _) = head(units.units[one]), head(units.units[other])
    if first == second:
        return False
    return first.startswith(second) or second.startswith(first)


class _Places:
    """FIRST and FOLLOW sets over units."""

    def __init__(self, units: Units) -> None:
        self._units = units
        self._first: dict[str, _Names] = dict.fromkeys(units.rules, frozenset())
        self._nothing: set[str] = set()
        self._follow: dict[str, _Names] = dict.fromkeys([*units.rules, *units.units], frozenset())

    def all(self) -> list[_Names]:
        """The sets of units that may come next, at the start and behind each unit."""
        self._settle_first()
        while True:
            before = dict(self._follow)
            for rule, node in self._units.rules.items():
                self._spread(node, self._follow[rule])
            if before == self._follow:
                break
        start = self._first[self._units.start]
        return [start, *(self._follow[name] for name in self._units.units)]

    def _settle_first(self) -> None:
        while True:
            before = dict(self._first), len(self._nothing)
            for rule, node in self._units.rules.items():
                self._first[rule] = self._start(node)
                if self._may_be_nothing(node):
                    self._nothing.add(rule)
            if before == (self._first, len(self._nothing)):
                return

    def _start(self, node: Node) -> _Names:
        match node:
            case Ref(rule=rule):
                return frozenset([rule]) if rule in self._units.units else self._first[rule]
            case Seq(items=items):
                return self._start_of(items, frozenset())
            case Alt(options=options):
                return frozenset().union(*(self._start(option) for option in options))
            case Repeat(node=inner):
                return self._start(inner)
            case _:
                raise AssertionError(node)

    def _start_of(self, items: tuple[Node, ...], behind: _Names) -> _Names:
        """What `items`, with `behind` after them, may begin with."""
        found: _Names = frozenset()
        for item in items:
            found |= self._start(item)
            if not self._may_be_nothing(item):
                return found
        return found | behind

    def _may_be_nothing(self, node: Node) -> bool:
        match node:
            case Ref(rule=rule):
                return rule in self._nothing
            case Seq(items=items):
                return all(self._may_be_nothing(item) for item in items)
            case Alt(options=options):
                return any(self._may_be_nothing(option) for option in options)
            case Repeat(node=inner, low=low):
                return low == 0 or self._may_be_nothing(inner)
            case _:
                raise AssertionError(node)

    def _spread(self, node: Node, behind: _Names) -> None:
        """Adds what may follow to every rule and unit in `node`, `behind` being what follows it."""
        match node:
            case Ref(rule=rule):
                self._follow[rule] |= behind
            case Seq(items=items):
                for index, item in enumerate(items):
                    self._spread(item, self._start_of(items[index + 1 :], behind))
            case Alt(options=options):
                for option in options:
                    self._spread(option, behind)
            case Repeat(node=inner):
                self._spread(inner, behind | self._start(inner))
            case _:
                raise AssertionError(node)
