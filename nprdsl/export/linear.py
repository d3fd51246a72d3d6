"""The grammar of a schema's traces as plain text: branches one after another, no forks left.

Servers that know nothing of forks read a trace as one text. `linearise` gives its context-free
grammar in the same nodes, without maps, forks and joins. That a map lists as many items as there
are branches is spelled out count by count, labels are numbered 1..n, glue is its canonical literal.
What a context-free grammar cannot say is in `lost`, a sentence each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from operator import is_

from nprdsl.export.exported import ExportError, ExportLimits
from nprdsl.grammar.ir import (
    Alt,
    Block,
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
    Terminal,
    TerminalKind,
    children,
    nodes,
)
from nprdsl.grammar.item_counts import least_items
from nprdsl.grammar.walk import Bodies, bodies, rebuilt, references, rule_heights
from nprdsl.regular.dfa import compile_regex

# The labels tried, the first that the label's terminal accepts: 1 2 3, A B C, a b c.
_SERIES: tuple[Callable[[int], str], ...] = (
    lambda index: str(index + 1),
    lambda index: chr(ord("A") + index),
    lambda index: chr(ord("a") + index),
)
MOST_ITEMS = 64  # that a list may need and still be spelled out
_Numbers = tuple[Terminal, tuple[str, ...]]  # a label's terminal, and its values in order
_VALUED = (TerminalKind.REGULAR, TerminalKind.TYPED)


@dataclass(frozen=True, slots=True)
class LinearGrammar:
    """Rules without maps, forks, joins and glue; `origin` names the schema's rule behind each."""

    start: str
    rules: Mapping[str, Node]
    origin: Mapping[str, str]
    tags: tuple[str, ...]
    lost: tuple[str, ...]


def linearise(grammar: Grammar, limits: ExportLimits) -> LinearGrammar:
    """The linear language of `grammar`; every rule of the result is reachable and productive."""
    lineariser = _Lineariser(grammar, limits)
    rules = trim(lineariser.rules(), grammar.start)
    origin = {name: lineariser.origin[name] for name in rules}
    return LinearGrammar(grammar.start, rules, origin, grammar.tags, tuple(lineariser.lost))


