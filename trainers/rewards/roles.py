"""What a rule is in its block: rewards and penalties name roles, so that they fit every schema."""

from __future__ import annotations

from enum import StrEnum

from nprdsl.grammar.ir import Grammar, JoinNode, MapNode, Ref
from nprdsl.grammar.walk import all_nodes


class RuleRole(StrEnum):
    """What a rule is in its block."""

    LIST = "list"
    ITEM = "item"
    BRANCH = "branch"
    JOIN = "join"
    OTHER = "other"


def roles_of(grammar: Grammar) -> dict[str, RuleRole]:
    """rule -> its role; rules that are used by no block are left out."""
    roles: dict[str, RuleRole] = {}
    for node in all_nodes(grammar.rules):
        match node:
            case MapNode(node=Ref(rule=name)):
                roles.setdefault(name, RuleRole.LIST)
            case JoinNode(node=Ref(rule=name)):
                roles.setdefault(name, RuleRole.JOIN)
    for block in grammar.blocks:
        roles[block.branch] = RuleRole.BRANCH
        if block.item is not None:
            roles[block.item] = RuleRole.ITEM
    return roles
