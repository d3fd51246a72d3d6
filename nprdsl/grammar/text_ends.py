"""Whether every free text ends where a tag (or the end) begins, across the borders of rules too.

Free text has no end of its own: the next tag closes it. Only a text whose value is bound,
repeated from the item in its branch, has a known length.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TypeGuard

from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode
from nprdsl.grammar.first_follow import FirstFollow, is_blank
from nprdsl.grammar.ir import Field, ForkNode, Literal, Node, Ref, Seq, Tag, TerminalKind
from nprdsl.grammar.walk import Rules, all_nodes, nodes


def free_texts(rules: Rules, sets: FirstFollow) -> Iterator[Diagnostic]:
    """Every free text that something other than a tag may follow. `sets` are by leaf."""
    yield from _beside_glue(rules)
    bound = set(_bound(rules))
    for node in all_nodes(rules):
        if not _is_text(node) or node in bound:
            continue
        for follower in sets.follow.get(node, {}):
            if _is_text(follower):
                yield _next_to(node, follower)
                break
            if isinstance(follower, (Literal, Field)):
                yield _not_closed(node, follower)
                break


def _beside_glue(rules: Rules) -> Iterator[Diagnostic]:
    """Glue beside a text that a branch repeats: nothing shows which blanks belong to the text."""
    blocks = [node.block for node in all_nodes(rules) if isinstance(node, ForkNode)]
    for block in blocks:
        if block.item is None or block.item not in rules:
            continue
        for node in nodes(rules[block.item].node):
            for pair in pairwise(node.items) if isinstance(node, Seq) else ():
                texts = [n for n in pair if _is_text(n)]
                glue = [n for n in pair if isinstance(n, Field) and is_blank(n)]
                if texts and glue and texts[0].terminal.name in block.bound:
                    yield _glued(texts[0], glue[0])


def _glued(text: Field, glue: Field) -> Diagnostic:
    return Diagnostic(
        DiagnosticCode.TEXT_NOT_CLOSED,
        text.span,
        f"`{text.terminal.name}`, which a branch repeats, stands beside glue: nothing shows which "
        "blanks belong to the text",
        "leave the glue out, or put a tag between them",
        ((glue.span, "this glue"),),
    )


def _is_text(node: object) -> TypeGuard[Field]:
    return isinstance(node, Field) and node.terminal.kind is TerminalKind.TEXT


def _next_to(text: Field, follower: Field) -> Diagnostic:
    return Diagnostic(
        DiagnosticCode.TEXT_NEXT_TO_TEXT,
        text.span,
        f"free text `{text.terminal.name}` may stand next to free text `{follower.terminal.name}`",
        "put a tag between them: nothing else shows where the first one ends",
        ((follower.span, "this may follow it"),),
    )


def _not_closed(text: Field, follower: Literal | Field) -> Diagnostic:
    what = f"`{follower.text}`" if isinstance(follower, Literal) else f"`{follower.terminal.name}`"
    return Diagnostic(
        DiagnosticCode.TEXT_NOT_CLOSED,
        text.span,
        f"free text `{text.terminal.name}` may be followed by {what}, which is not a tag",
        "close it with a tag; free text ends at a tag or at the end of the trace only",
        ((follower.span, "this may follow it"),),
    )


def _bound(rules: Rules) -> Iterator[Field]:
    """The fields of branches in which a bound terminal repeats the item's value."""
    for node in all_nodes(rules):
        if isinstance(node, ForkNode):
            pending = set(node.block.bound)
            for field in _leading(node.branch, rules, frozenset()):
                if field.terminal.name in pending:
                    pending.discard(field.terminal.name)
                    yield field


def _leading(node: Node, rules: Rules, inside: frozenset[str]) -> Iterator[Field]:
    """The fields that always stand at the beginning of `node`."""
    match node:
        case Field():
            yield node
        case Ref() if node.rule in rules and node.rule not in inside:
            yield from _leading(rules[node.rule].node, rules, inside | {node.rule})
        case Seq():
            for item in node.items:
                yield from _leading(item, rules, inside)
                if not isinstance(item, (Tag, Literal, Field, Ref, Seq)):
                    return
        case _:
            pass