class _Lineariser:
    """Makes variants of rules on demand; `sources` holds rules still with forks, variants
    included."""

    def __init__(self, grammar: Grammar, limits: ExportLimits) -> None:
        self._grammar = grammar
        self._limits = limits
        self.sources: dict[str, Node] = bodies(grammar.rules)
        self._variants: dict[tuple[object, ...], str | None] = {}
        self.origin = {name: name for name in grammar.rules}
        self.lost: dict[str, None] = {}  # an ordered set

    def rules(self) -> dict[str, Node]:
        done: dict[str, Node] = {}
        todo = [self._grammar.start]
        while todo:
            name = todo.pop()
            if name not in done:
                done[name] = self._plain(self.sources[name])
                todo.extend(n.rule for n in nodes(done[name]) if isinstance(n, Ref))
        return done

    def _plain(self, node: Node) -> Node:
        match node:
            case Field(terminal=Terminal(kind=TerminalKind.GLUE, literal=literal), span=span):
                return Literal(literal, span)
            case Seq(items=items, span=span):
                return Seq(tuple(self._plain(item) for item in self._serial(items)), span)
            case JoinNode(node=inner):
                return self._plain(inner)
            case ForkNode(block=block, branch=branch, span=span):
                assert block.item is None, "a map and its process stand in one sequence"
                return Repeat(branch, block.low, block.high, span)
            case _:
                return rebuilt(node, map(self._plain, children(node)))

    def _serial(self, items: tuple[Node, ...]) -> Iterator[Node]:
        """`items` with every map, up to its process, replaced by its counted forms."""
        at = 0
        while at < len(items):
            item = items[at]
            if isinstance(item, MapNode):
                fork_at = next(
                    index
                    for index, other in enumerate(items)
                    if isinstance(other, ForkNode) and other.block is item.block
                )
                yield self._counted(items[at : fork_at + 1], item)
                at = fork_at
            else:
                yield item
            at += 1

    def _counted(self, items: tuple[Node, ...], listing: MapNode) -> Node:
        """For every count n: the list of n items, what stands between, n branches."""
        block, between = listing.block, items[1:-1]
        assert block.item is not None
        least = least_items(block, bodies(self._grammar.rules))
        most = max(self._limits.items, least, 1)
        if least > MOST_ITEMS:
            raise ExportError(
                f"the list of `{block.rule}` has {least} items at least; up to {MOST_ITEMS} can be "
                "spelled out"
            )
        numbers = self._numbers(block, most)
        lists = _CountedList(self, block, numbers)
        options = []
        for count in range(least, most + 1):
            listed = lists.exactly(listing.node, 0, count)
            if listed is not None:
                branches = [self.numbered(block.branch, block, numbers, n) for n in range(count)]
                options.append(Seq((listed, *between, *branches), listing.span))
        if lists.exactly(listing.node, 0, most + 1) is not None:
            self.lose(f"more than {most} items in `{block.rule}`")
        return Alt(tuple(options), listing.span)

    def _numbers(self, block: Block, most: int) -> _Numbers | None:
        """The terminal that is numbered and its values; says what of the binding is lost."""
        terminals = [self._grammar.terminals[name] for name in block.bound]
        label = next((t for t in terminals if t.kind in _VALUED), None)
        series = None if label is None else _series(label, most + 1)
        for terminal in terminals:
            if terminal is not label or series is None:
                self.lose(
                    f"`{block.branch}` need not repeat the `{terminal.name}` of its `{block.item}`"
                )
        if label is None or series is None:
            return None
        self.lose(
            f"`{label.name}` in `{block.item}` and `{block.branch}` is numbered "
            f"{series[0]}, {series[1]}, … in order; other labels are refused"
        )
        return label, series

    def numbered(self, rule: str, block: Block, numbers: _Numbers | None, index: int) -> Ref:
        """A use of `rule` with the label of item `index` (from 0)."""
        span = self._grammar.rules[rule].span
        if numbers is None:
            return Ref(rule, span)
        terminal, values = numbers
        return Ref(self._with_label(rule, terminal, values[index], block.bound), span)

    def _with_label(self, rule: str, label: Terminal, value: str, bound: tuple[str, ...]) -> str:
        def labelled() -> Node:
            return self._fix(self.sources[rule], label, value, bound)[0]

        name = self.variant(rule, (rule, label, value, bound), value, labelled)
        assert name is not None
        return name

    def _fix(
        self, node: Node, label: Terminal, value: str, bound: tuple[str, ...]
    ) -> tuple[Node, bool]:
        """`node` with its first `label` replaced by `value`, and whether the search is over.

        The very same `node` comes back where nothing was replaced.
        """
        match node:
            case Field(terminal=terminal, span=span) if terminal is label:
                return Literal(value, span), True
            case Field(terminal=terminal):
                return node, terminal.kind is TerminalKind.TEXT and terminal.name not in bound
            case Seq(items=items, span=span):
                fixed, over = [], False
                for item in items:
                    if not over:
                        item, over = self._fix(item, label, value, bound)
                    fixed.append(item)
                same = all(map(is_, fixed, items))
                return (node if same else Seq(tuple(fixed), span)), over
            case Ref(rule=rule, span=span):
                body, over = self._fix(self.sources[rule], label, value, bound)
                if body is self.sources[rule]:
                    return node, over
                return Ref(self._with_label(rule, label, value, bound), span), over
            case Alt(options=options, span=span):
                ways = [self._fix(option, label, value, bound) for option in options]
                if not any(over for _, over in ways):
                    return node, False
                if not all(over for _, over in ways):
                    return node, True  # some ways find it behind the choice: they are left alone
                same = all(
                    fixed is option for (fixed, _), option in zip(ways, options, strict=True)
                )
                return (node if same else Alt(tuple(fixed for fixed, _ in ways), span)), True
            case _:
                return node, isinstance(node, Repeat | MapNode | ForkNode | JoinNode)

    def variant(
        self, rule: str, key: tuple[object, ...], suffix: str, make: Callable[[], Node | None]
    ) -> str | None:
        """The name of the variant `key` of `rule`, made at its first use.

        None where it has no text: a turn of a recursion inside itself has none.
        """
        if key not in self._variants:
            self._variants[key] = None
            node = make()
            if node is not None:
                name = self._variants[key] = self._fresh(rule, suffix)
                self.sources[name] = node
        return self._variants[key]

    def _fresh(self, rule: str, suffix: str) -> str:
        """An unused rule name such as `plan_2`."""
        base = f"{rule}_{re.sub(r'[^a-z0-9]', '_', suffix.lower())}"
        name, turn = base, 1
        while name in self.origin:
            turn += 1
            name = f"{base}_{turn}"
        self.origin[name] = self.origin[rule]
        return name

    def lose(self, sentence: str) -> None:
        self.lost[sentence] = None


