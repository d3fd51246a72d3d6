"""Nullability."""

from __future__ import annotations

from nprdsl.ir import Alt, Fork, Join, Map, Node, Repeat, Seq


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly inside `node`; of a reference, none."""
    match node:
        case Seq():
            return node.items
        case Alt():
            return node.options
        case Repeat() | Map() | Join():
            return (node.node,)
        case Fork():
            return (node.branch,)
        case _:
            return ()
