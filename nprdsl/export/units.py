"""Rules rewritten for a lexer: all that stands before a tag, and the tag, become one unit.

A lexer that takes the longest match cannot find out where free text ends unless the tag that ends
it is part of the same lexeme. Text and tag may stand in different rules, so `gather` splits each
rule by the content that is still open where it begins and where it ends.

A unit that begins with a literal can also be lexed as that literal and a rest, and then shares the
rest with other units (`1:` and `2:` before free text). That is wrong where another unit at the same
place begins alike: the longer lexeme would swallow the literal. `conflicting` finds those units.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from nprdsl.export.linear import trim
from nprdsl.grammar.diagnostics import Span
from nprdsl.grammar.first_follow import FirstFollow, Symbols, Undefined, by_leaf
from nprdsl.grammar.ir import Alt, Field, Literal, Node, Ref, Repeat, Seq, Tag, children, nodes
from nprdsl.grammar.walk import Bodies, below

Open = tuple[Node, ...]  # content read since the last tag: nodes without tags
_Place = tuple[str, Open]  # a rule, and the content that is open where it begins
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
    rules: Bodies
    units: Mapping[str, Unit]


def gather(rules: Bodies, start: str) -> Units:
    """`rules` (reachable, productive) over units of content and tag."""
    return _Gatherer(rules).units(start)


class _Gatherer:
    def __init__(self, rules: Bodies) -> None:
        self._rules = dict(rules)
        self._tagged = _tagged(rules)
        self._ends: dict[_Place, dict[Open, str]] = {}  # rule, open -> open', its name
        self._end_names: set[str] = set()
        self._ways: dict[_Place, _Ways] = {}
        self._stale: set[_Place] = set()  # to be read (again): what they use has new ends
        self._users: dict[_Place, set[_Place]] = {}
        self._reading: _Place = ("", ())
        self._holding: dict[Node, bool] = {}  # whether they hold a tag
        self._units: dict[tuple[Open, str | None], str] = {}
        self._taken = set(rules)
        self._turns: Counter[str] = Counter()
        self._loops: dict[Repeat, str] = {}
        self._seen: dict[object, Node] = {}

    def units(self, start: str) -> Units:
        self._ends_of(start, ())
        while self._stale:
            for place in list(self._ends):
                if place in self._stale:
                    self._stale.remove(place)
                    self._reading = place
                    self._ways[place] = self._read(self._rules[place[0]], place[1])
                    for closed in self._ways[place]:
                        self._name(place, closed)
        made: dict[str, Node] = {
            self._ends[place][closed]: node
            for place in self._ends
            for closed, node in self._ways[place].items()
        }
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

    def _ends_of(self, rule: str, opened: Open) -> Mapping[Open, str]:
        """Those that are known by now; who asks is read again when there are more."""
        place = (rule, opened)
        if place not in self._ends:
            self._ends[place] = {}
            self._stale.add(place)
        self._users.setdefault(place, set()).add(self._reading)
        return self._ends[place]

    def _holds_tag(self, node: Node) -> bool:
        match node:
            case Tag():
                return True
            case Ref(rule=rule):
                return rule in self._tagged
            case Repeat(node=inner):
                return self._holds_tag(inner)
            case _:
                if node not in self._holding:
                    self._holding[node] = any(map(self._holds_tag, children(node)))
                return self._holding[node]

    def _read(self, node: Node, opened: Open) -> _Ways:
        if not self._holds_tag(node):
            return {(*opened, *self._content(node)): Seq((), node.span)}
        match node:
            case Tag(text=text, span=span):
                return {(): self._unit(opened, text, span)}
            case Ref(rule=rule, span=span):
                ends = self._ends_of(rule, opened)
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
            case Ref(rule=rule) if rule not in below(rule, self._rules):
                return self._content(self._rules[rule])
            case _:
                return (self._same(node),)

    def _same(self, node: Node) -> Node:
        """The first node met that says the same: units of equal content are one unit."""
        return self._seen.setdefault(_shape(node), node)

    def _then(self, ways: _Ways, item: Node) -> _Ways:
        longer = []
        for opened, before in ways.items():
            read = self._read(item, opened)
            longer.append({end: Seq((before, node), node.span) for end, node in read.items()})
        return _merge(longer)

    def _repeated(self, node: Repeat, opened: Open) -> _Ways:
        """A repetition still, from the turn on behind which every turn begins alike; the turns
        before it are written out, or, without limit, a loop."""
        turn = self._read(node.node, opened)
        if set(turn) == {opened}:
            return {opened: Repeat(turn[opened], node.low, node.high, node.span)}
        if node.high is None:
            ways: _Ways = {opened: Seq((), node.span)}
            for _ in range(node.low):
                ways = self._then(ways, node.node)
            return self._then(ways, Ref(self._loop(node), node.span))
        ways = {opened: Seq((), node.span)}
        ended: list[_Ways] = []
        for count in range(node.high):
            again = Repeat(node.node, max(0, node.low - count), node.high - count, node.span)
            alike = {o: n for o, n in ways.items() if set(self._read(node.node, o)) == {o}}
            ended += (self._then({o: n}, again) for o, n in alike.items())
            ways = {o: n for o, n in ways.items() if o not in alike}
            if count >= node.low:
                ended.append(ways)
            ways = self._then(ways, node.node)
        return _merge([*ended, ways])

    def _loop(self, node: Repeat) -> str:
        """The rule `loop: | turn loop` of a repetition without limit."""
        if node not in self._loops:
            name = self._loops[node] = self._fresh("again")
            again = Seq((node.node, Ref(name, node.span)), node.span)
            self._rules[name] = Alt((Seq((), node.span), again), node.span)
            self._tagged.add(name)
        return self._loops[node]

    def _name(self, place: _Place, closed: Open) -> None:
        rule, opened = place
        if closed not in self._ends[place]:
            plain = not opened and not closed and rule not in self._end_names
            name = self._ends[place][closed] = rule if plain else self._fresh(rule)
            self._end_names.add(name)
            self._stale |= self._users[place] & self._ends.keys()

    def _unit(self, content: Open, tag: str | None, span: Span) -> Ref:
        key = (content, tag)
        if key not in self._units:
            self._units[key] = self._fresh("unit")
        return Ref(self._units[key], span)

    def _fresh(self, base: str) -> str:
        while (name := f"{base}_{self._turns[base] + 1}") in self._taken:
            self._turns[base] += 1
        self._taken.add(name)
        return name


def _merge(options: Sequence[Mapping[Open, Node]]) -> _Ways:
    merged: dict[Open, list[Node]] = {}
    for ways in options:
        for opened, node in ways.items():
            merged.setdefault(opened, []).append(node)
    return {
        opened: nodes[0] if len(nodes) == 1 else Alt(tuple(nodes), nodes[0].span)
        for opened, nodes in merged.items()
    }


def _tagged(rules: Bodies) -> set[str]:
    """The rules that hold a tag, directly or through others."""
    tagged: set[str] = set()
    while more := {n for n in rules if n not in tagged and _holds_tag(rules[n], tagged)}:
        tagged |= more
    return tagged


def _holds_tag(node: Node, tagged: Collection[str]) -> bool:
    """Whether a tag is in `node`, given the rules that hold one."""
    return any(
        isinstance(inner, Tag) or (isinstance(inner, Ref) and inner.rule in tagged)
        for inner in nodes(node)
    )


def _shape(node: Node) -> tuple[object, ...]:
    """A value that is equal for nodes that say the same (nodes themselves compare by identity)."""
    match node:
        case Tag(text=own) | Literal(text=own) | Ref(rule=own):
            return (type(node), own)
        case Field(terminal=terminal):
            return (Field, terminal.name)
        case Repeat(low=low, high=high):
            return (Repeat, low, high, _shape(node.node))
        case _:
            return (type(node), *map(_shape, children(node)))


# -- conflicts --------------------------------------------------------------------------------


def head(unit: Unit) -> tuple[str, list[Node]]:
    """The literals that a unit's content begins with, as one text, and the rest of its content."""
    rest = list(unit.content)
    text = ""
    while rest and isinstance(rest[0], Literal):
        text += rest[0].text
        rest.pop(0)
    return text, rest


