"""What of a grammar is worth computing once before traces of it are written."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hypothesis import strategies as st

from nprdsl.grammar import ir
from nprdsl.grammar.walk import below, bodies, holds_fork, references, rule_heights
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
        return holds_fork(node) or not self.deepening.isdisjoint(references(node))


def shape_of(grammar: ir.Grammar) -> Shape:
    rules = bodies(grammar.rules)
    reached = {name: below(name, rules) for name in rules}
    deepening = frozenset(
        name
        for name, used in reached.items()
        if name in used
        or any(holds_fork(rules[rule]) or rule in reached[rule] for rule in used | {name})
    )
    patterned = (ir.TerminalKind.REGULAR, ir.TerminalKind.TYPED)
    terminals = {
        name: quick_values(terminal, grammar.tags)
        for name, terminal in grammar.terminals.items()
        if terminal.kind in patterned
    }
    return Shape(grammar, tag_pattern(grammar.tags), rule_heights(rules), deepening, terminals)
