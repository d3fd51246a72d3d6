"""Shares of a budget: limits under which no part of a trace can eat what the others need.

A schema bound to a vocabulary and a budget go in; out come limits that give every free text its
part, by where it stands: little for an item of a list, most for a branch, the rest for what follows
the joins. They are for models that were not trained on the format, which else write their first
item until the budget is gone. How much there is to share follows from a typical trace: three items
in a list, every optional part once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.grammar.ir import (
    Alt,
    Block,
    Field,
    ForkNode,
    JoinNode,
    Literal,
    MapNode,
    Node,
    Ref,
    Repeat,
    Seq,
    Tag,
    Terminal,
    TerminalKind,
)
from nprdsl.grammar.item_counts import least_items
from nprdsl.grammar.walk import bodies
from nprdsl.machine.branch_state import Place
from nprdsl.machine.budget import LimitError, Limits, TextTokens
from nprdsl.machine.machine import Machine
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.structure.stack import UNBOUNDED, Bounds

ITEMS: Final = 3  # in a typical list
_MANY: Final = 1 << 20  # where a schema asks for more, nothing is left to share
LINE: Final = 32  # tokens: an item of a list is a line, however large the budget
WEIGHTS: Final = {Place.ITEM: 1, Place.BRANCH: 4, Place.TRUNK: 3}
_STRUCTURE: Final = "structure"  # tokens of tags and the like, beside the texts of each place
_BLOCK: Final = "block"
_Size = Counter[str]  # how many of each

# What is tried until a trace fits: deeper, wider and longer only where the schema asks for it.
_DEPTHS: Final = (1, 2, None)
_BRANCHES: Final = (ITEMS, 2 * ITEMS, 4 * ITEMS, None)
_BLOCKS: Final = (1, 2, 4, 8, None)


def shared_limits(bound: BoundSchema, max_tokens: int) -> Limits:
    """Limits that share out a budget between the texts of a typical trace: the most tokens of each,
    and as few blocks, branches and forks inside forks as the schema allows, though three branches.

    Raises LimitError where no trace fits `max_tokens`.
    """
    limits = _narrow(bound, max_tokens)
    size = _TypicalTrace(bound, limits.bounds).size
    part = max(1, (max_tokens - size[_STRUCTURE]) // max(_texts(size), 1))
    line = min(part, LINE)
    branch, trunk = (WEIGHTS[place] * part for place in (Place.BRANCH, Place.TRUNK))
    return replace(limits, text_tokens=TextTokens(line, branch, trunk, kept=line))


def _narrow(bound: BoundSchema, max_tokens: int) -> Limits:
    """The narrowest bounds under which there is a trace that fits."""
    for depth, branches, blocks in product(_DEPTHS, _BRANCHES, _BLOCKS):
        limits = Limits(max_tokens=max_tokens, depth=depth, branches=branches, blocks=blocks)
        try:
            Machine(bound, limits=limits)
        except (LimitError, SchemaError):  # a schema without a trace under bounds is a dead end
            if limits.bounds == UNBOUNDED:
                raise
            continue
        break
    return limits


class _TypicalTrace:
    """Counts what a typical trace under bounds holds: the texts of each place, and the tokens
    around them. `size` is empty where there is none without a rule inside itself."""

    def __init__(self, bound: BoundSchema, bounds: Bounds) -> None:
        self._rests = bound.automaton().fields.rests
        self._bodies = bodies(bound.grammar.rules)
        self._bounds = bounds
        self._known: dict[tuple[str, _Where], _Size | None] = {}
        self.size = self._rule(bound.grammar.start, _Where(Place.TRUNK, None, 0)) or Counter()

    def _rule(self, name: str, where: _Where) -> _Size | None:
        """The contents of a rule, None for a rule inside itself."""
        if (name, where) not in self._known:
            self._known[name, where] = None
            self._known[name, where] = self._node(self._bodies[name], where)
        return self._known[name, where]

    def _node(self, node: Node, where: _Where) -> _Size | None:
        """What a node holds; None where no trace under the bounds can hold it."""
        match node:
            case Tag():
                return Counter({_STRUCTURE: self._rests.tag_cost(node.text)})
            case Literal():
                return Counter({_STRUCTURE: self._rests.spelling.tokens(node.text.encode())})
            case Field():
                return self._field(node.terminal, where.place)
            case Ref():
                is_item = where.listing is not None and node.rule == where.listing.item
                return self._rule(node.rule, where.in_item() if is_item else where)
            case Seq():
                return self._sequence(node, where)
            case Alt():
                sizes = [self._node(option, where) for option in node.options]
                return max((s for s in sizes if s is not None), key=_texts, default=None)
            case Repeat():
                size = self._node(node.node, where)
                if size is None:
                    return None if node.low else Counter()
                return _times(size, _turns(node, where))
            case MapNode():
                return self._node(node.node, where.listed(node.block))
            case ForkNode():
                return self._fork(node, where)
            case JoinNode():
                return self._node(node.node, where)

    def _sequence(self, node: Seq, where: _Where) -> _Size | None:
        """All of a sequence; optional blocks only as far as their number is not bounded."""
        size, most = _Size(), self._bounds.blocks
        for item in node.items:
            more = self._node(item, where)
            if more is None:
                return None
            optional = isinstance(item, Repeat) and not item.low
            if most is None or not optional or size[_BLOCK] + more[_BLOCK] <= most:
                size += more
        return size

    def _field(self, terminal: Terminal, place: Place) -> _Size:
        match terminal.kind:
            case TerminalKind.TEXT | TerminalKind.TYPED:
                return Counter({place: 1})
            case TerminalKind.GLUE:
                return Counter({_STRUCTURE: self._rests.spelling.tokens(terminal.literal.encode())})
            case TerminalKind.REGULAR:
                return Counter({_STRUCTURE: 1})

    def _fork(self, node: ForkNode, where: _Where) -> _Size | None:
        block, most = node.block, self._bounds.depth
        if most is not None and where.depth >= most:
            return None
        branch = self._rule(node.branch.rule, _Where(Place.BRANCH, None, where.depth + 1))
        if branch is None:
            return None
        count = block.low if block.item is None else least_items(block, self._bodies)
        branches = _times(branch, min(max(ITEMS if block.item else 1, count), _MANY))
        branches[_BLOCK] = 1  # those inside are counted on their branches
        return branches


@dataclass(frozen=True, slots=True)
class _Where:
    """A place, the block whose items are listed there, and how many forks it is inside of."""

    place: Place
    listing: Block | None
    depth: int

    def in_item(self) -> _Where:
        return _Where(Place.ITEM, None, self.depth)

    def listed(self, block: Block) -> _Where:
        return _Where(self.place, block, self.depth)


def _turns(node: Repeat, where: _Where) -> int:
    turns = max(node.low, ITEMS if where.listing is not None else 1)
    return min(turns, _MANY if node.high is None else node.high)


def _times(size: _Size, turns: int) -> _Size:
    return Counter({name: turns * number for name, number in size.items()})


def _texts(size: _Size) -> int:
    return sum(weight * size[place] for place, weight in WEIGHTS.items())
