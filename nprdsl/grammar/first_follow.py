"""First and follow sets of a resolved grammar, over tags or over the symbols of fields.

A set maps what may come first to the kinds of content that may stand before it. `PASS` stands
for "nothing of the kind": the node can be passed without it; `END` for the end of the trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from nprdsl.grammar.ir import (
    Alt,
    Field,
    ForkNode,
    JoinNode,
    Literal,
    MapNode,
    Node,
    Ref,
    Repeat,
    Rule,
    Seq,
    Tag,
)
from nprdsl.grammar.ir import TerminalKind as Kind

BLANK: Final = 1  # content is glue, or nothing
FULL: Final = 2  # content holds more than white space
PASS: Final = "\0pass"
END: Final = "\0end"

First = dict[object, int]
Atom = Callable[[Tag | Literal | Field], First]


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


def by_tag(atom: Tag | Literal | Field) -> First:
    """Keys are the texts of tags; all else is content."""
    if isinstance(atom, Tag):
        return {atom.text: BLANK}
    return {PASS: BLANK if is_blank(atom) else FULL}


def by_symbol(atom: Tag | Literal | Field) -> First:
    """Keys are the nodes themselves; only glue is passed."""
    glue = isinstance(atom, Field) and atom.terminal.kind is Kind.GLUE
    return {PASS if glue else atom: BLANK}


def is_blank(atom: Literal | Field) -> bool:
    """Glue, or a literal of white space."""
    if isinstance(atom, Field):
        return atom.terminal.kind is Kind.GLUE
    return not atom.text.strip()


def then(first: First, after: Mapping[object, int]) -> First:
    """The set of a node with `first` that stands before what has `after`."""
    joined = {key: content for key, content in first.items() if key != PASS}
    passed = first.get(PASS, 0)
    if passed:
        for key, content in after.items():
            blank = content if passed & BLANK else 0
            joined[key] = joined.get(key, 0) | blank | (passed & FULL)
    return joined


def _add(into: First, more: Mapping[object, int]) -> bool:
    changed = False
    for key, content in more.items():
        old = into.get(key, 0)
        if old | content != old:
            into[key] = old | content
            changed = True
    return changed


class Firsts:
    """`of(node)`: what may come first in it; `after[node]`: what may come behind it, anywhere."""

    def __init__(self, rules: Mapping[str, Rule], start: str, atom: Atom) -> None:
        self.atom = atom
        self.rules: dict[str, First] = {name: {} for name in rules}
        changed = True
        while changed:
            changed = False
            for name, rule in rules.items():
                changed |= _add(self.rules[name], self.of(rule.node))
        self.after: dict[Node, First] = {}
        self._follow: dict[str, First] = {name: {} for name in rules}
        self._changed = True
        self._follow.get(start, {})[END] = BLANK
        while self._changed:
            self._changed = False
            for name, rule in rules.items():
                self._visit(rule.node, self._follow[name])

    def of(self, node: Node) -> First:
        match node:
            case Ref():
                # An undefined rule is reported elsewhere: it counts as a tag of its own.
                return self.rules.get(node.rule, {f"\0{node.rule}": BLANK})
            case Seq():
                first: First = {PASS: BLANK}
                for item in node.items:
                    if PASS not in first:
                        break
                    first = then(first, self.of(item))
                return first
            case Alt():
                first = {}
                for option in node.options:
                    _add(first, self.of(option))
                return first
            case Repeat():
                first = dict(self.of(node.node))
                if node.low == 0:
                    _add(first, {PASS: BLANK})
                return first
            case MapNode() | JoinNode():
                return self.of(node.node)
            case ForkNode():
                return self.of(node.branch)
            case _:
                return self.atom(node)

    def _visit(self, node: Node, after: First) -> None:
        known = self.after.setdefault(node, {})
        _add(known, after)
        match node:
            case Ref() if node.rule in self._follow:
                self._changed |= _add(self._follow[node.rule], after)
            case Seq():
                for item in reversed(node.items):
                    self._visit(item, after)
                    after = then(self.of(item), after)
            case Repeat() if node.high == 1:
                self._visit(node.node, after)
            case Repeat() | ForkNode():
                inner = children(node)[0]
                again = then(self.of(inner), after)
                _add(again, after)
                self._visit(inner, again)
            case _:
                for inner in children(node):
                    self._visit(inner, after)
