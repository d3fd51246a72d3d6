"""Operations on a set of rules without forks: what is used, what can end, what holds a tag."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import chain

from nprdsl.grammar.ir import Alt, Field, Literal, Node, Ref, Repeat, Seq, Tag


def references(node: Node) -> Iterator[str]:
    """The rules that `node` uses directly, in order, with repetition."""
    match node:
        case Ref(rule=rule):
            yield rule
        case Seq(items=items) | Alt(options=items):
            yield from chain.from_iterable(references(item) for item in items)
        case Repeat(node=inner):
            yield from references(inner)
        case _:
            return


def reachable(rules: Mapping[str, Node], rule: str) -> set[str]:
    """The rules used from `rule` on; itself only if it is recursive."""
    found: set[str] = set()
    todo = [rule]
    while todo:
        for name in references(rules[todo.pop()]):
            if name not in found:
                found.add(name)
                todo.append(name)
    return found


def trim(rules: Mapping[str, Node], start: str) -> dict[str, Node]:
    """The reachable rules that derive a finite text; options that cannot end are dropped."""
    finite: dict[str, Node] = {}
    grown = True
    while grown:
        grown = False
        for name, node in rules.items():
            if name not in finite and _prune(node, finite) is not None:
                finite[name] = node
                grown = True
    kept: dict[str, Node] = {}
    todo = [start]
    while todo:
        name = todo.pop()
        if name not in kept:
            pruned = _prune(finite[name], finite)
            assert pruned is not None
            kept[name] = pruned
            todo.extend(references(pruned))
    return {name: kept[name] for name in rules if name in kept}


def _prune(node: Node, finite: Mapping[str, Node]) -> Node | None:
    match node:
        case Ref(rule=rule):
            return node if rule in finite else None
        case Seq(items=items, span=span):
            parts = [_prune(item, finite) for item in items]
            kept = [part for part in parts if part is not None]
            return Seq(tuple(kept), span) if len(kept) == len(parts) else None
        case Alt(options=options, span=span):
            ways = [way for option in options if (way := _prune(option, finite)) is not None]
            return Alt(tuple(ways), span) if ways else None
        case Repeat(node=inner, low=low, high=high, span=span):
            pruned = _prune(inner, finite)
            if pruned is None:
                return Seq((), span) if low == 0 else None
            return Repeat(pruned, low, high, span)
        case _:
            return node


def tagged(rules: Mapping[str, Node]) -> frozenset[str]:
    """The rules that hold a tag, directly or through others."""
    found: set[str] = set()
    while True:
        more = {name for name, node in rules.items() if holds_tag(node, found)}
        if more == found:
            return frozenset(found)
        found = more


def holds_tag(node: Node, rules: Collection[str]) -> bool:
    """Whether a tag is in `node`, given the `rules` that hold one."""
    match node:
        case Tag():
            return True
        case Ref(rule=rule):
            return rule in rules
        case Seq(items=items) | Alt(options=items):
            return any(holds_tag(item, rules) for item in items)
        case Repeat(node=inner):
            return holds_tag(inner, rules)
        case _:
            return False


def shape(node: Node) -> tuple[object, ...]:
    """A value that is equal for nodes that say the same (nodes themselves compare by identity)."""
    match node:
        case Tag(text=text) | Literal(text=text):
            return (type(node), text)
        case Field(terminal=terminal):
            return (Field, terminal.name)
        case Ref(rule=rule):
            return (Ref, rule)
        case Seq(items=items) | Alt(options=items):
            return (type(node), *(shape(item) for item in items))
        case Repeat(node=inner, low=low, high=high):
            return (Repeat, shape(inner), low, high)
        case _:
            raise AssertionError("rules without forks")
