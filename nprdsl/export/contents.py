"""Rules rewritten so that all that stands before a tag, and the tag, are one unit.

A lexer that reads free text greedily cannot find out where it ends unless the tag that ends it is
part of the same lexeme. Text and tag may stand in different rules, so each rule is split by the
content that is still open where it begins and where it ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nprdsl.export.rules import holds_tag, reachable, shape, tagged, trim
from nprdsl.grammar.diagnostics import Span
from nprdsl.grammar.ir import Alt, Node, Ref, Repeat, Seq, Tag

Open = tuple[Node, ...]  # content read since the last tag: nodes without tags
_Ways = dict[Open, Node]  # what was written, by the content that is open behind it


@dataclass(frozen=True, eq=False, slots=True)
class Unit:
    """`content`, then `tag`; None is the end of the trace."""

    content: Open
    tag: str | None


@dataclass(frozen=True, slots=True)
class Units:
    """Rules over units: `rules[name]` is made of Seq, Alt, Repeat, Ref; `units[name]` is one unit.

    Each unit has a rule name of its own, so that both kinds are used by `Ref`.
    """

    start: str
    rules: Mapping[str, Node]
    units: Mapping[str, Unit]


def gather(rules: Mapping[str, Node], start: str) -> Units:
    """`rules` (reachable, productive) over units of content and tag."""
    return _Gatherer(rules).units(start)


class _Gatherer:
    def __init__(self, rules: Mapping[str, Node]) -> None:
        self._rules = dict(rules)
        self._tagged = set(tagged(rules))
        self._ends: dict[tuple[str, Open], dict[Open, str]] = {}  # rule, open -> open', its name
        self._units: dict[tuple[Open, str | None], str] = {}
        self._taken = set(rules)
        self._loops: dict[Repeat, str] = {}
        self._seen: dict[object, Node] = {}

    def units(self, start: str) -> Units:
        self._ends[start, ()] = {}
        while True:
            count = self._size()
            made: dict[str, Node] = {}
            for rule, opened in list(self._ends):
                for closed, node in self._read(self._rules[rule], opened).items():
                    made[self._name(rule, opened, closed)] = node
            if self._size() == count:
                break
        span = self._rules[start].span
        ways = [
            Seq((Ref(name, span), self._unit(opened, None, span)), span)
            for opened, name in self._ends[start, ()].items()
        ]
        whole = self._fresh(start)
        made[whole] = Alt(tuple(ways), span)
        units = {name: Unit(content, tag) for (content, tag), name in self._units.items()}
        every: dict[str, Node] = made | dict.fromkeys(units, Seq((), span))
        kept = trim(every, whole)
        return Units(
            whole,
            {name: node for name, node in kept.items() if name not in units},
            {name: unit for name, unit in units.items() if name in kept},
        )

    def _size(self) -> tuple[int, int]:
        return len(self._ends), sum(len(ends) for ends in self._ends.values())

    def _read(self, node: Node, opened: Open) -> _Ways:
        if not holds_tag(node, self._tagged):
            return {(*opened, *self._content(node)): Seq((), node.span)}
        match node:
            case Tag(text=text, span=span):
                return {(): self._unit(opened, text, span)}
            case Ref(rule=rule, span=span):
                ends = self._ends.setdefault((rule, opened), {})
                return {closed: Ref(name, span) for closed, name in ends.items()}
            case Seq(items=items, span=span):
                ways: _Ways = {opened: Seq((), span)}
                for item in items:
                    ways = self._then(ways, item)
                return ways
            case Alt(options=options):
                return _merge([self._read(option, opened) for option in options])
            case Repeat():
                return self._repeated(node, opened)
            case _:
                raise AssertionError(node)

    def _content(self, node: Node) -> Open:
        """A node without tags in parts, rules and sequences opened so that literals come first."""
        match node:
            case Seq(items=items):
                return tuple(part for item in items for part in self._content(item))
            case Ref(rule=rule) if rule not in reachable(self._rules, rule):
                return self._content(self._rules[rule])
            case _:
                return (self._same(node),)

    def _same(self, node: Node) -> Node:
        """The first node met that says the same: units of equal content are one unit."""
        return self._seen.setdefault(shape(node), node)

    def _then(self, ways: _Ways, item: Node) -> _Ways:
        found = []
        for opened, before in ways.items():
            read = self._read(item, opened)
            found.append({end: Seq((before, node), node.span) for end, node in read.items()})
        return _merge(found)

    def _repeated(self, node: Repeat, opened: Open) -> _Ways:
        """A repetition still where every turn begins alike, else turns written out, or a loop."""
        turn = self._read(node.node, opened)
        if set(turn) == {opened}:
            return {opened: Repeat(turn[opened], node.low, node.high, node.span)}
        if node.high is None:
            head = self._turns({opened: Seq((), node.span)}, node, node.low)[-1]
            return self._then(head, Ref(self._loop(node), node.span))
        ways = self._turns({opened: Seq((), node.span)}, node, node.high)
        return _merge(ways[node.low :])

    def _turns(self, ways: _Ways, node: Repeat, count: int) -> list[_Ways]:
        after = [ways]
        for _ in range(count):
            after.append(self._then(after[-1], node.node))
        return after

    def _loop(self, node: Repeat) -> str:
        """The rule `loop: | turn loop` of a repetition without limit."""
        if node not in self._loops:
            name = self._loops[node] = self._fresh("again")
            again = Seq((node.node, Ref(name, node.span)), node.span)
            self._rules[name] = Alt((Seq((), node.span), again), node.span)
            self._tagged.add(name)
        return self._loops[node]

    def _name(self, rule: str, opened: Open, closed: Open) -> str:
        ends = self._ends[rule, opened]
        if closed not in ends:
            plain = not opened and not closed and rule not in self._ends_names()
            ends[closed] = rule if plain else self._fresh(rule)
        return ends[closed]

    def _ends_names(self) -> set[str]:
        return {name for ends in self._ends.values() for name in ends.values()}

    def _unit(self, content: Open, tag: str | None, span: Span) -> Ref:
        key = (content, tag)
        if key not in self._units:
            self._units[key] = self._fresh("unit")
        return Ref(self._units[key], span)

    def _fresh(self, base: str) -> str:
        turn = 1
        while f"{base}_{turn}" in self._taken:
            turn += 1
        self._taken.add(f"{base}_{turn}")
        return f"{base}_{turn}"


def _merge(found: Sequence[Mapping[Open, Node]]) -> _Ways:
    merged: dict[Open, list[Node]] = {}
    for ways in found:
        for opened, node in ways.items():
            merged.setdefault(opened, []).append(node)
    return {
        opened: nodes[0] if len(nodes) == 1 else Alt(tuple(nodes), nodes[0].span)
        for opened, nodes in merged.items()
    }
