"""Whether every fork stands right behind a tag: nothing else that is written says that it begins.

What stands before a fork is looked for across rules: a rule that begins with a fork must be used
behind a tag wherever it is used, and no choice may be left open there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode
from nprdsl.grammar.first_follow import children
from nprdsl.grammar.ir import Alt, ForkNode, MapNode, Node, Ref, Repeat, Rule, Seq

OpenEnd = Callable[[Node], Node | None]  # what may stand last in a node without being a tag


def announced(rules: Mapping[str, Rule], open_end: OpenEnd) -> Iterator[Diagnostic]:
    """A diagnostic for everything that may stand between a tag and a fork."""
    search = _Search(rules, open_end)
    for rule in rules.values():
        search.visit(rule.node, None)
    for before, fork in search.found:
        yield Diagnostic(
            DiagnosticCode.UNDECIDED_END,
            before.span,
            "the branches begin behind this, and it is not a tag that says so",
            "put a tag before the fork; glue belongs into the branch",
            ((fork.span, "this fork must stand behind a tag"),),
        )


class _Search:
    """`found` pairs each fork with what may stand before it and is no tag."""

    def __init__(self, rules: Mapping[str, Rule], open_end: OpenEnd) -> None:
        self._rules = rules
        self._open_end = open_end
        self._seen: set[tuple[str, Node]] = set()
        self.found: dict[tuple[Node, ForkNode], None] = {}

    def visit(self, node: Node, before: Node | None) -> None:
        """`before` may stand before `node` and is no tag; None if a tag always does."""
        match node:
            case ForkNode():
                if before is not None:
                    self.found[before, node] = None
                self.visit(node.branch, None)
            case Seq():
                for item in node.items:
                    self.visit(item, before)
                    before = None if isinstance(item, (MapNode, ForkNode)) else self._open_end(item)
            case Alt():
                for option in node.options:
                    self.visit(option, node if len(node.options) > 1 else before)
            case Repeat():
                self.visit(node.node, before if node.low == node.high else node)
                if node.high != 1:
                    self.visit(node.node, self._open_end(node.node))
            case Ref():
                self._enter(node, before)
            case _:
                for inner in children(node):
                    self.visit(inner, before)

    def _enter(self, ref: Ref, before: Node | None) -> None:
        """Rules are looked at by themselves; here only for what stands before them."""
        if before is None or ref.rule not in self._rules or (ref.rule, before) in self._seen:
            return
        self._seen.add((ref.rule, before))
        self.visit(self._rules[ref.rule].node, before)
