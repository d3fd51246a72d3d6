"""The tags that a node of a grammar can begin with, fields before them left out.

Written apart from `nprdsl.grammar.first_follow`: the reference reading must be independent of what
it judges.
"""

from __future__ import annotations

from nprdsl.grammar import ir


def first_tags(grammar: ir.Grammar, node: ir.Node) -> frozenset[str]:
    """The tags that can come first in `node`, past glue and fields."""
    tags, _ = _first(grammar, node, frozenset())
    return tags


def _first(
    grammar: ir.Grammar, node: ir.Node, inside: frozenset[str]
) -> tuple[frozenset[str], bool]:
    """First tags, and whether the node can stand without any tag."""
    none: frozenset[str] = frozenset()
    match node:
        case ir.Tag():
            return frozenset({node.text}), False
        case ir.Literal() | ir.Field():
            return none, True
        case ir.Ref():
            if node.rule in inside:
                return none, False
            return _first(grammar, grammar.rules[node.rule].node, inside | {node.rule})
        case ir.Seq():
            tags = none
            for item in node.items:
                more, tagless = _first(grammar, item, inside)
                tags |= more
                if not tagless:
                    return tags, False
            return tags, True
        case ir.Alt():
            firsts = [_first(grammar, option, inside) for option in node.options]
            return none.union(*(tags for tags, _ in firsts)), any(empty for _, empty in firsts)
        case ir.Repeat():
            tags, tagless = _first(grammar, node.node, inside)
            return tags, tagless or node.low == 0
        case ir.ForkNode():
            return _first(grammar, node.branch, inside)
        case ir.MapNode() | ir.JoinNode():
            return _first(grammar, node.node, inside)
