"""Whether bound terminals are bound in every way through an item and through its branch.

A terminal that item and branch have in common before their first free text is bound: the branch
repeats the item's value. Where only some ways write it, or two ways write two in another order, a
reader would silently let some branches go unbound; so that is refused. The ways are followed by
counting the bound terminals that are already written; a rule is looked at once for each count.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode, Span
from nprdsl.grammar.ir import (
    Alt,
    Block,
    Field,
    ForkNode,
    JoinNode,
    MapNode,
    Node,
    Ref,
    Repeat,
    Seq,
    TerminalKind,
)
from nprdsl.grammar.walk import Rules, Uses, all_nodes, uses_of

_Call = tuple[str, int]  # a rule, and how many bound terminals are written before it
_Fault = tuple[Node, str]  # where, and which terminal is not written before it


def bindings(rules: Rules, uses: Uses) -> tuple[set[Node], list[Diagnostic]]:
    """The fields of branches that repeat a value of the item, and the faults of all blocks."""
    fields: set[Node] = set()
    faults: list[Diagnostic] = []
    for node in all_nodes(rules):
        if not isinstance(node, ForkNode) or not node.block.bound:
            continue
        for rule in (node.block.item or "", node.block.branch):
            ways = _ways(node.block, rules, rule, uses)
            fields |= set(ways.bound) if rule == node.block.branch else set()
            faults += [_lost(node.block, rule, where.span, name) for where, name in ways.faults]
    return fields, faults


def item_fields(block: Block, rules: Rules) -> list[Field]:
    """The fields of an item whose values its branch repeats."""
    ways = _Ways(block, rules, block.item or "")
    return [node for node in ways.bound if isinstance(node, Field)]


def repeats(rules: Rules, uses: Uses | None = None) -> Iterator[tuple[Block, Field, Field]]:
    """Every field of a block's item that is bound, with each field of the branch that repeats
    it."""
    uses = uses or uses_of(rules)
    for node in all_nodes(rules):
        if isinstance(node, ForkNode) and node.block.bound:
            block = node.block
            ways = (_ways(block, rules, r, uses) for r in (block.item or "", block.branch))
            item, branch = (way.bound for way in ways)
            for written, repeated in product(item, branch):
                assert isinstance(written, Field) and isinstance(repeated, Field)
                if written.terminal is repeated.terminal:
                    yield block, written, repeated


@dataclass(frozen=True, slots=True)
class _WayEnds:
    """The fields that are bound, and the places where a way goes wrong."""

    bound: tuple[Node, ...]
    faults: tuple[_Fault, ...]


def _ways(block: Block, rules: Rules, start: str, uses: Uses) -> _WayEnds:
    def followed() -> _WayEnds:
        ways = _Ways(block, rules, start)
        return _WayEnds(tuple(ways.bound), tuple(ways.faults))

    return uses.once("ways", (block, start), start, followed)


class _Ways:
    """All ways through `start`, an item or a branch of `block`, up to their first free text.

    `bound` are the fields that are bound, `faults` the places where a way goes wrong.
    """

    def __init__(self, block: Block, rules: Rules, start: str) -> None:
        self._names = block.bound
        self._rules = rules
        self.bound: dict[Node, None] = {}
        self.faults: dict[_Fault, None] = {}
        self._ends: dict[_Call, frozenset[int]] = {}
        self._users: dict[_Call, dict[_Call, None]] = {}
        self._pending: deque[_Call] = deque()
        self._call((start, 0), None)
        while self._pending:
            call = self._pending.popleft()
            ends = self._through(rules[call[0]].node, call[1], call)
            if ends != self._ends[call]:
                self._ends[call] = ends
                self._pending.extend(self._users[call])
        for count in self._ends[start, 0]:
            self._stop(rules[start].node, count)

    def _call(self, call: _Call, user: _Call | None) -> frozenset[int]:
        if call not in self._ends:
            self._ends[call] = frozenset()
            self._users[call] = {}
            self._pending.append(call)
        if user is not None:
            self._users[call][user] = None
        return self._ends[call]

    def _stop(self, node: Node, count: int) -> None:
        """Behind this nothing is bound any more."""
        if count < len(self._names):
            self.faults[node, self._names[count]] = None

    def _through(self, node: Node, count: int, user: _Call) -> frozenset[int]:
        """How many bound terminals may be written behind `node`, of the ways that go on there."""
        match node:
            case Field():
                return self._field(node, count)
            case Ref() if node.rule in self._rules:
                return self._call((node.rule, count), user)
            case Seq():
                counts = frozenset({count})
                for item in node.items:
                    counts = self._each(item, counts, user)
                return counts
            case Alt():
                ways = [self._through(option, count, user) for option in node.options]
                return frozenset[int]().union(*ways)
            case Repeat():
                return self._repeated(node, count, user)
            case MapNode() | ForkNode() | JoinNode():
                self._stop(node, count)
                return frozenset()
            case _:
                return frozenset({count})

    def _each(self, node: Node, counts: frozenset[int], user: _Call) -> frozenset[int]:
        return frozenset[int]().union(*(self._through(node, count, user) for count in counts))

    def _repeated(self, node: Repeat, count: int, user: _Call) -> frozenset[int]:
        found = self._through(node.node, count, user)
        more = found if node.high != 1 else frozenset[int]()
        while more:
            more = self._each(node.node, more, user) - found
            found |= more
        return found | {count} if node.low == 0 else found

    def _field(self, node: Field, count: int) -> frozenset[int]:
        name = node.terminal.name
        if name in self._names:
            place = self._names.index(name)
            if place == count:
                self.bound[node] = None
                return frozenset({count + 1})
            if place > count:
                self.faults[node, self._names[count]] = None
                return frozenset()
        if node.terminal.kind is TerminalKind.TEXT:
            self._stop(node, count)
            return frozenset()
        return frozenset({count})


def _lost(block: Block, rule: str, where: Span, name: str) -> Diagnostic:
    other = block.branch if rule == block.item else block.item
    order = f" and in the order {', '.join(block.bound)}" if len(block.bound) > 1 else ""
    return Diagnostic(
        DiagnosticCode.UNDECIDED_BINDING,
        where,
        f"`{name}`, which `{rule}` has in common with `{other}`, is not written before this in "
        "every way",
        f"write `{name}` in every alternative, before the first free text{order}; or give what is "
        f"not to be repeated another name, as in `OTHER: {name}`",
        ((block.span, f"the branches of this block repeat {' and '.join(block.bound)}"),),
    )
