"""How many items the list of a map asks for: at least, and at most from any place in it.

Labels of one list must differ, so a list that asks for more items than its label has values can
never be finished. The checks at load refuse such a list; the automaton asks where it has to look
ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nprdsl.grammar.ir import Alt, Block, MapNode, Node, Ref, Repeat, Seq, nodes
from nprdsl.grammar.walk import Bodies, references
from nprdsl.regular.words import ENDLESS

_Fold = Callable[[Iterable[int]], int]


def listing_of(block: Block, rules: Bodies) -> MapNode | None:
    """The map that lists the items of a block; None if it has none."""
    body = rules.get(block.rule)
    maps = nodes(body) if body is not None else ()
    return next((n for n in maps if isinstance(n, MapNode) and n.block is block), None)


def least_items(block: Block, rules: Bodies) -> int:
    """The fewest items of a whole list."""
    return fewest(block, rules).whole


def most_items(block: Block, rules: Bodies) -> int:
    """More items than this are never owed to a list, wherever it stands, the one that is being
    written included; ENDLESS where rules that list items hold themselves."""
    return ItemCounts(block, rules, max, 1).whole


def may_list_more(block: Block, rules: Bodies, count: int) -> bool:
    """Whether a list may hold more items than `count`."""
    return ItemCounts(block, rules, max, count + 1).whole > count


def fewest(block: Block, rules: Bodies) -> ItemCounts:
    """The fewest items of a list and of its parts."""
    return ItemCounts(block, rules, min, 0)


class ItemCounts:
    """The items of one list: those of the way with fewest (`fold` is min), or with most (max), each
    repetition taken `turns` times at least, if so many are allowed."""

    def __init__(self, block: Block, rules: Bodies, fold: _Fold, turns: int) -> None:
        self._item, self._fold, self._turns = block.item, fold, turns
        listing = listing_of(block, rules)
        order = _bottom_up(references(listing), rules) if listing is not None else []
        self._counts: dict[str, int] = {}  # of the rules that list items
        changed = True
        while changed:
            changed = False
            for name in order:
                if name not in self._counts and self._lists(rules[name]):
                    self._counts[name], changed = ENDLESS, True
        changed = True
        while changed:
            changed = False
            for name, known in self._counts.items():
                self._counts[name] = self.of(rules[name])
                changed |= self._counts[name] != known
        self.whole = self.of(listing.node) if listing is not None else 0

    def _lists(self, node: Node) -> bool:
        return any(name == self._item or name in self._counts for name in references(node))

    def of(self, node: Node) -> int:
        """The items of a part of the list."""
        match node:
            case Ref():
                return 1 if node.rule == self._item else self._counts.get(node.rule, 0)
            case Seq():
                return min(sum(self.of(item) for item in node.items), ENDLESS)
            case Alt():
                return self._fold(self.of(option) for option in node.options)
            case Repeat():
                turns = max(node.low, self._turns)
                turns = turns if node.high is None else min(turns, node.high)
                return min(turns * self.of(node.node), ENDLESS)
            case _:
                return 0


def _bottom_up(names: Iterable[str], rules: Bodies) -> list[str]:
    """`names` and the rules that they use, each behind those that it uses, as far as it can be."""
    order: dict[str, None] = {}
    seen: set[str] = set()
    pending = [name for name in names if name in rules]
    while pending:
        name = pending[-1]
        used = references(rules[name]) if name not in seen else []
        new = [n for n in used if n in rules and n not in seen]
        seen.add(name)
        pending += new
        if not new:
            order[pending.pop()] = None
    return list(order)
