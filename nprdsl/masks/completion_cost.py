"""How many tokens are enough to finish a trace legally, from any state of the tag machine.

The cost of a stack is the sum of the costs of its entries; a listed item costs its branch as well.
Costs are upper bounds that are kept: from a state of cost c some token leads to one of cost c-1 or
less. They are the fewest tokens unless long tokens save some (docs/semantics.md, 9). `terminals`
are the costs of terminals by name, `detours` what fields cost beyond their parts
(`nprdsl.masks.field_detours`). Where the blocks of a branch are limited, the way with the fewest
blocks is taken, even if another one had fewer tokens. A list is finished by some number of items
(`Ways`), whose labels are the first that it has not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import reduce
from itertools import chain, islice
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
from nprdsl.grammar.label_values import label_values
from nprdsl.masks import item_ways
from nprdsl.masks.field_detours import Detours
from nprdsl.masks.field_rests import FieldRests
from nprdsl.masks.item_ways import NO_ITEM, Ways
from nprdsl.regular.dfa import compile_regex
from nprdsl.structure.stack import (
    PENDING,
    TRUNK,
    Bounds,
    BoundValue,
    BranchEnd,
    BranchFrame,
    Cell,
    Frame,
    ItemEnd,
    Items,
    ListedFrame,
    MapEnd,
    MapFrame,
    OpenFork,
    PendingBranch,
    PendingBranches,
    Repeating,
    RuleEnd,
    rules_left,
)
from nprdsl.tokens.fresh_labels import FreshLabels
from nprdsl.tokens.spelling import NEVER

_FEE: Final = 1 << 20  # added for a block where blocks are limited: more than the tokens of any way
_PATTERNED: Final = (TerminalKind.REGULAR, TerminalKind.TYPED)
_DepthLeft = int | None  # forks that may still be nested; None is without limit
_ListKey = tuple[str, int, _DepthLeft]  # a rule, in the list of a block
_Met = tuple[str, Block | None, _DepthLeft]  # a rule, perhaps in the list of a block
_Level = dict[tuple[str, Block | None], int | Ways]  # what each costs where so many are left
_OpenList = tuple[MapFrame, Ways]  # and what is still to come of it


class Costing(StrEnum):
    """What a cost includes."""

    WHOLE = "whole"  # a listed item costs its branch as well
    OWN = "own"  # only what is written on the branch itself


class Costs:
    """Minimal token costs for one grammar over one vocabulary under bounds, where a free text takes
    `text_tokens` at least."""

    def __init__(
        self,
        grammar: Grammar,
        rests: FieldRests,
        bounds: Bounds,
        terminals: Mapping[str, int],
        detours: Detours,
        costing: Costing = Costing.WHOLE,
        text_tokens: int = 1,
    ) -> None:
        self._grammar = grammar
        self._rests = rests
        self._spelling = rests.spelling
        self._terminals = dict(terminals)
        for name, terminal in grammar.terminals.items():
            if terminal.kind is TerminalKind.TEXT:
                self._terminals[name] = max(terminals[name], text_tokens)
        self._tags = {tag: rests.tag_cost(tag) for tag in grammar.tags}
        self._detours = detours
        self._bounds = bounds
        self._costing = costing
        self._blocks = {b.index: b for b in grammar.blocks}
        self._repeats = 2 if costing is Costing.WHOLE else 1  # how often a label is written
        self._label_names = {b.index: grammar.label_of(b) for b in grammar.blocks}
        self._rules: dict[tuple[str, _DepthLeft], int] = {}
        self._lists: dict[_ListKey, Ways] = {}
        self._users: dict[_Met, dict[_Met, None]] = {}  # of what is met, while it is measured
        self._user: _Met | None = None
        self._deepest = 0  # from this depth on none costs less
        self._measure()

    # states

    def stack(self, cell: Cell | None, frame: Frame | None, until: Cell | None = None) -> int:
        """The cost of everything on the stack, or of what lies above `until`; the label that is
        being read is left out."""
        return self._sum(cell, frame, until)[0]

    def later(self, cell: Cell | None, frame: Frame | None) -> list[Ways]:
        """For each value of the field in progress that a branch repeats, outer items first: what
        its list still needs if the value is a label, else nothing."""
        ways = []
        for open_frame, way in reversed(self._sum(cell, frame, None)[1]):
            names = zip(open_frame.block.bound, open_frame.open or (), strict=False)
            label = self._label_names[open_frame.block.index]
            ways += [way if n == label else NO_ITEM for n, value in names if value is PENDING]
        return ways

    def _sum(
        self, cell: Cell | None, frame: Frame | None, until: Cell | None
    ) -> tuple[int, list[_OpenList]]:
        total = self._frames(frame) if until is None else 0
        own, ways = 0, NO_ITEM  # of the innermost branch, of the list that is open on it
        opened, block = _open_map(frame), _listing(frame)
        unlisted: Block | None = None  # its map is still to come, so that no frame is open for it
        lists: list[_OpenList] = []
        while cell is not until and cell is not None:
            entry, left = cell.entry, self._left(frame)
            if isinstance(entry, PendingBranches):
                total += self._branches(entry, left)
            elif isinstance(entry, PendingBranch):
                total += self.branch(entry.block, entry.values, left)
            elif isinstance(entry, ItemEnd):
                assert opened is not None
                block = opened.block
            elif isinstance(entry, MapEnd):
                assert opened is not None
                lists.append((opened, self._allowed(opened, ways)))
                own += self._finish(*lists[-1])
                ways, opened, block = NO_ITEM, None, None
            elif isinstance(entry, OpenFork):
                total += entry.fork.block.low * self.branch(entry.fork.block, (), left)
            elif isinstance(entry, BranchEnd):
                total, own = total + self._tokens(own, frame), 0
                if until is None:
                    assert isinstance(frame, BranchFrame)
                    total += self._pending(entry.block, frame)
                frame = frame.below if frame is not None else None
                opened, block = _open_map(frame), _listing(frame)
            elif isinstance(entry, ForkNode) and entry.block.item is not None:
                if entry.block is not unlisted:
                    assert isinstance(frame, (MapFrame, ListedFrame))
                    frame = frame.below
                    opened, block = _open_map(frame), _listing(frame)
                unlisted = None
            elif isinstance(entry, (Node, Repeating)):
                if block is None:
                    own += self._rest(entry, left)
                else:
                    ways = item_ways.then(ways, self._rest_of_list(entry, block, left))
                unlisted = entry.block if isinstance(entry, MapNode) else unlisted
            elif isinstance(entry, RuleEnd) and until is None:  # of a list that nests, one an item
                cell = rules_left(cell)[0]
                continue
            cell = cell.below
        if opened is not None:  # cut off within the list
            own += self._finish(opened, ways)
        return min(total + self._tokens(own, frame), NEVER), lists

    def _rest(self, entry: Node | Repeating, left: _DepthLeft) -> int:
        if not isinstance(entry, Repeating):
            return self._node(entry, left)
        turns = max(entry.node.low - entry.count, 0)
        return turns * self._node(entry.node.node, left) if turns else 0

    def _rest_of_list(self, entry: Node | Repeating, block: Block, left: _DepthLeft) -> Ways:
        if not isinstance(entry, Repeating):
            return self._list(entry, block, left)
        turns = max(entry.node.low - entry.count, 0)
        return (
            item_ways.times(self._list(entry.node.node, block, left), turns) if turns else NO_ITEM
        )

    def _allowed(self, frame: MapFrame, ways: Ways) -> Ways:
        """Those with no more items than the bounds allow."""
        limit = self._bounds.branches
        if limit is None:
            return ways
        listed = len(frame.items) + (frame.open is not None)
        return tuple(way for way in ways if listed + way[0] <= limit)

    def _finish(self, frame: MapFrame, ways: Ways) -> int:
        """The cost of what is still to come of a list, the labels that it needs included."""
        name, opened = self._label_names[frame.block.index], frame.open
        if name is None:
            return min((tokens for _, tokens in ways), default=NEVER)
        slot = frame.block.bound.index(name)
        taken = {item[slot].text.encode() for item in frame.items}
        missing = opened is not None and len(opened) <= slot
        if opened is not None and not missing and opened[slot] is not PENDING:
            taken.add(opened[slot].text.encode())
        if ways == NO_ITEM and not missing:
            return 0
        more, counted = (1, self._terminals[name]) if missing else (0, 0)
        labels, repeats = self._fresh_labels(frame.block), self._repeats
        cost = item_ways.cost(ways, labels, frozenset(taken), repeats=repeats, more=more)
        return cost - counted if cost < NEVER else NEVER

    def _fresh_labels(self, block: Block) -> FreshLabels:
        return self._rests.labels(label_values(self._grammar).blocks[block])

    def _tokens(self, cost: int, frame: Frame | None) -> int:
        """A cost without fees; NEVER if it takes more blocks than the branch may still have."""
        limit = self._bounds.blocks
        if limit is None or cost >= NEVER:
            return cost
        used = frame.branch.blocks if frame is not None else 0
        return cost % _FEE if cost // _FEE <= limit - used else NEVER

    def branch(self, block: Block, values: tuple[BoundValue, ...], left: _DepthLeft) -> int:
        """The cost of one branch that repeats these values, forked where `left` forks may be
        nested; a label that is not yet chosen is counted by its list."""
        inner = None if left is None else left - 1
        total = self._tokens(self._rule(block.branch, inner), None)
        if self._costing is Costing.OWN:
            return 0
        if total >= NEVER:
            return NEVER
        label = self._label_names[block.index]
        for slot, name in enumerate(block.bound):
            if slot < len(values):
                total += self._beyond(block, name, values[slot])
            elif name == label:
                total -= self._terminals[name]
        return min(total, NEVER)

    def total(self) -> int:
        """More than any one token can add to the cost of a state: the sum over all rules, and the
        longest way out of a value."""
        ways = (way[-1:] for way in self._lists.values())
        costs = chain(self._rules.values(), (tokens for way in ways for _, tokens in way))
        rules = sum(cost % _FEE for cost in costs if cost < NEVER)
        patterns = (t.pattern for t in self._grammar.terminals.values() if t.kind in _PATTERNED)
        values = max((self._spelling.longest(compile_regex(p)) for p in patterns), default=0)
        return 16 + 2 * (rules + values) + 2 * max(self._detours.fields.values(), default=0)

    def rule(self, name: str) -> int:
        """The least cost of one use of a rule, wherever it stands; 0 if it has no place."""
        uses = [cost for (rule, _), cost in self._rules.items() if rule == name]
        for (rule, index, _), ways in self._lists.items():
            if rule == name:
                uses.append(self._finish(_unopened(self._blocks[index]), ways))
        return min((cost % _FEE for cost in uses), default=0)

    def _left(self, frame: Frame | None) -> _DepthLeft:
        """How deep forks may still be nested in a branch, as far as it makes a difference."""
        if self._bounds.depth is None:
            return None
        left = self._bounds.depth - (frame.branch.depth if frame is not None else 0)
        return min(left, self._deepest)

    def _branches(self, entry: PendingBranches, left: _DepthLeft) -> int:
        if entry.items is None:
            return max(entry.block.low - entry.index, 0) * self.branch(entry.block, (), left)
        return sum(self.branch(entry.block, v, left) for v in entry.items[entry.index :])

    def _frames(self, frame: Frame | None) -> int:
        total = 0
        while frame is not None:
            if not isinstance(frame, BranchFrame):
                left = self._left(frame)
                total += sum(self.branch(frame.block, values, left) for values in frame.items)
                if isinstance(frame, MapFrame) and frame.open is not None:
                    total += self.branch(frame.block, frame.open, left)
            frame = frame.below
        return total

    def _pending(self, block: Block, frame: BranchFrame) -> int:
        """What the values that a branch is still to repeat cost beyond what its rule counts."""
        return sum(self._beyond(block, name, value) for name, value in frame.pending)

    def _beyond(self, block: Block, name: str, value: BoundValue) -> int:
        counted = self._terminals[name] + self._detours.values.get((block.index, name), 0)
        return self._value(value) - counted

    def _value(self, value: BoundValue) -> int:
        """A value of the field in progress is counted there."""
        if value is PENDING:
            return 0
        return len(value.tokens) or self._spelling.tokens(value.text.encode())

    # nodes

    def _measure(self) -> None:
        """Each depth is made of the one before, so that once two are equal all further ones are."""
        if self._bounds.depth is None:
            self._measure_level(None)
            return
        before: _Level = {}
        for left in range(self._bounds.depth + 1):
            self._deepest = left
            level = self._measure_level(left)
            if level == before:
                break
            before = level

    def _measure_level(self, left: _DepthLeft) -> _Level:
        """Least fixed point over rules and the lists that they stand in, where `left` forks may be
        nested: those that were met last first, as others are made of them, and again where what
        they use has changed."""
        roots = dict.fromkeys((self._grammar.start, *(b.branch for b in self._blocks.values())))
        met: list[_Met] = [(name, None, left) for name in roots]
        self._rules |= {(name, left): NEVER for name in roots}
        self._users = {key: {} for key in met}
        for user in met:  # grows on the way
            known = len(self._users)
            self._update(user)
            met += islice(reversed(self._users), len(self._users) - known)
        pending = dict.fromkeys(met)
        while pending:
            used, _ = pending.popitem()
            if self._update(used):
                pending.update(self._users[used])
        self._user = None
        return {
            (name, block): self._rules[name, left]
            if block is None
            else self._lists[name, block.index, left]
            for name, block, _ in met
        }

    def _update(self, met: _Met) -> bool:
        """Work out a rule, or a rule in the list of a block, once more; whether it has changed."""
        name, block, left = self._user = met
        node = self._grammar.rules[name].node
        if block is None:
            cost, known = min(self._node(node, left), NEVER), self._rules[name, left]
            self._rules[name, left] = cost
            return cost != known
        ways, key = self._list(node, block, left), (name, block.index, left)
        changed = ways != self._lists[key]
        self._lists[key] = ways
        return changed

    def _rule(self, name: str, left: _DepthLeft) -> int:
        cost = self._rules.setdefault((name, left), NEVER)
        self._use((name, None, left))
        return cost

    def _rule_in_list(self, name: str, block: Block, left: _DepthLeft) -> Ways:
        ways = self._lists.setdefault((name, block.index, left), ())
        self._use((name, block, left))
        return ways

    def _use(self, met: _Met) -> None:
        if self._user is not None and met[2] == self._user[2]:
            self._users.setdefault(met, {})[self._user] = None

    def _node(self, node: Node, left: _DepthLeft) -> int:
        if isinstance(node, Tag):
            return self._tags[node.text]
        if isinstance(node, Literal):
            return self._spelling.tokens(node.text.encode())
        if isinstance(node, Field):
            return self._terminals[node.terminal.name] + self._detours.fields.get(node, 0)
        if isinstance(node, Ref):
            return self._rule(node.rule, left)
        if isinstance(node, Seq):
            return sum(self._node(item, left) for item in node.items)
        if isinstance(node, Alt):
            return min(self._node(option, left) for option in node.options)
        if isinstance(node, Repeat):
            turn = self._node(node.node, left)  # looked at even if it may be left out
            return node.low * turn if node.low else 0
        if isinstance(node, JoinNode):
            return self._node(node.node, left)
        return self._construct(node, left)

    def _construct(self, node: MapNode | ForkNode, left: _DepthLeft) -> int:
        """A map or a fork by count; NEVER where the bounds forbid it."""
        fee, limit = _FEE if self._bounds.blocks is not None else 0, self._bounds.branches
        if isinstance(node, ForkNode):
            if node.block.item is not None:
                return 0  # counted with the items
            if left == 0 or (limit is not None and node.block.low > limit):
                return NEVER
            return fee + node.block.low * self.branch(node.block, (), left)
        if left == 0:
            return NEVER
        unopened = _unopened(node.block)
        ways = self._allowed(unopened, self._list(node.node, node.block, left))
        return fee + self._finish(unopened, ways)

    def _list(self, node: Node, block: Block, left: _DepthLeft) -> Ways:
        """The ways of a list, or of a part of one, labels left out."""
        if isinstance(node, Ref):
            if node.rule == block.item:
                return _only(1, self._item(block, left))
            return self._rule_in_list(node.rule, block, left)
        if isinstance(node, Seq):
            parts = (self._list(item, block, left) for item in node.items)
            return reduce(item_ways.then, parts, NO_ITEM)
        if isinstance(node, Alt):
            options = (self._list(option, block, left) for option in node.options)
            return item_ways.best(chain.from_iterable(options))
        if isinstance(node, Repeat):
            turn = self._list(node.node, block, left)  # looked at even if it may be left out
            return item_ways.times(turn, node.low)
        return _only(0, self._node(node, left))

    def _item(self, block: Block, left: _DepthLeft) -> int:
        """An item and its branch, without the label."""
        name = self._label_names[block.index]
        label = 0 if name is None else self._terminals[name]
        item, branch = self._rule(block.item or "", left), self.branch(block, (), left)
        return NEVER if item >= NEVER else item - label + branch


def _only(items: int, tokens: int) -> Ways:
    return ((items, tokens),) if tokens < NEVER else ()


def _open_map(frame: Frame | None) -> MapFrame | None:
    return frame if isinstance(frame, MapFrame) else None


def _listing(frame: Frame | None) -> Block | None:
    """The block whose items are listed where a frame is on top; none within an item."""
    return frame.block if isinstance(frame, MapFrame) and frame.open is None else None


def _unopened(block: Block) -> MapFrame:
    """The list of a block before its first item."""
    return MapFrame(block, Items(), None, TRUNK)
