"""A legal trace that is to be given a fault: its places, and the edits made there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from nprdsl.grammar import ir
from nprdsl.structure.violations import ViolationCode as Code
from nprdsl.testing.reference import Tree, items_of


class MutationKind(StrEnum):
    DELETE_TAG = "delete-tag"
    DUPLICATE_TAG = "duplicate-tag"
    SWAP_TAGS = "swap-tags"
    DELETE_BRANCH = "delete-branch"
    ADD_BRANCH = "add-branch"
    DELETE_ITEM = "delete-item"
    RELABEL_BRANCH = "relabel-branch"
    DUPLICATE_LABEL = "duplicate-label"
    STRAY_TEXT = "stray-text"
    BLANK_TEXT = "blank-text"
    DROP_ELEMENT = "drop-element"
    TRUNCATE = "truncate"
    ONE_TOO_MANY = "one-too-many"
    BREAK_VALUE = "break-value"
    TOO_DEEP = "too-deep"


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace `text[start:end]`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """Edits that should leave the language. Codes None: to be told from where reading stops."""

    edits: tuple[Edit, ...]
    codes: frozenset[Code] | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """A legal trace that is to be given a fault."""

    grammar: ir.Grammar
    text: str
    tree: Tree
    max_depth: int | None = None

    def tags(self) -> list[Tree]:
        return [leaf for leaf in self.tree.leaves() if isinstance(leaf.node, ir.Tag)]

    def fields(self, *kinds: ir.TerminalKind) -> list[Tree]:
        return [leaf for leaf in self.tree.leaves() if is_field(leaf, *kinds)]

    def refs(self) -> list[Tree]:
        return [tree for tree in self.tree.walk() if isinstance(tree.node, ir.Ref)]

    def repeats(self) -> list[Tree]:
        return [tree for tree in self.tree.walk() if isinstance(tree.node, ir.Repeat)]

    def spelled(self, tree: Tree) -> str:
        return self.text[tree.start : tree.end]

    def forks(self) -> Iterator[tuple[ir.Block, list[Tree], list[Tree]]]:
        """Every fork with its block, the items listed for it and its branches."""
        for tree in self.tree.walk():
            maps = {
                m.node.block.index: m
                for m in _own(tree, ir.MapNode)
                if isinstance(m.node, ir.MapNode)
            }
            for fork in _own(tree, ir.ForkNode):
                assert isinstance(fork.node, ir.ForkNode)
                block = fork.node.block
                listed = maps.get(block.index)
                items = items_of(block, listed) if listed is not None else []
                yield block, items, list(fork.children)


def _own(tree: Tree, kind: type[ir.MapNode] | type[ir.ForkNode]) -> list[Tree]:
    """Maps or forks among the children of a sequence."""
    if not isinstance(tree.node, ir.Seq):
        return []
    return [child for child in tree.children if isinstance(child.node, kind)]


def is_field(leaf: Tree, *kinds: ir.TerminalKind) -> bool:
    return isinstance(leaf.node, ir.Field) and leaf.node.terminal.kind in kinds


def apply(text: str, edits: Iterable[Edit]) -> str:
    """`text` with all edits made; their places are places in the original."""
    for edit in sorted(edits, key=lambda e: e.start, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text
