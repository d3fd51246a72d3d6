"""The fewest tokens that finish a trace legally from any state of the tag machine.

The cost of a stack is the sum of the costs of its entries; a listed item costs its branch as well.
Costs are reachable, not only lower bounds: from a state of cost c some token leads to one of cost
c-1 or less. Where the blocks of a branch are limited, the way with the fewest blocks is taken,
even if another one had fewer tokens.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from nprdsl.grammar.ir import (
    Alt,
    Block,
    Field,
    ForkNode,
    Grammar,
    JoinNode,
    Literal,
    MapNode,
    Node,
    Ref,
    Repeat,
    Seq,
    Tag,
    TerminalKind,
)
from nprdsl.grammar.walk import all_nodes
from nprdsl.masks.parts import FieldRests, part_of
from nprdsl.regular.dfa import compile_regex
from nprdsl.structure.stack import (
    PENDING,
    Bounds,
    BoundValue,
    BranchEnd,
    BranchFrame,
    Cell,
    Frame,
    ListedFrame,
    MapEnd,
    MapFrame,
    OpenFork,
    PendingBranch,
    PendingBranches,
    Repeating,
    branch_of,
)
from nprdsl.tokens.spelling import NEVER

_FEE: Final = 1 << 20  # added for a block where blocks are limited: more than the tokens of any way
_PATTERNED: Final = (TerminalKind.REGULAR, TerminalKind.TYPED)
_DepthLeft = int | None  # forks that may still be nested; None is without limit
_RuleKey = tuple[str, int | None, _DepthLeft]


class Costing(StrEnum):
    """What a cost includes."""

    WHOLE = "whole"  # a listed item costs its branch as well
    OWN = "own"  # only what is written on the branch itself


class Costs:
    """Minimal token costs for one grammar over one vocabulary under bounds."""

    def __init__(
        self,
        grammar: Grammar,
        rests: FieldRests,
        bounds: Bounds,
        costing: Costing = Costing.WHOLE,
    ) -> None:
        self._grammar = grammar
        self._spelling = rests.spelling
        self._terminals = {n: part_of(t).whole_cost(rests) for n, t in grammar.terminals.items()}
        self._tags = {tag: rests.tag_cost(tag) for tag in grammar.tags}
        self._bounds = bounds
        self._costing = costing
        self._blocks = {b.index: b for b in grammar.blocks}
        self._rules: dict[_RuleKey, int] = {}
        self._labels: dict[tuple[int, str], int] = {}
        start = Ref(grammar.start, grammar.rules[grammar.start].span)
        self._node(start, None, bounds.depth)
        self._measure()

    # states

    def stack(self, cell: Cell | None, frame: Frame | None, until: Cell | None = None) -> int:
        """The cost of everything on the stack, or of what lies above `until`."""
        total = self._frames(frame) if until is None else 0
        own, block = 0, _open_block(frame)  # own: of the innermost branch
        unlisted: Block | None = None  # its map is still to come, so that no frame is open for it
        listed = _listed(frame)  # items of the open map, those that it must still list included
        while cell is not until and cell is not None:
            entry, left = cell.entry, self._left(frame)
            if isinstance(entry, Repeating):
                turns = max(entry.node.low - entry.count, 0)
                listed += turns * self._least_items(entry.node.node, block)
                own += turns * self._node(entry.node.node, block, left) if turns else 0
            elif isinstance(entry, PendingBranches):
                total += self._branches(entry, left)
            elif isinstance(entry, PendingBranch):
                total += self.branch(entry.block, entry.values, left)
            elif isinstance(entry, MapEnd):
                total += self._refused(listed)
                block = None
            elif isinstance(entry, OpenFork):
                total += entry.fork.block.low * self.branch(entry.fork.block, (), left)
            elif isinstance(entry, BranchEnd):
                total, own = total + self._tokens(own, frame), 0
                frame = frame.below if frame is not None else None
                block, listed = _open_block(frame), _listed(frame)
            elif isinstance(entry, ForkNode) and entry.block.item is not None:
                if entry.block is not unlisted:
                    assert isinstance(frame, (MapFrame, ListedFrame))
                    frame = frame.below
                    block, listed = _open_block(frame), _listed(frame)
                unlisted = None
            elif isinstance(entry, Node):
                own += self._node(entry, block, left)
                listed += self._least_items(entry, block)
                unlisted = entry.block if isinstance(entry, MapNode) else unlisted
            cell = cell.below
        return min(total + self._tokens(own, frame), NEVER)

    def _tokens(self, cost: int, frame: Frame | None) -> int:
        """A cost without fees; NEVER if it takes more blocks than the branch may still have."""
        limit = self._bounds.blocks
        if limit is None or cost >= NEVER:
            return cost
        used = branch_of(frame).blocks if frame is not None else 0
        return cost % _FEE if cost // _FEE <= limit - used else NEVER

    def branch(self, block: Block, values: tuple[BoundValue, ...], left: _DepthLeft) -> int:
        """The cost of one branch that repeats these values, forked where `left` forks may be
        nested."""
        inner = None if left is None else left - 1
        total = self._tokens(self._rule(block.branch, None, inner), None)
        if self._costing is Costing.OWN:
            return 0
        for slot, name in enumerate(block.bound):
            known = slot < len(values)
            cost = self._value(values[slot]) if known else self._label(block, name)
            total += cost - self._terminals[name]
        return min(total, NEVER)

    def total(self) -> int:
        """More than any one token can add to the cost of a state: the sum over all rules, and the
        longest way out of a value."""
        rules = sum(cost % _FEE for cost in self._rules.values() if cost < NEVER)
        patterns = (t.pattern for t in self._grammar.terminals.values() if t.kind in _PATTERNED)
        values = max((self._spelling.longest(compile_regex(p)) for p in patterns), default=0)
        return 16 + 2 * (rules + values)

    def rule(self, name: str) -> int:
        """The least cost of one use of a rule, wherever it stands; 0 if it has no place."""
        uses = (cost % _FEE for (rule, _, _), cost in self._rules.items() if rule == name)
        return min(uses, default=0)

    def _left(self, frame: Frame | None) -> _DepthLeft:
        if self._bounds.depth is None:
            return None
        return self._bounds.depth - (branch_of(frame).depth if frame is not None else 0)

    def _branches(self, entry: PendingBranches, left: _DepthLeft) -> int:
        if entry.items is None:
            return max(entry.block.low - entry.index, 0) * self.branch(entry.block, (), left)
        return sum(self.branch(entry.block, v, left) for v in entry.items[entry.index :])

    def _frames(self, frame: Frame | None) -> int:
        total = 0
        while frame is not None:
            if isinstance(frame, BranchFrame):
                total += self._pending(frame)
            else:
                left = self._left(frame)
                total += sum(self.branch(frame.block, values, left) for values in frame.items)
                if isinstance(frame, MapFrame) and frame.open is not None:
                    total += self.branch(frame.block, frame.open, left)
            frame = frame.below
        return total

    def _pending(self, frame: BranchFrame) -> int:
        total = 0
        for name, value in frame.pending:
            total += self._value(value) - self._terminals[name]
        return total

    def _value(self, value: BoundValue) -> int:
        """A value of the field in progress is counted there."""
        if value is PENDING:
            return 0
        return len(value.tokens) or self._spelling.tokens(value.text.encode())

    # nodes

    def _measure(self) -> None:
        """Least fixed point over rules, the maps that they stand in, and depths."""
        while True:
            before = dict(self._rules)
            for name, index, left in before:
                block = None if index is None else self._blocks[index]
                cost = self._node(self._grammar.rules[name].node, block, left)
                self._rules[name, index, left] = min(cost, NEVER)
            if self._rules == before:
                return

    def _rule(self, name: str, block: Block | None, left: _DepthLeft) -> int:
        return self._rules.setdefault((name, None if block is None else block.index, left), NEVER)

    def _node(self, node: Node, block: Block | None, left: _DepthLeft) -> int:
        if isinstance(node, Tag):
            return self._tags[node.text]
        if isinstance(node, Literal):
            return self._spelling.tokens(node.text.encode())
        if isinstance(node, Field):
            name = node.terminal.name
            bound = block is not None and name in block.bound
            return self._label(block, name) if bound and block else self._terminals[name]
        if isinstance(node, Ref):
            cost = self._rule(node.rule, block, left)
            if block is not None and block.item == node.rule:
                cost += self.branch(block, (), left)
            return min(cost, NEVER)
        if isinstance(node, Seq):
            return sum(self._node(item, block, left) for item in node.items)
        if isinstance(node, Alt):
            return min(self._node(option, block, left) for option in node.options)
        if isinstance(node, Repeat):
            turn = self._node(node.node, block, left)  # looked at even if it may be left out
            return node.low * turn if node.low else 0
        if isinstance(node, JoinNode):
            return self._node(node.node, block, left)
        return self._construct(node, left)

    def _construct(self, node: MapNode | ForkNode, left: _DepthLeft) -> int:
        """A map or a fork by count; NEVER where the bounds forbid it."""
        fee = _FEE if self._bounds.blocks is not None else 0
        if isinstance(node, ForkNode):
            if node.block.item is not None:
                return 0  # counted with the items
            if left == 0 or self._refused(node.block.low):
                return NEVER
            return fee + node.block.low * self.branch(node.block, (), left)
        if left == 0 or self._refused(self._items(node.block)):
            return NEVER
        return fee + self._node(node.node, node.block, left)

    def _label(self, block: Block, name: str) -> int:
        """A bound value not yet chosen: enough for as many distinct labels as must be listed."""
        key = (block.index, name)
        cost = self._labels.get(key)
        if cost is None:
            cost = self._labels[key] = self._find_label(block, name)
        return cost

    def _find_label(self, block: Block, name: str) -> int:
        terminal = self._grammar.terminals[name]
        if terminal.kind is not TerminalKind.REGULAR or name != block.bound[0]:
            return self._terminals[name]
        dfa, taken, cost = compile_regex(terminal.pattern), frozenset[bytes](), 0
        for _ in range(self._items(block)):
            label = self._spelling.fresh(dfa, b"", taken)
            if label is None:
                return NEVER
            taken |= {label}
            cost = max(cost, self._spelling.tokens(label))
        return cost

    def _refused(self, branches: int) -> int:
        """NEVER where a fork has more branches than the bounds allow, else 0."""
        limit = self._bounds.branches
        return NEVER if limit is not None and branches > limit else 0

    def _least_items(self, node: Node, block: Block | None) -> int:
        """How many items of an open map `node` lists at least; only a bound on branches asks."""
        if block is None or self._bounds.branches is None:
            return 0
        return self._count(node, block, ())

    def _items(self, block: Block) -> int:
        """How many items the map of a block must list at least."""
        for node in all_nodes(self._grammar.rules):
            if isinstance(node, MapNode) and node.block is block:
                return max(self._count(node.node, block, ()), 1)
        return 1

    def _count(self, node: Node, block: Block, seen: tuple[str, ...]) -> int:
        if isinstance(node, Ref):
            if node.rule == block.item:
                return 1
            if node.rule in seen:
                return 0
            return self._count(self._grammar.rules[node.rule].node, block, (*seen, node.rule))
        if isinstance(node, Seq):
            return sum(self._count(n, block, seen) for n in node.items)
        if isinstance(node, Alt):
            return min(self._count(n, block, seen) for n in node.options)
        if isinstance(node, Repeat):
            return node.low * self._count(node.node, block, seen)
        return 0


def _open_block(frame: Frame | None) -> Block | None:
    return frame.block if isinstance(frame, MapFrame) else None


def _listed(frame: Frame | None) -> int:
    """The items that the innermost map has listed, the one that is open included."""
    if not isinstance(frame, MapFrame):
        return 0
    return len(frame.items) + (frame.open is not None)
