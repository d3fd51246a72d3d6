"""The fields of a grammar: every sequence of literals and terminals that may stand between two
tags, across the borders of rules.

They are found by walking on from behind each tag (and from the beginning) to the next one, through
every choice. A rule that was entered before the tag may return to any of its uses; one entered
behind it returns where it was entered. What a tag machine would meet one state at a time is here
all at once, so that checks and costs can look at whole fields. Those of more than `LONGEST` leaves
are left out; of the tags behind one field that are found wherever they stand, one is named. In a
very large schema, leaves that say the same are one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from nprdsl.grammar.ir import (
    Alt,
    Field,
    ForkNode,
    Grammar,
    JoinNode,
    Literal,
    MapNode,
    Node,
    Ref,
    Repeat,
    Seq,
    Tag,
    children,
    once_for_grammar,
)
from nprdsl.grammar.walk import Rules, Uses, all_nodes, uses_of
from nprdsl.regular.tag_scan import TagScan, tag_scan

LONGEST: Final = 200
_MANY: Final = 1000  # leaves
Leaf = Literal | Field


@dataclass(frozen=True, slots=True)
class FieldShape:
    """The leaves between two tags, at least one, and the tag behind them; None at the end."""

    leaves: tuple[Leaf, ...]
    tag: Tag | None


@dataclass(frozen=True, slots=True)
class _Return:
    """Behind all of a rule that was entered before the field began."""

    rule: str


@dataclass(frozen=True, slots=True)
class _Turns:
    """Turns of a repetition, or branches, still to come: `count` of them; None: any number."""

    turn: Node
    count: int | None


@dataclass(frozen=True, slots=True)
class _Next:
    """What may come next: leaves, each with what is behind it, and tags."""

    leaves: tuple[tuple[Leaf, _Rest | None], ...]
    tags: tuple[Tag | None, ...]


@dataclass(eq=False, slots=True)
class _Rest:
    """What is still to come: an entry, and what lies below it."""

    entry: Node | _Return | _Turns
    below: _Rest | None  # None: the end of the trace


@once_for_grammar
def field_shapes(grammar: Grammar, uses: Uses | None = None) -> tuple[FieldShape, ...]:
    """All fields of a grammar without other faults, each once. `uses` are those of its rules."""
    scan, rules = tag_scan(grammar.tags), grammar.rules
    if uses is None or uses.used.keys() != rules.keys():
        uses = uses_of(rules)
    return tuple(_Search(rules, grammar.start, scan, uses).shapes())


@dataclass(slots=True)
class _Inside:
    """What is found in one rule: what comes behind its tags, where that may be a field, and behind
    its uses of rules; and all that is still to come there, each thing once."""

    begins: list[_Rest | None] = field(default_factory=list)
    uses: list[tuple[str, _Rest | None]] = field(default_factory=list)
    rests: dict[tuple[object, _Rest | None], _Rest] = field(default_factory=dict)


class _Search:
    def __init__(self, rules: Rules, start: str, scan: TagScan, uses: Uses) -> None:
        self._rules = rules
        self._scan = scan
        self._same = _same_leaves(rules)
        self._tagged = _tagged(rules, uses)
        self._rests: dict[tuple[object, _Rest | None], _Rest] = {}
        self._uses: dict[str, list[_Rest | None]] = {name: [] for name in rules}
        self._nexts: dict[_Rest | None, _Next] = {}
        self._beyond: dict[_Rest, _Rest | None] = {}
        self._begins: list[_Rest | None] = []
        if start in rules:
            self._uses[start].append(None)
            self._begins.append(self._rest(rules[start].node, None))
        for name in rules:
            inside = uses.once("begins", name, name, partial(self._looked_into, name))
            self._begins += inside.begins
            self._rests |= inside.rests
            for rule, behind in inside.uses:
                self._uses[rule].append(behind)

    def _looked_into(self, name: str) -> _Inside:
        rests, self._rests = self._rests, {}
        inside = _Inside(rests=self._rests)
        self._place(self._rules[name].node, self._rest(_Return(name), None), inside)
        self._rests = rests
        return inside

    def _rest(self, entry: Node | _Return | _Turns, below: _Rest | None) -> _Rest:
        if entry in self._tagged:  # no field comes so far: what stands below is one for all
            below = None
        rest = self._rests.get((entry, below))
        if rest is None:
            rest = self._rests[entry, below] = _Rest(entry, below)
        return rest

    def _place(self, node: Node, behind: _Rest, inside: _Inside) -> None:
        """Note what comes behind every tag and every use of a rule in `node`."""
        match node:
            case Tag():
                if not isinstance(behind.entry, Tag):
                    inside.begins.append(behind)
            case Ref():
                inside.uses.append((node.rule, behind))
            case Seq():
                for item in reversed(node.items):
                    self._place(item, behind, inside)
                    behind = self._rest(item, behind)
            case Repeat() if node.high != 1:
                self._place(node.node, self._rest(_Turns(node.node, None), behind), inside)
            case ForkNode():
                self._place(node.branch, self._rest(_Turns(node.branch, None), behind), inside)
            case _:
                for inner in children(node):
                    self._place(inner, behind, inside)

    def shapes(self) -> list[FieldShape]:
        found: dict[tuple[Leaf, ...], dict[Tag | None, None]] = {}
        pending: list[tuple[tuple[Leaf, ...], _Rest | None]] = []
        pending += [((leaf,), below) for leaf, below in self._next(*self._begins).leaves]
        seen = set(pending)
        while pending:
            leaves, rest = pending.pop()
            behind = self._nexts.get(rest)
            if behind is None:
                behind = self._nexts[rest] = self._next(rest)
            found.setdefault(leaves, {}).update(dict.fromkeys(behind.tags))
            if len(leaves) < LONGEST:
                further = [((*leaves, leaf), below) for leaf, below in behind.leaves]
                new = [place for place in further if place not in seen]
                seen.update(new)
                pending += new
        return [FieldShape(leaves, tag) for leaves, tags in found.items() for tag in tags]

    def _next(self, *begins: _Rest | None) -> _Next:
        """The leaves that may come next, with what is behind them, and the tags."""
        leaves: dict[tuple[Leaf, _Rest | None], None] = {}
        tags: dict[str, Tag | None] = {}
        pending = list(begins)
        seen = set(pending)
        while pending:
            rest = pending.pop()
            entry = rest.entry if rest is not None else None
            if rest is None or isinstance(entry, Tag):
                tag = entry if isinstance(entry, Tag) else None
                apart = tag is None or tag.text in self._scan.apart
                tags.setdefault("" if apart or tag is None else tag.text, tag)
            elif isinstance(entry, (Literal, Field)):
                leaves[self._same.get(entry, entry), self._returned(rest.below)] = None
            else:
                ways = [self._returned(after) for after in self._after(rest)]
                new = [after for after in ways if after not in seen]
                seen.update(new)
                pending += new
        return _Next(tuple(leaves), tuple(tags.values()))

    def _returned(self, rest: _Rest | None) -> _Rest | None:
        """The same, returned from all rules that have one use only."""
        way: dict[_Rest, None] = {}
        while rest is not None and rest not in way:
            if rest in self._beyond:
                rest = self._beyond[rest]
                break
            entry = rest.entry
            uses = self._uses[entry.rule] if isinstance(entry, _Return) else []
            if len(uses) != 1:
                break
            way[rest] = None
            rest = uses[0]
        self._beyond.update(dict.fromkeys(way, rest))
        return rest

    def _after(self, rest: _Rest) -> Iterator[_Rest | None]:
        """The ways on from an entry that is neither tag nor leaf."""
        entry, below = rest.entry, rest.below
        match entry:
            case _Return():
                yield from self._uses[entry.rule]
            case _Turns(count=None):
                yield below
                yield self._rest(entry.turn, rest)
            case _Turns(turn=turn, count=count) if count:
                yield self._rest(turn, self._rest(_Turns(turn, count - 1), below))
            case Seq():
                for item in reversed(entry.items):
                    below = self._rest(item, below)
                yield below
            case Alt():
                for option in entry.options:
                    yield self._rest(option, below)
            case Repeat():
                if entry.low == 0:
                    yield below
                exact = entry.low == entry.high
                turns = _Turns(entry.node, entry.low - 1 if exact else None)
                again = entry.high != 1
                yield self._rest(entry.node, self._rest(turns, below) if again else below)
            case ForkNode():
                turns = _Turns(entry.branch, None)
                yield self._rest(entry.branch, self._rest(turns, below))
            case Ref():
                yield self._rest(self._rules[entry.rule].node, below)
            case MapNode() | JoinNode():
                yield self._rest(entry.node, below)
            case _:
                yield below


def _tagged(rules: Rules, uses: Uses) -> set[object]:
    """The nodes through which no way leads without a tag; and the names of such rules."""

    def step(name: str, known: Mapping[str, frozenset[object]]) -> frozenset[object]:
        tagged: set[object] = set()
        rule = rules[name]
        for node in reversed(rule.nodes):  # what stands inside first
            if _always_tagged(node, known, tagged):
                tagged.add(node)
        return frozenset(tagged | {name} if rule.node in tagged else tagged)

    nothing = frozenset[object]()
    return set().union(*uses.at_rest(nothing, step, "tagged").values())


def _always_tagged(node: Node, rules: Mapping[str, frozenset[object]], tagged: set[object]) -> bool:
    """Whether `node` is; `tagged` are those of its children that are."""
    match node:
        case Tag():
            return True
        case Literal() | Field() | Repeat(low=0):
            return False
        case Ref():
            return node.rule in rules.get(node.rule, ())
        case Alt():
            return tagged.issuperset(node.options)
        case _:
            return not tagged.isdisjoint(children(node))


def _same_leaves(rules: Rules) -> dict[Leaf, Leaf]:
    """For every leaf of a very large schema, the first that says the same."""
    leaves = [node for node in all_nodes(rules) if isinstance(node, (Literal, Field))]
    if len(leaves) <= _MANY:
        return {}
    first: dict[object, Leaf] = {}
    says = ((leaf, leaf.text if isinstance(leaf, Literal) else leaf.terminal) for leaf in leaves)
    return {leaf: first.setdefault(said, leaf) for leaf, said in says}
