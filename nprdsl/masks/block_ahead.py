"""Which tags lead to a block, for models that would rather end a trace than fork.

A model that was not trained on a format is asked to reason in parallel, and small ones answer in
prose where the schema lets them. A state of the tag machine goes in; out come the tags behind which
a block must follow, where others have none.
"""

from __future__ import annotations

from typing import Final
from weakref import WeakKeyDictionary

from nprdsl.grammar.ir import Alt, ForkNode, Grammar, JoinNode, MapNode, Node, Ref, Repeat, Seq
from nprdsl.structure.stack import Cell, Repeating
from nprdsl.structure.tag_machine import TagState

NO_TAGS: Final[frozenset[str]] = frozenset()


class BlockAhead:
    """The tags of one grammar that lead to a block."""

    def __init__(self, grammar: Grammar) -> None:
        self._known: WeakKeyDictionary[TagState, frozenset[str]] = WeakKeyDictionary()
        self._rules: dict[str, bool] = {}  # greatest fixed point: no trace is without an end
        found = dict.fromkeys(grammar.rules, True)
        while found != self._rules:
            self._rules = found
            found = {name: self._has_block(rule.node) for name, rule in grammar.rules.items()}

    def tags(self, state: TagState) -> frozenset[str]:
        """The tags that may come next behind which this branch must have a block; none where that
        is so of all."""
        known = self._known.get(state)
        if known is None:
            arcs = state.arcs
            leading = frozenset(tag for tag, arc in arcs.items() if self._on_stack(arc.cell))
            known = self._known[state] = leading if len(leading) < len(arcs) else NO_TAGS
        return known

    def _on_stack(self, cell: Cell | None) -> bool:
        while cell is not None:
            entry = cell.entry
            if isinstance(entry, Repeating):
                if entry.count < entry.node.low and self._has_block(entry.node.node):
                    return True
            elif isinstance(entry, Node) and self._has_block(entry):
                return True
            cell = cell.below
        return False

    def _has_block(self, node: Node) -> bool:
        """Whether all that a node can be holds a block."""
        match node:
            case MapNode() | ForkNode():
                return True
            case JoinNode():
                return self._has_block(node.node)
            case Seq():
                return any(self._has_block(item) for item in node.items)
            case Alt():
                return all(self._has_block(option) for option in node.options)
            case Repeat():
                return node.low > 0 and self._has_block(node.node)
            case Ref():
                return self._rules[node.rule]
            case _:
                return False
