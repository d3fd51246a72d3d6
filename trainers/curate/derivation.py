"""Walking a grammar for the cheapest way to write something, as pieces.

A `Scope` says what fields, rules and constructs may hold where it stands, and how far that comes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Generic, Protocol, TypeVar

from nprdsl.grammar import ir
from nprdsl.trainers.curate.form_parts import Piece, Source, Written

S = TypeVar("S")  # a spot: how far a scope has come; hashable


class Cost(IntEnum):
    """What a derivation does that the document did not ask for."""

    JOINED = 1  # the answer in one text with what stands before it, where prose flows anyway
    WRAP = 3  # prose as a block of one branch
    BURIED = 4  # the answer in one text with what stands before it, where it has its own place
    EXTRA = 10  # a text that has to be made up


@dataclass(frozen=True, slots=True)
class Way:
    """A derivation and what it costs."""

    cost: int = 0
    pieces: tuple[Piece, ...] = ()

    def then(self, other: Way) -> Way:
        return Way(self.cost + other.cost, self.pieces + other.pieces)


Ways = dict[S, Way]  # every spot that is reached, in the cheapest way


class Scope(Protocol[S]):
    """What may stand at a spot; every method gives the spots that are reached by it."""

    def field(self, terminal: ir.Terminal, spot: S) -> Ways[S]: ...

    def special(self, rule: str, spot: S) -> Ways[S] | None:
        """A rule that is not simply walked here; None for all others."""

    def construct(self, node: ir.MapNode | ir.ForkNode | ir.JoinNode, spot: S) -> Ways[S]: ...


def add(into: Ways[S], spot: S, way: Way) -> bool:
    """Whether `way` is the cheapest to `spot` so far; it is then kept."""
    known = into.get(spot)
    if known is not None and known.cost <= way.cost:
        return False
    into[spot] = way
    return True


def after(ways: Ways[S], step: Callable[[S], Ways[S]]) -> Ways[S]:
    """What is reached by a step more."""
    found: Ways[S] = {}
    for spot, way in ways.items():
        for reached, more in step(spot).items():
            add(found, reached, way.then(more))
    return found


class Walker(Generic[S]):
    """Walks the nodes of a grammar in one scope."""

    def __init__(self, grammar: ir.Grammar, scope: Scope[S]) -> None:
        self._grammar = grammar
        self._scope = scope
        self._active: set[tuple[str, S]] = set()

    def walk(self, node: ir.Node, spot: S) -> Ways[S]:
        """Every spot that can be reached over `node`, in the cheapest way."""
        match node:
            case ir.Tag():
                return {spot: Way(0, (Written(node.text, Source.TAG),))}
            case ir.Literal():
                return {spot: Way(0, (Written(node.text, Source.LITERAL),))}
            case ir.Field():
                return self._scope.field(node.terminal, spot)
            case ir.Ref():
                return self._rule(node.rule, spot)
            case ir.Seq():
                return self._sequence(node, spot)
            case ir.Alt():
                return self._choice(node, spot)
            case ir.Repeat():
                return self._repeat(node, spot)
            case ir.MapNode() | ir.ForkNode() | ir.JoinNode():
                return self._scope.construct(node, spot)

    def _rule(self, name: str, spot: S) -> Ways[S]:
        special = self._scope.special(name, spot)
        if special is not None:
            return special
        if (name, spot) in self._active:  # a turn that writes nothing is never the cheapest
            return {}
        self._active.add((name, spot))
        try:
            return self.walk(self._grammar.rules[name].node, spot)
        finally:
            self._active.discard((name, spot))

    def _sequence(self, node: ir.Seq, spot: S) -> Ways[S]:
        ways: Ways[S] = {spot: Way()}
        for item in node.items:
            ways = after(ways, partial(self.walk, item))
        return ways

    def _choice(self, node: ir.Alt, spot: S) -> Ways[S]:
        found: Ways[S] = {}
        for option in node.options:
            for reached, way in self.walk(option, spot).items():
                add(found, reached, way)
        return found

    def _repeat(self, node: ir.Repeat, spot: S) -> Ways[S]:
        found: Ways[S] = {}
        reached: Ways[S] = {spot: Way()}
        turn = 0
        while reached:
            if turn >= node.low:
                reached = {at: way for at, way in reached.items() if add(found, at, way)}
            if turn == node.high:
                break
            reached = after(reached, partial(self.walk, node.node))
            turn += 1
        return found
