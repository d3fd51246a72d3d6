"""Walks over the rules of a grammar: what a node holds, which rules it uses, how deep texts nest.

A rule is a tree of nodes that refers to other rules by name, itself included. Everything that goes
through such trees (checks, prompts, exports, writers of traces, admission) does it with these
functions; where rules are given, they are given by name, as bodies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Set
from dataclasses import replace
from functools import reduce
from itertools import chain
from operator import or_
from typing import Any, TypeVar

from nprdsl.grammar.ir import (
    Alt,
    ForkNode,
    JoinNode,
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
from nprdsl.regular.words import ENDLESS

Rules = Mapping[str, Rule]
Bodies = Mapping[str, Node]
Value = TypeVar("Value")


def rebuilt(node: Node, inner: Iterable[Node]) -> Node:
    """`node` with `inner` in place of its children; leaves and forks stay as they are."""
    match node:
        case Seq():
            return replace(node, items=tuple(inner))
        case Alt():
            return replace(node, options=tuple(inner))
        case Repeat() | MapNode() | JoinNode():
            (one,) = inner
            return replace(node, node=one)
        case _:
            return node


def all_nodes(rules: Rules) -> Iterator[Node]:
    """All nodes of all rules, rule by rule."""
    return chain.from_iterable(rule.nodes for rule in rules.values())


def written_texts(rules: Rules) -> Iterator[str]:
    """The texts of all tags and literals, in the order of `all_nodes`."""
    return (node.text for node in all_nodes(rules) if isinstance(node, (Tag, Literal)))


def bodies(rules: Rules) -> dict[str, Node]:
    """The body of each rule."""
    return {name: rule.node for name, rule in rules.items()}


def references(node: Node) -> list[str]:
    """The rules that `node` uses itself, each once, in the order of the text."""
    return list(dict.fromkeys(inner.rule for inner in nodes(node) if isinstance(inner, Ref)))


def reachable(names: Iterable[str], rules: Bodies) -> set[str]:
    """`names` and the rules that they use, directly or through others."""
    reached = set(names)
    pending = list(reached)
    while pending:
        name = pending.pop()
        new = set(references(rules[name])) - reached if name in rules else set()
        reached |= new
        pending.extend(new)
    return reached


def reach(rules: Bodies, uses: Uses) -> Callable[[Node, str], bool]:
    """Says of a node and a rule whether the node uses the rule, directly or through others."""
    bits = {name: 1 << n for n, name in enumerate(rules)}

    def used(node: Node, found: Mapping[str, int]) -> int:
        known = (r for r in references(node) if r in bits)
        return reduce(or_, (bits[r] | found[r] for r in known), 0)

    def step(name: str, found: Mapping[str, int]) -> int:
        return reduce(or_, (bits[r] | found[r] for r in uses.used[name]), 0)

    reached = uses.at_rest(0, step)
    return lambda node, rule: bool(used(node, reached) & bits.get(rule, 0))


def below(name: str, rules: Bodies) -> set[str]:
    """The rules that rule `name` uses, directly or through others; itself if it is recursive."""
    return reachable(references(rules[name]), rules)


class KeptValues:
    """What one reading found out about names, for the next: values that follow from what a name
    stands for (its body), and from the names that it uses, and so on."""

    def __init__(self) -> None:
        self.bodies: Mapping[str, object] = {}
        self.used: Mapping[str, list[str]] = {}
        self.values: dict[Hashable, dict[Any, Any]] = {}  # by what they say


class Uses:
    """Which names use which others, and an order in which values of names are found quickly. Values
    that are `kept` are used, and replaced; those that nobody asks for in one reading are gone in
    the next."""

    def __init__(
        self,
        uses: Mapping[str, list[str]],
        bodies: Mapping[str, object] | None = None,
        kept: KeptValues | None = None,
    ) -> None:
        self.used = uses
        self._users: dict[str, list[str]] = {name: [] for name in uses}
        for name, used in uses.items():
            for other in used:
                self._users[other].append(name)
        self.order = _used_first(uses)
        kept = KeptValues() if kept is None else kept
        self._same = self._unchanged(bodies or {}, kept)
        self._before, self._values = kept.values, dict[Hashable, dict[Any, Any]]()
        kept.bodies, kept.used, kept.values = bodies or {}, uses, self._values

    def _unchanged(self, bodies: Mapping[str, object], kept: KeptValues) -> Set[str]:
        """The names that are as they were, with all that they use, directly or through others."""
        old = (kept.bodies.get, kept.used.get)
        new = [n for n in bodies if old[0](n) is not bodies[n] or old[1](n) != self.used[n]]
        changed = set(new)
        while new:
            users = set(self._users[new.pop()]) - changed
            changed |= users
            new += users
        return bodies.keys() - changed

    def once(self, what: Hashable, about: Hashable, name: str, work: Callable[[], Value]) -> Value:
        """`work`, whose value follows from `about` and from a name with all that it uses; what it
        gave in the last reading where these are the same."""
        before = self._before.get(what, {}) if name in self._same else {}
        value: Value = before[about] if about in before else work()
        self._values.setdefault(what, {})[about] = value
        return value

    @classmethod
    def of(cls, rules: Bodies) -> Uses:
        """The uses of rules by rules."""
        return cls({n: [r for r in references(rules[n]) if r in rules] for n in rules})

    def at_rest(
        self,
        first: Value,
        step: Callable[[str, Mapping[str, Value]], Value],
        what: Hashable = None,
    ) -> dict[str, Value]:
        """A value for every name, the used names first. Where values follow from the bodies of
        names alone, `what` is what they say: they are kept.

        All values begin as `first`; `step` makes a name's value of the values so far, and is asked
        again where those of the names that it uses have changed. It must come to rest: values only
        grow, or only fall.
        """
        before = {} if what is None else self._before.get(what, {})
        known = self._same & before.keys()
        values = {name: before[name] if name in known else first for name in self.order}
        pending, queued = deque(n for n in self.order if n not in known), self.used.keys() - known
        while pending:
            name = pending.popleft()
            queued.discard(name)
            value = step(name, values)
            if value != values[name]:
                values[name] = value
                new = [user for user in self._users[name] if user not in queued]
                pending.extend(new)
                queued.update(new)
        if what is not None:
            self._values[what] = dict(values)
        return values


def uses_of(rules: Rules, kept: KeptValues | None = None) -> Uses:
    """The uses of rules by rules."""
    uses = {n: [r for r in rule.references if r in rules] for n, rule in rules.items()}
    return Uses(uses, bodies(rules), kept)


def circular(edges: Mapping[str, list[str]]) -> list[str]:
    """The names from which edges lead back to themselves, in their order."""
    bits = {name: 1 << n for n, name in enumerate(edges)}
    known = {name: [n for n in behind if n in edges] for name, behind in edges.items()}
    if not any(known.values()):
        return []

    def step(name: str, reached: Mapping[str, int]) -> int:
        return reduce(or_, (bits[n] | reached[n] for n in known[name]), 0)

    reached = Uses(known).at_rest(0, step)
    return [name for name in edges if reached[name] & bits[name]]


def _used_first(uses: Mapping[str, list[str]]) -> list[str]:
    """The rules, each behind those that it uses, as far as circles allow."""
    order: dict[str, None] = {}
    entered: set[str] = set()
    pending = list(uses)[::-1]
    while pending:
        name = pending[-1]
        if name in entered:
            order[pending.pop()] = None  # all that it uses is done
        else:
            entered.add(name)
            pending.extend(reversed([rule for rule in uses[name] if rule not in entered]))
    return list(order)


def holds_fork(node: Node) -> bool:
    """Whether a fork stands in `node`, rules that it uses left out."""
    return any(isinstance(inner, ForkNode) for inner in nodes(node))


def rule_heights(rules: Bodies, uses: Uses | None = None) -> dict[str, int]:
    """For every rule, how many rules inside one another its shortest text needs, itself included.

    More than `len(rules)` says that it has no finite text.
    """
    endless = len(rules) + 1

    def step(name: str, found: Mapping[str, int]) -> int:
        return min(1 + height(rules[name], found), endless)

    what = "heights", endless
    return (uses or Uses.of(rules)).at_rest(endless, step, what)


def height(node: Node, heights: Mapping[str, int]) -> int:
    """As `rule_heights`, for a node; rules that are not in `heights` count 0."""
    match node:
        case Ref():
            return heights.get(node.rule, 0)
        case Alt():
            return min((height(option, heights) for option in node.options), default=ENDLESS)
        case Repeat() if node.low == 0:
            return 0
        case _:
            return max((height(inner, heights) for inner in children(node)), default=0)
