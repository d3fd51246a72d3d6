"""FIRST and FOLLOW sets: what may begin a node of a grammar, and what may come behind it.

They are the sets of LL(1) parsing, over any alphabet: a function says what each leaf of a rule
contributes, so that the same sets serve the checks of tags, of free text, and the exports. A set
maps each symbol to the kinds of content that may stand before it: `BLANK`, `FULL`, or both. `PASS`
is the empty word of theory: the node may hold no symbol at all. `END` is the end of the trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from nprdsl.grammar.ir import Field, ForkNode, Literal, Node, Ref, Repeat, Seq, Tag
from nprdsl.grammar.ir import TerminalKind as Kind
from nprdsl.grammar.walk import Bodies, children

BLANK: Final = 1  # content is glue, or nothing
FULL: Final = 2  # content holds more than white space
PASS: Final = "\0"
END: Final = "\0\0"

Symbols = dict[object, int]
LeafNode = Tag | Literal | Field


def by_tag(leaf: LeafNode) -> Symbols:
    """Symbols are the texts of tags; all else is content."""
    if isinstance(leaf, Tag):
        return {leaf.text: BLANK}
    return {PASS: BLANK if is_blank(leaf) else FULL}


def by_leaf(leaf: LeafNode) -> Symbols:
    """Symbols are the leaves themselves; only glue is passed."""
    glue = isinstance(leaf, Field) and leaf.terminal.kind is Kind.GLUE
    return {PASS if glue else leaf: BLANK}


def is_blank(leaf: Literal | Field) -> bool:
    """Glue, or a literal of white space."""
    if isinstance(leaf, Field):
        return leaf.terminal.kind is Kind.GLUE
    return not leaf.text.strip()


def undefined(rule: str) -> str:
    """The symbol that stands for a rule without a body."""
    return f"\0{rule}"


def then(first: Symbols, after: Mapping[object, int]) -> Symbols:
    """The set of a node with `first` that stands before what has `after`."""
    joined = {symbol: content for symbol, content in first.items() if symbol != PASS}
    passed = first.get(PASS, 0)
    if passed:
        for symbol, content in after.items():
            blank = content if passed & BLANK else 0
            joined[symbol] = joined.get(symbol, 0) | blank | (passed & FULL)
    return joined


def _add(into: Symbols, more: Mapping[object, int]) -> bool:
    changed = False
    for symbol, content in more.items():
        old = into.get(symbol, 0)
        if old | content != old:
            into[symbol] = old | content
            changed = True
    return changed


class FirstFollow:
    """The sets of `rules`, of which `start` is followed by the end.

    `follow[node]` is what may come behind a node, wherever its rule is used.
    """

    def __init__(self, rules: Bodies, start: str, leaf: Callable[[LeafNode], Symbols]) -> None:
        self._leaf = leaf
        self._firsts: dict[str, Symbols] = {name: {} for name in rules}
        changed = True
        while changed:
            changed = False
            for name, node in rules.items():
                changed |= _add(self._firsts[name], self.first(node))
        self.follow: dict[Node, Symbols] = {}
        self._after_rule: dict[str, Symbols] = {name: {} for name in rules}
        self._changed = True
        self._after_rule.get(start, {})[END] = BLANK
        while self._changed:
            self._changed = False
            for name, node in rules.items():
                self._visit(node, self._after_rule[name])

    def first(self, node: Node) -> Symbols:
        """What may come first in `node`; a rule without a body is a symbol of its own."""
        match node:
            case Ref():
                return self._firsts.get(node.rule, {undefined(node.rule): BLANK})
            case Seq():
                first: Symbols = {PASS: BLANK}
                for item in node.items:
                    if PASS not in first:
                        break
                    first = then(first, self.first(item))
                return first
            case Tag() | Literal() | Field():
                return self._leaf(node)
            case _:
                first = {}
                for inner in children(node):
                    _add(first, self.first(inner))
                if isinstance(node, Repeat) and node.low == 0:
                    _add(first, {PASS: BLANK})
                return first

    def _visit(self, node: Node, after: Symbols) -> None:
        _add(self.follow.setdefault(node, {}), after)
        match node:
            case Ref() if node.rule in self._after_rule:
                self._changed |= _add(self._after_rule[node.rule], after)
            case Seq():
                for item in reversed(node.items):
                    self._visit(item, after)
                    after = then(self.first(item), after)
            case Repeat(node=inner, high=1):
                self._visit(inner, after)
            case Repeat(node=inner) | ForkNode(branch=inner):
                again = then(self.first(inner), after)
                _add(again, after)
                self._visit(inner, again)
            case _:
                for inner in children(node):
                    self._visit(inner, after)
