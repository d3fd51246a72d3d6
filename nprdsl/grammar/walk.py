"""Walks over the rules of a grammar: what a node holds, which rules it uses, how deep texts nest.

A rule is a tree of nodes that refers to other rules by name, itself included. Everything that goes
through such trees (checks, prompts, exports, writers of traces, admission) does it with these
functions; where rules are given, they are given by name, as bodies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from nprdsl.grammar.ir import Alt, ForkNode, JoinNode, MapNode, Node, Ref, Repeat, Rule, Seq

Rules = Mapping[str, Rule]
Bodies = Mapping[str, Node]


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly inside `node`; of a reference, none."""
    match node:
        case Seq():
            return node.items
        case Alt():
            return node.options
        case Repeat() | MapNode() | JoinNode():
            return (node.node,)
        case ForkNode():
            return (node.branch,)
        case _:
            return ()


def rebuilt(node: Node, inner: Iterable[Node]) -> Node:
    """`node` with `inner` in place of its children; leaves and forks stay as they are."""
    match node:
        case Seq():
            return replace(node, items=tuple(inner))
        case Alt():
            return replace(node, options=tuple(inner))
        case Repeat() | MapNode() | JoinNode():
            (one,) = inner
            return replace(node, node=one)
        case _:
            return node


def nodes(node: Node) -> Iterator[Node]:
    """`node` and all inside it, in the order of the text; rules that it refers to are left out."""
    pending = [node]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(reversed(children(node)))


def all_nodes(rules: Rules) -> Iterator[Node]:
    """All nodes of all rules, rule by rule."""
    for rule in rules.values():
        yield from nodes(rule.node)


def bodies(rules: Rules) -> dict[str, Node]:
    """The body of each rule."""
    return {name: rule.node for name, rule in rules.items()}


def references(node: Node) -> list[str]:
    """The rules that `node` uses itself, each once, in the order of the text."""
    return list(dict.fromkeys(inner.rule for inner in nodes(node) if isinstance(inner, Ref)))


def reachable(names: Iterable[str], rules: Bodies) -> set[str]:
    """`names` and the rules that they use, directly or through others."""
    reached = set(names)
    pending = list(reached)
    while pending:
        name = pending.pop()
        new = set(references(rules[name])) - reached if name in rules else set()
        reached |= new
        pending.extend(new)
    return reached


def below(name: str, rules: Bodies) -> set[str]:
    """The rules that rule `name` uses, directly or through others; itself if it is recursive."""
    return reachable(references(rules[name]), rules)


def holds_fork(node: Node) -> bool:
    """Whether a fork stands in `node`, rules that it uses left out."""
    return any(isinstance(inner, ForkNode) for inner in nodes(node))


def rule_heights(rules: Bodies) -> dict[str, int]:
    """For every rule, how many rules inside one another its shortest text needs, itself included.

    More than `len(rules)` says that it has no finite text.
    """
    heights = dict.fromkeys(rules, len(rules) + 1)
    changed = True
    while changed:
        changed = False
        for name, node in rules.items():
            new = 1 + height(node, heights)
            if new < heights[name]:
                heights[name], changed = new, True
    return heights


def height(node: Node, heights: Mapping[str, int]) -> int:
    """As `rule_heights`, for a node; rules that are not in `heights` count 0."""
    match node:
        case Ref():
            return heights.get(node.rule, 0)
        case Alt():
            return min(height(option, heights) for option in node.options)
        case Repeat() if node.low == 0:
            return 0
        case _:
            return max((height(inner, heights) for inner in children(node)), default=0)
