"""Whether the next tag decides everything: choices, loops, recursion, the ends of branches and
lists.

A grammar that passes is LL(1) over tags: from every point a next tag (or the end) is reached in one
way. Two ways of one choice may lead to the same tag behind it only if one of them is blank and the
other is not: so prose may be optional.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from nprdsl.grammar.announced import announced
from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode, Span
from nprdsl.grammar.first_follow import BLANK, END, PASS, First, Firsts, children, then
from nprdsl.grammar.ir import (
    Alt,
    Field,
    ForkNode,
    Literal,
    MapNode,
    Node,
    Ref,
    Repeat,
    Rule,
    Seq,
    Tag,
)

Rules = Mapping[str, Rule]


def decisions(rules: Rules, firsts: Firsts) -> Iterator[Diagnostic]:
    """Every fault of `rules` that leaves something undecided. `firsts` is by tag."""
    recursive = dict(_left_recursion(rules, firsts))
    yield from recursive.values()
    yield from _endless(rules, recursive)
    for rule in rules.values():
        for node in nodes(rule.node):
            match node:
                case Alt():
                    yield from _choice(node, firsts)
                case Repeat():
                    yield from _repeat(node, firsts)
                case ForkNode() if node.block.item is None and node.block.low != node.block.high:
                    yield from _turns(node, node.branch, firsts)
                case _:
                    pass
    yield from _ends(rules)


def nodes(node: Node) -> Iterator[Node]:
    """`node` and all inside it, in order; rules that it refers to are not entered."""
    yield node
    for inner in children(node):
        yield from nodes(inner)


# -- choices --------------------------------------------------------------------------------------


def _choice(node: Alt, firsts: Firsts) -> Iterator[Diagnostic]:
    for a, b in combinations(node.options, 2):
        key = _conflict(firsts.of(a), firsts.of(b), firsts.after.get(node, {}))
        if key is not None:
            yield _undecided(b.span, key, (a.span, b.span))
            return


def _repeat(node: Repeat, firsts: Firsts) -> Iterator[Diagnostic]:
    inner = firsts.of(node.node)
    if node.high == 1:
        if node.low == 0:
            yield from _optional(node, inner, firsts.after.get(node, {}))
    elif PASS in inner and node.low != node.high:
        yield _empty_loop(node, inner)
    elif node.low != node.high:
        yield from _turns(node, node.node, firsts)


def _optional(node: Repeat, inner: First, after: First) -> Iterator[Diagnostic]:
    key = _conflict(inner, {PASS: BLANK}, after)
    if key is None:
        return
    if inner.get(PASS) == BLANK:
        yield Diagnostic(
            DiagnosticCode.UNDECIDED_CHOICE,
            node.span,
            f"{_tag(key)} follows whether this is here or not",
            "glue may be missing in a trace anyway: remove the `?` or the brackets",
        )
    else:
        yield _undecided(node.span, key, ())


def _turns(node: Repeat | ForkNode, turn: Node, firsts: Firsts) -> Iterator[Diagnostic]:
    """Another turn, or what follows?"""
    after = firsts.after.get(node, {})
    if shared := [key for key in firsts.of(turn) if key in after]:
        yield Diagnostic(
            DiagnosticCode.UNDECIDED_CHOICE,
            node.span,
            f"{_tag(shared[0])} may begin another turn here, and may follow the last one too",
            "the next tag must decide: put a tag around the repetition, or behind it",
        )


def _conflict(a: First, b: First, after: First) -> object | None:
    """A tag (or the end) that the ways of both `a` and `b` reach, if nothing tells them apart."""
    whole_a, whole_b = then(a, after), then(b, after)
    for key in whole_a:
        inside = key in a or key in b
        if key in whole_b and (inside or whole_a[key] & whole_b[key]):
            return key
    return None


def _undecided(span: Span, key: object, options: tuple[Span, ...]) -> Diagnostic:
    words = ("one way", "another way")
    related = tuple((s, w) for s, w in zip(options, words, strict=False))
    return Diagnostic(
        DiagnosticCode.UNDECIDED_CHOICE,
        span,
        f"two ways lead from here to {_tag(key)}",
        "the next tag must decide: begin each way with a tag of its own, or write alternatives "
        "without tags as one terminal",
        related,
    )


def _tag(key: object) -> str:
    return "the end" if key == END else f"`{key}`".replace("\0", "")


# -- loops and recursion --------------------------------------------------------------------------


def _empty_loop(node: Repeat, inner: First) -> Diagnostic:
    blank = inner[PASS] & BLANK
    what = "may be empty" if blank else "may hold no tag"
    return Diagnostic(
        DiagnosticCode.EMPTY_LOOP,
        node.span,
        f"this repeats something that {what}, so the number of turns is undecided",
        "repeat something that always holds a tag"
        + ("" if blank else ", or put the repetition into a terminal"),
    )


def _left_recursion(rules: Rules, firsts: Firsts) -> Iterator[tuple[str, Diagnostic]]:
    heads = {name: list(_heads(rule.node, firsts)) for name, rule in rules.items()}
    seen: set[str] = set()
    for name, rule in rules.items():
        cycle = _cycle(name, heads)
        if cycle and not seen & set(cycle):
            seen |= set(cycle)
            way = " -> ".join(f"`{n}`" for n in cycle)
            yield (
                name,
                Diagnostic(
                    DiagnosticCode.LEFT_RECURSION,
                    rule.span,
                    f"`{name}` comes back to itself before any tag: {way}",
                    f"begin `{name}` with a tag, or write the repetition with `+` or `*`",
                ),
            )


def _heads(node: Node, firsts: Firsts) -> Iterator[str]:
    """Rules that may begin in `node` before any tag."""
    if isinstance(node, Ref):
        yield node.rule
    elif isinstance(node, Seq):
        for item in node.items:
            yield from _heads(item, firsts)
            if PASS not in firsts.of(item):
                return
    else:
        for inner in children(node):
            yield from _heads(inner, firsts)


def _cycle(start: str, edges: Mapping[str, list[str]]) -> list[str]:
    """A shortest way from `start` back to itself, or an empty list."""
    paths = [[start]]
    seen: set[str] = set()
    for path in paths:  # grows while we read it
        for name in edges.get(path[-1], ()):
            if name == start:
                return [*path, name]
            if name not in seen:
                seen.add(name)
                paths.append([*path, name])
    return []


def _endless(rules: Rules, recursive: Mapping[str, Diagnostic]) -> Iterator[Diagnostic]:
    finite: set[str] = set()
    while more := {
        n for n, r in rules.items() if n not in finite and _ends_in(r.node, finite, rules)
    }:
        finite |= more
    endless = {
        name: [n.rule for n in nodes(rule.node) if isinstance(n, Ref) and n.rule not in finite]
        for name, rule in rules.items()
        if name not in finite
    }
    for name in endless:
        if name not in recursive and _cycle(name, endless):
            yield Diagnostic(
                DiagnosticCode.ENDLESS_RULE,
                rules[name].span,
                f"`{name}` can never end: every way through it needs another `{name}`",
                "add an alternative without it, or make it optional: `[…]`",
            )


def _ends_in(node: Node, finite: set[str], rules: Rules) -> bool:
    if isinstance(node, Ref):
        return node.rule in finite or node.rule not in rules
    if isinstance(node, Alt):
        return any(_ends_in(o, finite, rules) for o in node.options)
    if isinstance(node, Repeat) and node.low == 0:
        return True
    return all(_ends_in(i, finite, rules) for i in children(node))


# -- ends -----------------------------------------------------------------------------------------


def _ends(rules: Rules) -> Iterator[Diagnostic]:
    """Branches, items and lists must end with a tag, behind which nothing may follow; forks stand
    behind a tag."""
    yield from announced(rules, lambda node: _open_end(node, rules, frozenset()))
    seen: set[tuple[str, Node]] = set()
    for rule in rules.values():
        for node in nodes(rule.node):
            if not isinstance(node, (MapNode, ForkNode)):
                continue
            for what, part in _closed_parts(node, rules):
                last = _open_end(part, rules, frozenset())
                if last is not None and (what, last) not in seen:
                    seen.add((what, last))
                    yield _undecided_end(what, last, node)


def _closed_parts(node: MapNode | ForkNode, rules: Rules) -> Iterator[tuple[str, Node]]:
    if isinstance(node, ForkNode):
        yield "a branch", node.branch
        return
    yield "the list of a map", node.node
    if node.block.item is not None and node.block.item in rules:
        yield "an item", rules[node.block.item].node


def _undecided_end(what: str, last: Node, use: MapNode | ForkNode) -> Diagnostic:
    return Diagnostic(
        DiagnosticCode.UNDECIDED_END,
        last.span,
        f"{what} may end here, and this is not a tag that ends it always",
        "close it with a tag; glue belongs to the element that follows",
        ((use.span, f"{what} of this block must end with a tag"),),
    )


def _open_end(node: Node, rules: Rules, inside: frozenset[str]) -> Node | None:
    """The last part of `node` if it is no tag, or more may follow it; None if all is well."""
    match node:
        case Tag():
            return None
        case Literal() | Field():
            return node
        case Ref():
            if node.rule in inside or node.rule not in rules:
                return None
            return _open_end(rules[node.rule].node, rules, inside | {node.rule})
        case Repeat() if node.low != node.high:
            return node
        case Alt():
            ends = (_open_end(o, rules, inside) for o in node.options)
            return next((e for e in ends if e is not None), None)
        case _:
            parts = children(node)
            return _open_end(parts[-1], rules, inside) if parts else node