def conflicting(units: Units) -> frozenset[Unit]:
    """The units that must be one lexeme as a whole."""
    alternatives = _alternatives(units)
    whole: set[str] = set()
    grown = True
    while grown:
        grown = False
        for names in alternatives:
            content = {name for name in names if units.units[name].content}
            if content <= whole:
                continue
            pairs = combinations(sorted(content), 2)
            if content & whole or any(_confused(units, one, other) for one, other in pairs):
                whole |= content
                grown = True
    return frozenset(units.units[name] for name in whole)


def _confused(units: Units, one: str, other: str) -> bool:
    (first, _), (second, _) = head(units.units[one]), head(units.units[other])
    return first != second and (first.startswith(second) or second.startswith(first))


def _alternatives(units: Units) -> list[set[str]]:
    """The sets of units that may come next: at the start, and behind each unit."""
    sets = FirstFollow(units.rules, units.start, by_leaf)

    def named(first: Symbols) -> set[str]:
        symbols = sets.named(first.any)
        return {s.rule for s in symbols if isinstance(s, Undefined) and s.rule in units.units}

    behind: dict[str, set[str]] = {name: set() for name in units.units}
    for node, after in sets.follow.items():
        if isinstance(node, Ref) and node.rule in behind:
            behind[node.rule] |= named(after)
    return [named(sets.first(units.rules[units.start])), *behind.values()]
