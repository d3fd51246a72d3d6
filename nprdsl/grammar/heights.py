"""How rules use rules: which a node names, and how deep the shortest text of each must go.

Writers of traces (`nprdsl.prompting.example`, `nprdsl.testing`) end recursion with it.
"""

from __future__ import annotations

from itertools import chain

from nprdsl.grammar.first_follow import children
from nprdsl.grammar.ir import Alt, ForkNode, Grammar, Node, Ref, Repeat


def refs(node: Node) -> list[str]:
    """The rules that a node names, each once, in order; rules named inside these do not count."""
    own = [node.rule] if isinstance(node, Ref) else []
    return list(dict.fromkeys(chain(own, *map(refs, children(node)))))


def holds_fork(node: Node) -> bool:
    """Whether a fork stands in the node itself, rules that it names left out."""
    return isinstance(node, ForkNode) or any(map(holds_fork, children(node)))


def rule_heights(grammar: Grammar) -> dict[str, int]:
    """For every rule, the number of rules inside rules that its shortest text needs."""
    heights = dict.fromkeys(grammar.rules, len(grammar.rules) + 1)
    for _ in grammar.rules:
        for name, rule in grammar.rules.items():
            heights[name] = min(heights[name], 1 + height(rule.node, heights))
    return heights


def height(node: Node, heights: dict[str, int]) -> int:
    """As `rule_heights`, for a node."""
    match node:
        case Ref():
            return heights[node.rule]
        case Alt():
            return min(height(option, heights) for option in node.options)
        case Repeat() if node.low == 0:
            return 0
        case _:
            return max((height(child, heights) for child in children(node)), default=0)
