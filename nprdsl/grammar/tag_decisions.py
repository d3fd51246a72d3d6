"""Whether the next tag decides everything: choices, loops, recursion, ends, and where forks begin.

A grammar that passes is LL(1) over tags: from every point each next tag (or the end) is reached in
one way. Two ways of one choice may lead to the same tag behind it only if one of them is blank and
the other is not: so prose may be optional. What branches, items and lists end with must be a tag,
and a tag must stand before every fork, since a reader sees nothing else of where they begin or end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Final

from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode, Span
from nprdsl.grammar.first_follow import (
    EMPTY,
    EMPTY_WORD,
    Edge,
    FirstFollow,
    Symbols,
    by_tag,
    is_blank,
    is_value_of_blanks,
)
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
    children,
    nodes,
)
from nprdsl.grammar.tag_shapes import tag_names, way_to_tag
from nprdsl.grammar.walk import (
    Rules,
    Uses,
    all_nodes,
    bodies,
    circular,
    references,
    rule_heights,
    written_texts,
)

_LINE_AS_TAG: Final = 'a line end is a tag by a terminal named so: `TAG_NL: "\\n"`'
_SHOWN: Final = 8  # rules of a circle that a message names


def decisions(rules: Rules, sets: FirstFollow) -> Iterator[Diagnostic]:
    """Every fault of `rules` that leaves something undecided. `sets` are by tag."""
    recursive = dict(_left_recursion(rules, sets))
    yield from recursive.values()
    yield from _endless(rules, recursive, sets.uses)
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
    ends = _OpenEnds(rules, sets.uses)
    yield from _forks(rules, ends, sets.uses)
    yield from _ends(rules, ends)


def may_end_instead(rules: Rules, start: str, tag: str) -> bool:
    """Whether there is a place where `tag` may come next, and the trace may end as well."""
    trees = bodies(rules)
    sets = FirstFollow(trees, start, by_tag)
    behind = [sets.after(node) for node in all_nodes(rules) if isinstance(node, Tag)]
    at_start = sets.first(trees[start]).then(sets.after(trees[start]))
    both = sets.bits(lambda symbol: symbol in (tag, Edge.END))
    return any(both & following.any == both for following in (at_start, *behind))


# -- choices --------------------------------------------------------------------------------------


def _choice(node: Alt, sets: FirstFollow) -> Iterator[Diagnostic]:
    after, before = sets.after(node), EMPTY
    for option in node.options:
        first = sets.first(option)
        if _conflict(before, first, after):
            other = next(o for o in node.options if _conflict(sets.first(o), first, after))
            key = _named(sets, _conflict(sets.first(other), first, after))
            yield _undecided(option.span, key, (other, option))
            return
        before |= first


def _repeat(node: Repeat, sets: FirstFollow) -> Iterator[Diagnostic]:
    inner = sets.first(node.node)
    if node.high == 1:
        if node.low == 0:
            yield from _optional(node, inner, sets)
    elif inner.passes and node.low != node.high:
        yield _empty_loop(node, inner)
    elif node.low != node.high:
        yield from _turns(node, node.node, sets)


def _optional(node: Repeat, inner: Symbols, sets: FirstFollow) -> Iterator[Diagnostic]:
    shared = _conflict(inner, EMPTY_WORD, sets.after(node))
    if not shared:
        return
    key = _named(sets, shared)
    if inner.passes and not inner.passes_full:
        yield Diagnostic(
            DiagnosticCode.UNDECIDED_CHOICE,
            node.span,
            f"{key} follows whether this is here or not",
            "glue may be missing in a trace anyway: remove the `?` or the brackets",
        )
    else:
        yield _undecided(node.span, key, (node,))


def _turns(node: Repeat | ForkNode, turn: Node, sets: FirstFollow) -> Iterator[Diagnostic]:
    """Another turn, or what follows?"""
    if shared := sets.first(turn).any & sets.after(node).any:
        yield Diagnostic(
            DiagnosticCode.UNDECIDED_CHOICE,
            node.span,
            f"{_named(sets, shared)} may begin another turn here, and may follow the last one too",
            "the next tag must decide: put a tag around the repetition, or behind it",
        )


def _conflict(a: Symbols, b: Symbols, after: Symbols) -> int:
    """The tags (or the end) that the ways of both `a` and `b` reach, if nothing tells them apart:
    one that stands in a way itself, or that both reach behind like content."""
    whole_a, whole_b = a.then(after), b.then(after)
    inside = a.any | b.any
    alike = (whole_a.blank & whole_b.blank) | (whole_a.full & whole_b.full)
    return (whole_a.any & whole_b.any & inside) | alike


def _named(sets: FirstFollow, shared: int) -> str:
    symbol = next(sets.named(shared))
    return str(symbol) if symbol is Edge.END else f"`{symbol}`"


def _undecided(span: Span, key: str, options: tuple[Node, ...]) -> Diagnostic:
    words = ("one way", "another way")
    related = tuple((o.span, w) for o, w in zip(options, words, strict=False))
    leaves = (leaf for option in options for leaf in nodes(option) if isinstance(leaf, Field))
    for leaf in leaves:
        if is_value_of_blanks(leaf):
            name = leaf.terminal.name
            return Diagnostic(
                DiagnosticCode.UNDECIDED_CHOICE,
                span,
                f"`{name}` may be white space alone, as if it were not there: two ways lead from "
                f"here to {key}",
                f"let `{name}` hold one character at least that is no white space",
                related if len(options) > 1 else (),
            )
    return Diagnostic(
        DiagnosticCode.UNDECIDED_CHOICE,
        span,
        f"two ways lead from here to {key}",
        "the next tag must decide: begin each way with a tag of its own, or write alternatives "
        "without tags as one terminal, and a text that only one way has in front as `[TEXT] x`",
        related if len(options) > 1 else (),
    )


# -- loops and recursion --------------------------------------------------------------------------


def _empty_loop(node: Repeat, inner: Symbols) -> Diagnostic:
    blank = inner.passes_blank
    what = "may be empty" if blank else "may hold no tag"
    beside = (
        "; of a text or tags in any order make `[TEXT] (x [TEXT])*`"
        if isinstance(node.node, Alt)
        else ""
    )
    return Diagnostic(
        DiagnosticCode.EMPTY_LOOP,
        node.span,
        f"this repeats something that {what}, so the number of turns is undecided",
        "repeat something that always holds a tag"
        + ("" if blank else f", or put the repetition into a terminal; {_LINE_AS_TAG}")
        + beside,
    )


def _left_recursion(rules: Rules, sets: FirstFollow) -> Iterator[tuple[str, Diagnostic]]:
    once = sets.uses.once
    heads = {n: once("heads", n, n, partial(_heads_of, rules[n], sets)) for n in rules}
    seen: set[str] = set()
    for name in circular(heads):
        if name in seen:
            continue
        cycle = _way_back(name, heads)
        if not seen & set(cycle):
            shown = cycle if len(cycle) <= _SHOWN else [*cycle[: _SHOWN - 2], "…", cycle[-1]]
            way = " -> ".join(f"`{n}`" for n in shown)
            yield (
                name,
                Diagnostic(
                    DiagnosticCode.LEFT_RECURSION,
                    rules[name].span,
                    f"`{name}` comes back to itself before any tag: {way}",
                    f"begin `{name}` with a tag, or write the repetition with `+` or `*`",
                ),
            )
        seen |= set(cycle)


def _heads_of(rule: Rule, sets: FirstFollow) -> list[str]:
    return list(dict.fromkeys(_heads(rule.node, sets)))


def _heads(node: Node, sets: FirstFollow) -> Iterator[str]:
    """Rules that may begin in `node` before any tag."""
    if isinstance(node, Ref):
        yield node.rule
    for inner in children(node):
        yield from _heads(inner, sets)
        if isinstance(node, Seq) and not sets.first(inner).passes:
            return


def _endless(rules: Rules, recursive: Mapping[str, Diagnostic], uses: Uses) -> Iterator[Diagnostic]:
    heights = rule_heights(bodies(rules), uses)
    endless = {name for name in rules if heights[name] > len(rules)}
    needed = {
        name: [n for n in references(rules[name].node) if n in endless]
        for name in rules
        if name in endless
    }
    for name in circular(needed):
        if name not in recursive:
            yield Diagnostic(
                DiagnosticCode.ENDLESS_RULE,
                rules[name].span,
                f"`{name}` can never end: every way through it needs another `{name}`",
                "add an alternative without it, or make it optional: `[…]`",
            )


def _way_back(start: str, edges: Mapping[str, list[str]]) -> list[str]:
    """A shortest way from `start`, which can come back to itself, to itself."""
    came_from: dict[str, str] = {}
    pending = deque([start])
    while start not in came_from:
        at = pending.popleft()
        for after in edges.get(at, ()):
            if after not in came_from:
                came_from[after] = at
                pending.append(after)
    way = [start, came_from[start]]
    while way[-1] != start:
        way.append(came_from[way[-1]])
    return way[::-1]


# -- forks and ends -------------------------------------------------------------------------------


def _forks(rules: Rules, ends: _OpenEnds, uses: Uses) -> Iterator[Diagnostic]:
    """What may stand right before a fork and is no tag."""
    for before, fork in _BeforeForks(rules, ends, uses).pairs:
        yield Diagnostic(
            DiagnosticCode.UNDECIDED_END,
            ends.place(before).span,
            "the branches begin behind this, and it is not a tag that says so",
            "put a tag before the fork; glue belongs into the branch",
            ((fork.span, "this fork must stand behind a tag"),),
        )


class _BeforeForks:
    """Looks for what stands before forks, across rules: a rule that begins with a fork must stand
    behind a tag wherever it is used. `pairs` holds what may stand there and is no tag, with the
    fork; of the uses of one rule the first."""

    def __init__(self, rules: Rules, ends: _OpenEnds, uses: Uses) -> None:
        self._rules = rules
        self._ends = ends
        self._met: list[tuple[Node, ForkNode | Ref]] = []  # in the rule that is looked at
        self._entered: set[str] = set()
        self.pairs: dict[tuple[Node, ForkNode], None] = {}
        self.pending: list[tuple[str, Node | None]] = [(name, None) for name in list(rules)[::-1]]
        while self.pending:
            rule, before = self.pending.pop()
            look = partial(self._inside, rule, before)
            met = look() if before is not None else uses.once("before forks", rule, rule, look)
            for end, node in met:
                if isinstance(node, ForkNode):
                    self.pairs[end, node] = None
                else:
                    self._enter(node.rule, end)

    def _inside(self, rule: str, before: Node | None) -> list[tuple[Node, ForkNode | Ref]]:
        """The forks and the uses of rules behind what is no tag, with that."""
        self._met = []
        self.visit(self._rules[rule].node, before)
        return self._met

    def visit(self, node: Node, before: Node | None) -> None:
        """`before` may stand before `node` and is no tag; None if a tag always does."""
        match node:
            case ForkNode():
                if before is not None:
                    self._met.append((before, node))
                self.visit(node.branch, None)
            case Seq():
                for item in node.items:
                    self.visit(item, before)
                    is_construct = isinstance(item, (MapNode, ForkNode))
                    before = None if is_construct else self._ends.of(item)
            case Alt():
                for option in node.options:
                    self.visit(option, node if len(node.options) > 1 else before)
            case Repeat():
                before = before if node.low == node.high else node
                if before is None and node.high != 1:
                    before = self._ends.of(node.node)
                self.visit(node.node, before)
            case Ref():
                if before is not None:
                    self._met.append((before, node))
            case _:
                for inner in children(node):
                    self.visit(inner, before)

    def _enter(self, rule: str, before: Node) -> None:
        """Rules are looked at by themselves; here only for what stands before them."""
        if rule in self._rules and rule not in self._entered:
            self._entered.add(rule)
            self.pending.append((rule, before))


def _ends(rules: Rules, ends: _OpenEnds) -> Iterator[Diagnostic]:
    """Branches, items and lists must end with a tag, behind which nothing may follow."""
    seen: set[tuple[str, Node]] = set()
    names = cache(lambda: tag_names(written_texts(rules)))
    for node in all_nodes(rules):
        if not isinstance(node, (MapNode, ForkNode)):
            continue
        for what, part in _closed_parts(node, rules):
            end = ends.of(part)
            last = None if end is None else ends.place(end)
            if last is not None and (what, last) not in seen:
                seen.add((what, last))
                yield _undecided_end(what, last, node, names())


def _closed_parts(node: MapNode | ForkNode, rules: Rules) -> Iterator[tuple[str, Node]]:
    if isinstance(node, ForkNode):
        yield "a branch", node.branch
        return
    yield "the list of a map", node.node
    if node.block.item is not None and node.block.item in rules:
        yield "an item", rules[node.block.item].node


def _undecided_end(
    what: str, last: Node, use: MapNode | ForkNode, names: Mapping[str, str]
) -> Diagnostic:
    return Diagnostic(
        DiagnosticCode.UNDECIDED_END,
        last.span,
        f"{what} may end here, and this is not a tag that ends it always",
        _way_to_end(last, names),
        ((use.span, f"{what} of this block must end with a tag"),),
    )


def _way_to_end(last: Node, names: Mapping[str, str]) -> str:
    if isinstance(last, Literal):
        return f"close it with a tag; {way_to_tag(last.text, names)}"
    if isinstance(last, Field) and is_blank(last):
        name = last.terminal.name
        return f"move `{name}` to the front of the element that follows: white space belongs there"
    return "close it with a tag; a terminal named `TAG_…` makes a tag of any string"


class _OpenEnds:
    """Finds what ends a part of a rule where it is no tag, or where more may follow."""

    def __init__(self, rules: Rules, uses: Uses) -> None:
        self._rules = rules

        def step(name: str, found: Mapping[str, Node | None]) -> Node | None:
            return _any_open_end(rules[name].node, found)

        self._open = uses.at_rest(None, step, "open ends")

    def of(self, node: Node) -> Node | None:
        """The last part of `node` if it is no tag, or more may follow it; None if all is well. A
        rule stands for its own end, which `place` finds."""
        return _open_end(node, self._open)

    def place(self, end: Node) -> Node:
        """The part behind the rules that `end` stands for."""
        entered = set[str]()
        while isinstance(end, Ref) and end.rule not in entered:
            entered.add(end.rule)
            end = self.of(self._rules[end.rule].node) or end
        return end


def _any_open_end(node: Node, open_rules: Mapping[str, Node | None]) -> Node | None:
    """`node` if it has an open end: which one may depend on the rule that was looked at first."""
    return None if _open_end(node, open_rules) is None else node


def _open_end(node: Node, open_rules: Mapping[str, Node | None]) -> Node | None:
    """As `_OpenEnds.of`, a rule that ends so standing for its end."""
    match node:
        case Tag():
            return None
        case Literal() | Field():
            return node
        case Ref():
            return None if open_rules.get(node.rule) is None else node
        case Repeat() if node.low != node.high:
            return node
        case Alt():
            found = (_open_end(option, open_rules) for option in node.options)
            return next((end for end in found if end is not None), None)
        case _:
            parts = children(node)
            return _open_end(parts[-1], open_rules) if parts else node