class _CountedList:
    """The list of one block with a chosen number of items."""

    def __init__(self, lineariser: _Lineariser, block: Block, numbers: _Numbers | None) -> None:
        self._lineariser = lineariser
        self._block = block
        self._numbers = numbers

    def exactly(self, node: Node, first: int, last: int) -> Node | None:
        """`node` with exactly the items first..last (`last` excluded); None if impossible."""
        if not self._lists(node, frozenset()):
            return node if first == last else None
        match node:
            case Ref(rule=rule) if rule == self._block.item:
                if last - first != 1:
                    return None
                return self._lineariser.numbered(rule, self._block, self._numbers, first)
            case Ref():
                return self._rule(node, first, last)
            case Seq(items=items, span=span):
                ways = self._sequence(items, first, last)
                return _choice([Seq(way, span) for way in ways], node)
            case Alt(options=options):
                kept = [self.exactly(option, first, last) for option in options]
                return _choice([option for option in kept if option is not None], node)
            case Repeat(node=inner, low=low, high=high, span=span):
                blank = self.exactly(inner, first, first)  # a turn without items
                turns = self._turns(inner, first, last, high)
                if blank is None:
                    return _choice([Seq(way, span) for way in turns if len(way) >= low], node)
                blanks = Repeat(blank, low, high, span)
                return _choice([Seq(self._among(blanks, way), span) for way in turns], node)
            case _:
                raise AssertionError(node)

    def _lists(self, node: Node, seen: frozenset[str]) -> bool:
        match node:
            case Ref(rule=rule):
                if rule == self._block.item:
                    return True
                source = self._lineariser.sources[rule]
                return rule not in seen and self._lists(source, seen | {rule})
            case Seq(items=items) | Alt(options=items):
                return any(self._lists(item, seen) for item in items)
            case Repeat(node=inner):
                return self._lists(inner, seen)
            case _:
                return False

    def _rule(self, node: Ref, first: int, last: int) -> Node | None:
        def counted() -> Node | None:
            return self.exactly(self._lineariser.sources[node.rule], first, last)

        key = ("list", self._block, node.rule, first, last)
        suffix = str(last) if first == 0 else f"{first}_{last}"
        name = self._lineariser.variant(node.rule, key, suffix, counted)
        return None if name is None else Ref(name, node.span)

    def _sequence(
        self, items: tuple[Node, ...], first: int, last: int
    ) -> Iterator[tuple[Node, ...]]:
        if not items:
            if first == last:
                yield ()
            return
        for middle in range(first, last + 1):
            head = self.exactly(items[0], first, middle)
            if head is not None:
                for rest in self._sequence(items[1:], middle, last):
                    yield (head, *rest)

    def _among(self, blanks: Repeat, turns: tuple[Node, ...]) -> tuple[Node, ...]:
        """The turns of a repetition, and others without items among them: anywhere, or behind them
        where turns are counted, as their order would make too many ways."""
        low, high = blanks.low, blanks.high
        if high is None and low <= len(turns):
            between = replace(blanks, low=0)
            return (between, *(part for turn in turns for part in (turn, between)))
        if turns and high != len(turns):
            self._lineariser.lose(
                f"in the list of `{self._block.rule}`, turns without `{self._block.item}` "
                "stand behind those with one"
            )
        more = None if high is None else high - len(turns)
        return (*turns, replace(blanks, low=max(low - len(turns), 0), high=more))

    def _turns(
        self, inner: Node, first: int, last: int, most: int | None
    ) -> Iterator[tuple[Node, ...]]:
        """Turns of a repetition that list at least one item each."""
        if first == last:
            yield ()
        elif most is None or most > 0:
            for middle in range(first + 1, last + 1):
                turn = self.exactly(inner, first, middle)
                if turn is not None:
                    fewer = None if most is None else most - 1
                    for rest in self._turns(inner, middle, last, fewer):
                        yield (turn, *rest)


def trim(rules: Bodies, start: str) -> dict[str, Node]:
    """The rules reachable from `start` that have a finite text; options that cannot end are
    dropped."""
    finite = {name for name, height in rule_heights(rules).items() if height <= len(rules)}
    kept: dict[str, Node] = {}
    pending = [start]
    while pending:
        name = pending.pop()
        if name not in kept:
            pruned = _prune(rules[name], finite)
            assert pruned is not None
            kept[name] = pruned
            pending.extend(references(pruned))
    return {name: kept[name] for name in rules if name in kept}


def _prune(node: Node, finite: Collection[str]) -> Node | None:
    """`node` without uses of rules that are not `finite`; None if that leaves no text."""
    if isinstance(node, Ref):
        return node if node.rule in finite else None
    inner = children(node)
    kept = [part for part in (_prune(part, finite) for part in inner) if part is not None]
    if isinstance(node, Alt):
        return rebuilt(node, kept) if kept else None
    if isinstance(node, Repeat) and not kept:
        return Seq((), node.span) if node.low == 0 else None
    return rebuilt(node, kept) if len(kept) == len(inner) else None


def _choice(ways: list[Node], node: Node) -> Node | None:
    if not ways:
        return None
    return ways[0] if len(ways) == 1 else Alt(tuple(ways), node.span)


def _series(label: Terminal, count: int) -> tuple[str, ...] | None:
    dfa = compile_regex(label.pattern)
    for series in _SERIES:
        values = tuple(series(index) for index in range(count))
        if all(dfa.accepts(value.encode()) for value in values):
            return values
    return None
