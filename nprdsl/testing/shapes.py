"""What of a grammar is worth computing once before traces of it are written."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hypothesis import strategies as st

from nprdsl.grammar import ir
from nprdsl.grammar.heights import holds_fork, refs, rule_heights
from nprdsl.testing.contents import quick_values
from nprdsl.testing.reference import tag_pattern


@dataclass(frozen=True, eq=False, slots=True)
class Shape:
    """What of a grammar is worth computing once. `heights` counts rules to the shortest end."""

    grammar: ir.Grammar
    tags: re.Pattern[str]
    heights: dict[str, int]
    deepening: frozenset[str]  # rules that can reach a fork or themselves
    values: dict[str, st.SearchStrategy[str]]

    def deepens(self, node: ir.Node) -> bool:
        """Whether the node can open a fork, or a rule that can hold itself."""
        return holds_fork(node) or not self.deepening.isdisjoint(refs(node))


def shape_of(grammar: ir.Grammar) -> Shape:
    reached = {name: _rules_below(grammar, name) for name in grammar.rules}
    deepening = frozenset(
        name
        for name, below in reached.items()
        if name in below
        or any(
            holds_fork(grammar.rules[rule].node) or rule in reached[rule] for rule in below | {name}
        )
    )
    patterned = (ir.TerminalKind.REGULAR, ir.TerminalKind.TYPED)
    terminals = {
        name: quick_values(terminal, grammar.tags)
        for name, terminal in grammar.terminals.items()
        if terminal.kind in patterned
    }
    return Shape(grammar, tag_pattern(grammar.tags), rule_heights(grammar), deepening, terminals)


def _rules_below(grammar: ir.Grammar, name: str) -> set[str]:
    seen: set[str] = set()
    todo = set(refs(grammar.rules[name].node))
    while todo:
        rule = todo.pop()
        if rule not in seen:
            seen.add(rule)
            todo |= set(refs(grammar.rules[rule].node))
    return seen
