"""Whether every free text ends where a tag (or the end) begins, across the borders of rules too.

Free text has no end of its own: the next tag closes it. Only a text whose value is bound,
repeated from the item in its branch, has a known length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TypeGuard

from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode
from nprdsl.grammar.first_follow import Firsts, is_blank
from nprdsl.grammar.ir import Field, ForkNode, Literal, Node, Ref, Rule, Seq, Tag, TerminalKind
from nprdsl.grammar.tag_decisions import nodes


def free_texts(rules: Mapping[str, Rule], firsts: Firsts) -> Iterator[Diagnostic]:
    """Every free text that something other than a tag may follow. `firsts` is by symbol."""
    yield from _beside_glue(rules)
    bound = set(_bound(rules))
    for rule in rules.values():
        for node in nodes(rule.node):
            if not is_text(node) or node in bound:
                continue
            for follower in firsts.after.get(node, {}):
                if is_text(follower):
                    yield _next_to(node, follower)
                    break
                if isinstance(follower, (Literal, Field)):
                    yield _not_closed(node, follower)
                    break


def _beside_glue(rules: Mapping[str, Rule]) -> Iterator[Diagnostic]:
    """Glue beside a text that a branch repeats: nothing shows which blanks belong to the text."""
    blocks = [n.block for r in rules.values() for n in nodes(r.node) if isinstance(n, ForkNode)]
    for block in blocks:
        if block.item is None or block.item not in rules:
            continue
        for node in nodes(rules[block.item].node):
            for pair in pairwise(node.items) if isinstance(node, Seq) else ():
                texts = [n for n in pair if is_text(n)]
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


def is_text(node: object) -> TypeGuard[Field]:
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


def _bound(rules: Mapping[str, Rule]) -> Iterator[Field]:
    """The places in branches where a bound terminal repeats the item's value."""
    for rule in rules.values():
        for node in nodes(rule.node):
            if isinstance(node, ForkNode) and node.block.bound:
                pending = set(node.block.bound)
                for place in _leading(node.branch, rules, frozenset()):
                    if place.terminal.name in pending:
                        pending.discard(place.terminal.name)
                        yield place


def _leading(node: Node, rules: Mapping[str, Rule], inside: frozenset[str]) -> Iterator[Field]:
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
