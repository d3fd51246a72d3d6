"""Whether the next tag decides everything: choices, loops, recursion, ends, and where forks begin.

A grammar that passes is LL(1) over tags: from every point each next tag (or the end) is reached in
one way. Two ways of one choice may lead to the same tag behind it only if one of them is blank and
the other is not: so prose may be optional. What branches, items and lists end with must be a tag,
and a tag must stand before every fork, since a reader sees nothing else of where they begin or end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode, Span
from nprdsl.grammar.first_follow import BLANK, END, PASS, FirstFollow, Symbols, then
from nprdsl.grammar.ir import Alt, Field, ForkNode, Literal, MapNode, Node, Ref, Repeat, Seq, Tag
from nprdsl.grammar.walk import Rules, all_nodes, bodies, children, references, rule_heights


def decisions(rules: Rules, sets: FirstFollow) -> Iterator[Diagnostic]:
    """Every fault of `rules` that leaves something undecided. `sets` are by tag."""
    recursive = dict(_left_recursion(rules, sets))
    yield from recursive.values()
    yield from _endless(rules, recursive)
    for node in all_nodes(rules):
        match node:
            case Alt():
                yield from _choice(node, sets)
            case Repeat():
                yield from _repeat(node, sets)
            case ForkNode() if node.block.item is None and node.block.low != node.block.high:
                yield from _turns(node, node.branch, sets)
            case _:
                pass
    yield from _forks(rules)
    yield from _ends(rules)


# -- choices --------------------------------------------------------------------------------------


def _choice(node: Alt, sets: FirstFollow) -> Iterator[Diagnostic]:
    for a, b in combinations(node.options, 2):
        key = _conflict(sets.first(a), sets.first(b), sets.follow.get(node, {}))
        if key is not None:
            yield _undecided(b.span, key, (a.span, b.span))
            return


def _repeat(node: Repeat, sets: FirstFollow) -> Iterator[Diagnostic]:
    inner = sets.first(node.node)
    if node.high == 1:
        if node.low == 0:
            yield from _optional(node, inner, sets.follow.get(node, {}))
    elif PASS in inner and node.low != node.high:
        yield _empty_loop(node, inner)
    elif node.low != node.high:
        yield from _turns(node, node.node, sets)


def _optional(node: Repeat, inner: Symbols, after: Symbols) -> Iterator[Diagnostic]:
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


def _turns(node: Repeat | ForkNode, turn: Node, sets: FirstFollow) -> Iterator[Diagnostic]:
    """Another turn, or what follows?"""
    after = sets.follow.get(node, {})
    if shared := [key for key in sets.first(turn) if key in after]:
        yield Diagnostic(
            DiagnosticCode.UNDECIDED_CHOICE,
            node.span,
            f"{_tag(shared[0])} may begin another turn here, and may follow the last one too",
            "the next tag must decide: put a tag around the repetition, or behind it",
        )


def _conflict(a: Symbols, b: Symbols, after: Symbols) -> object | None:
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


def _empty_loop(node: Repeat, inner: Symbols) -> Diagnostic:
    blank = inner[PASS] & BLANK
    what = "may be empty" if blank else "may hold no tag"
    return Diagnostic(
        DiagnosticCode.EMPTY_LOOP,
        node.span,
        f"this repeats something that {what}, so the number of turns is undecided",
        "repeat something that always holds a tag"
        + ("" if blank else ", or put the repetition into a terminal"),
    )


def _left_recursion(rules: Rules, sets: FirstFollow) -> Iterator[tuple[str, Diagnostic]]:
    heads = {name: list(_heads(rule.node, sets)) for name, rule in rules.items()}
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


def _heads(node: Node, sets: FirstFollow) -> Iterator[str]:
    """Rules that may begin in `node` before any tag."""
    if isinstance(node, Ref):
        yield node.rule
    for inner in children(node):
        yield from _heads(inner, sets)
        if isinstance(node, Seq) and PASS not in sets.first(inner):
            return


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
    heights = rule_heights(bodies(rules))
    endless = {name for name, height in heights.items() if height > len(rules)}
    needed = {name: [n for n in references(rules[name].node) if n in endless] for name in endless}
    for name in rules:
        if name in endless and name not in recursive and _cycle(name, needed):
            yield Diagnostic(
                DiagnosticCode.ENDLESS_RULE,
                rules[name].span,
                f"`{name}` can never end: every way through it needs another `{name}`",
                "add an alternative without it, or make it optional: `[…]`",
            )


# -- forks and ends -------------------------------------------------------------------------------


def _forks(rules: Rules) -> Iterator[Diagnostic]:
    """Everything but a tag that may stand right before a fork."""
    search = _BeforeForks(rules)
    for rule in rules.values():
        search.visit(rule.node, None)
    for before, fork in search.pairs:
        yield Diagnostic(
            DiagnosticCode.UNDECIDED_END,
            before.span,
            "the branches begin behind this, and it is not a tag that says so",
            "put a tag before the fork; glue belongs into the branch",
            ((fork.span, "this fork must stand behind a tag"),),
        )


class _BeforeForks:
    """Looks for what stands before forks, across rules: a rule that begins with a fork must stand
    behind a tag wherever it is used. `pairs` holds what may stand there and is no tag, with the
    fork."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._entered: set[tuple[str, Node]] = set()
        self.pairs: dict[tuple[Node, ForkNode], None] = {}

    def visit(self, node: Node, before: Node | None) -> None:
        """`before` may stand before `node` and is no tag; None if a tag always does."""
        match node:
            case ForkNode():
                if before is not None:
                    self.pairs[before, node] = None
                self.visit(node.branch, None)
            case Seq():
                for item in node.items:
                    self.visit(item, before)
                    is_construct = isinstance(item, (MapNode, ForkNode))
                    before = None if is_construct else _open_end(item, self._rules)
            case Alt():
                for option in node.options:
                    self.visit(option, node if len(node.options) > 1 else before)
            case Repeat():
                self.visit(node.node, before if node.low == node.high else node)
                if node.high != 1:
                    self.visit(node.node, _open_end(node.node, self._rules))
            case Ref():
                self._enter(node.rule, before)
            case _:
                for inner in children(node):
                    self.visit(inner, before)

    def _enter(self, rule: str, before: Node | None) -> None:
        """Rules are looked at by themselves; here only for what stands before them."""
        if before is not None and rule in self._rules and (rule, before) not in self._entered:
            self._entered.add((rule, before))
            self.visit(self._rules[rule].node, before)


def _ends(rules: Rules) -> Iterator[Diagnostic]:
    """Branches, items and lists must end with a tag, behind which nothing may follow."""
    seen: set[tuple[str, Node]] = set()
    for node in all_nodes(rules):
        if not isinstance(node, (MapNode, ForkNode)):
            continue
        for what, part in _closed_parts(node, rules):
            last = _open_end(part, rules)
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


def _open_end(node: Node, rules: Rules, inside: frozenset[str] = frozenset()) -> Node | None:
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
            ends = (_open_end(option, rules, inside) for option in node.options)
            return next((end for end in ends if end is not None), None)
        case _:
            parts = children(node)
            return _open_end(parts[-1], rules, inside) if parts else node
