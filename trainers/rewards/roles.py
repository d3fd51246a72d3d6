"""What a rule is in its block: rewards and penalties name roles, so that they fit every schema."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nprdsl.grammar.ir import (
    Field,
    Grammar,
    JoinNode,
    MapNode,
    Node,
    Ref,
    Tag,
    Terminal,
    TerminalKind,
    nodes,
)
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


@dataclass(frozen=True, slots=True)
class Wrapper:
    """What stands around the text of a branch: its tags, and the glue before them."""

    tokens: int  # where each is one
    characters: int


def wrapper_of(grammar: Grammar) -> Wrapper:
    """That of the branches of a grammar; of several kinds the one with most."""
    found = [_wrapper(grammar.rules[block.branch].node) for block in grammar.blocks]
    return max(found, key=lambda one: one.characters, default=Wrapper(0, 0))


def _wrapper(node: Node) -> Wrapper:
    texts: list[str] = []
    for part in nodes(node):
        match part:
            case Tag():
                texts.append(part.text)
            case Field(terminal=Terminal(kind=TerminalKind.GLUE) as glue) if not texts:
                texts.append(glue.literal)
    return Wrapper(len(texts), sum(map(len, texts)))
