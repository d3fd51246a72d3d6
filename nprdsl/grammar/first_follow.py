"""FIRST and FOLLOW sets: what may begin a node of a grammar, and what may come behind it.

They are the sets of LL(1) parsing, over any alphabet: a function says what each leaf of a rule
contributes, so that the same sets serve the checks of tags, of free text, and the exports. With
each symbol a set says which content may stand before it: blank, full, or both. `PASS` is the
empty word of theory: the node may hold no symbol at all. `END` is the end of the trace.

Symbols are numbered, and a set is two integers with a bit for each symbol: thousands of sets over
thousands of symbols stay small. The sets inside a rule follow from the rule, the sets of the rules
that it uses, and what may come behind it; so they are kept with these for the next reading.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, partial

from nprdsl.grammar.ir import Field, ForkNode, Literal, Node, Ref, Repeat, Seq, Tag, children, nodes
from nprdsl.grammar.ir import TerminalKind as Kind
from nprdsl.grammar.walk import Bodies, Uses
from nprdsl.regular.dfa import may_be_blank
from nprdsl.regular.syntax import RegexError

LeafNode = Tag | Literal | Field


class Edge(StrEnum):
    """What stands in a set and is no symbol of the grammar."""

    PASS = "pass"
    END = "the end"


@dataclass(frozen=True, slots=True)
class Symbols:
    """A set: the symbols before which content may be blank (glue, or nothing), and those before
    which it may be full (more than white space), one bit for each."""

    blank: int = 0
    full: int = 0

    @property
    def any(self) -> int:
        """All symbols, whatever stands before them."""
        return self.blank | self.full

    @property
    def passes(self) -> bool:
        """Whether there may be no symbol at all."""
        return bool(self.any & _PASS)

    @property
    def passes_blank(self) -> bool:
        """Whether there may be neither symbol nor content."""
        return bool(self.blank & _PASS)

    @property
    def passes_full(self) -> bool:
        """Whether there may be content without a symbol."""
        return bool(self.full & _PASS)

    def __or__(self, other: Symbols) -> Symbols:
        if other is EMPTY or other is self:
            return self
        return Symbols(self.blank | other.blank, self.full | other.full)

    def then(self, after: Symbols) -> Symbols:
        """The set of what this one begins, before what `after` begins."""
        if not (self.blank | self.full) & _PASS:
            return self
        if self is EMPTY_WORD:
            return after
        blank, full = self.blank & ~_PASS, self.full & ~_PASS
        if self.blank & _PASS:
            blank, full = blank | after.blank, full | after.full
        if self.full & _PASS:
            full |= after.any
        return Symbols(blank, full)


_PASS = 1
_ALWAYS = (Edge.PASS, Edge.END)  # the symbols of every grammar
_DEAD = 64  # symbols of former texts, and as many as there were: then they are numbered anew
EMPTY = Symbols()
EMPTY_WORD = Symbols(blank=_PASS)
_AT_END = Symbols(blank=2)
_FULL_WORD = Symbols(full=_PASS)


def by_tag(leaf: LeafNode) -> object:
    """Symbols are the texts of tags; all else is content."""
    return leaf.text if isinstance(leaf, Tag) else Edge.PASS


def by_leaf(leaf: LeafNode) -> object:
    """Symbols are the leaves themselves; only glue is passed."""
    glue = isinstance(leaf, Field) and leaf.terminal.kind is Kind.GLUE
    return Edge.PASS if glue else leaf


def is_blank(leaf: Literal | Field) -> bool:
    """Glue, or a literal of white space."""
    if isinstance(leaf, Field):
        return leaf.terminal.kind is Kind.GLUE
    return not leaf.text.strip()


def is_value_of_blanks(leaf: Literal | Field) -> bool:
    """A value that may be white space alone, so that it may look as if it were not there."""
    if not isinstance(leaf, Field) or not leaf.terminal.pattern or is_blank(leaf):
        return False
    try:
        return may_be_blank(leaf.terminal.pattern)
    except RegexError:  # it is told for itself
        return False


@dataclass(frozen=True, slots=True)
class Undefined:
    """The symbol that stands for a rule without a body."""

    rule: str


@dataclass(slots=True)
class _RuleSets:
    """The sets inside one rule: of its leaves; its first one under those of the rules that it uses;
    and, under these and what may come behind the rule, what may come behind each of its nodes."""

    leaves: Mapping[LeafNode, Symbols]
    used: tuple[Symbols, ...] | None = None
    first: Symbols = EMPTY
    around: tuple[object, ...] = ()
    follow: Mapping[Node, Symbols] = field(default_factory=dict)
    calls: Sequence[tuple[str, Symbols]] = ()  # the rules that it uses, with what comes behind each


@dataclass(slots=True)
class KeptSets:
    """The numbers of symbols, and the sets inside each rule by its body. Symbols of former texts
    are among them."""

    symbols: list[object] = field(default_factory=lambda: [*_ALWAYS])
    sets: dict[object, Symbols] = field(default_factory=dict)
    rules: dict[Node, _RuleSets] = field(default_factory=dict)
    most: int = 0  # symbols, before they are numbered anew


class FirstFollow:
    """The sets of `rules`, of which `start` is followed by the end.

    `follow[node]` is what may come behind a node, wherever its rule is used. `leaf` gives the
    symbol of a leaf, `Edge.PASS` for content. What is `kept`, by the same `leaf`, is used, and
    replaced.
    """

    def __init__(
        self,
        rules: Bodies,
        start: str,
        leaf: Callable[[LeafNode], object],
        uses: Uses | None = None,
        kept: KeptSets | None = None,
    ) -> None:
        self._rules = rules
        self.uses = uses or Uses.of(rules)
        known = KeptSets() if kept is None or len(kept.symbols) > kept.most else kept
        self._anew = partial(FirstFollow, rules, start, leaf, self.uses)
        self._numbered_before = len(known.symbols) > len(_ALWAYS)
        self._symbols, self._sets = known.symbols, known.sets
        self._inside = self._insides(known.rules, leaf)
        if kept is not None:
            kept.symbols, kept.sets = known.symbols, known.sets
            kept.rules = dict(zip(rules.values(), self._inside.values(), strict=True))
            kept.most = known.most or 2 * len(known.symbols) + _DEAD
        self._leaves: dict[LeafNode, Symbols] = {}
        for sets in self._inside.values():
            self._leaves.update(sets.leaves)
        self._known: dict[Node, Symbols] = {}
        self._firsts = self.uses.at_rest(EMPTY, self._first_of)
        self._behind(start)
        self.follow: dict[Node, Symbols] = {}
        for sets in self._inside.values():
            self.follow.update(sets.follow)

    def first(self, node: Node) -> Symbols:
        """What may come first in `node`; a rule without a body is a symbol of its own."""
        return self._first(node, self._firsts, self._known)

    def after(self, node: Node) -> Symbols:
        """What may come behind `node`; nothing if it is never reached."""
        return self.follow.get(node, EMPTY)

    def named(self, bits: int) -> Iterator[object]:
        """The symbols of some bits, in the order of the rules."""
        symbols = []
        while bits:
            lowest = bits & -bits
            symbols.append(self._symbols[lowest.bit_length() - 1])
            bits ^= lowest
        if len(symbols) > 1 and self._numbered_before:
            symbols.sort(key=self._places.__getitem__)
        yield from symbols

    @cached_property
    def _places(self) -> dict[object, int]:
        """The numbers of symbols that are numbered for these rules alone."""
        return {symbol: n for n, symbol in enumerate(self._anew()._symbols)}

    def bits(self, chosen: Callable[[object], bool]) -> int:
        """The bits of the symbols that are `chosen`."""
        return sum(1 << n for n, symbol in enumerate(self._symbols) if chosen(symbol))

    def _insides(
        self, kept: Mapping[Node, _RuleSets], leaf: Callable[[LeafNode], object]
    ) -> dict[str, _RuleSets]:
        """The sets inside each rule, those of its leaves known."""
        inside = {}
        for name, body in self._rules.items():
            sets = kept.get(body)
            if sets is None:
                leaves = (n for n in nodes(body) if isinstance(n, (Tag, Literal, Field)))
                sets = _RuleSets({inner: self._leaf(inner, leaf) for inner in leaves})
            inside[name] = sets
        return inside

    def _set_of(self, symbol: object) -> Symbols:
        if symbol not in self._sets:
            self._sets[symbol] = Symbols(blank=1 << len(self._symbols))
            self._symbols.append(symbol)
        return self._sets[symbol]

    def _leaf(self, leaf: LeafNode, symbol_of: Callable[[LeafNode], object]) -> Symbols:
        symbol = symbol_of(leaf)
        if symbol is not Edge.PASS or isinstance(leaf, Tag):
            return self._set_of(symbol)
        if is_blank(leaf):
            return EMPTY_WORD
        return EMPTY_WORD | _FULL_WORD if is_value_of_blanks(leaf) else _FULL_WORD

    def _first(
        self, node: Node, firsts: Mapping[str, Symbols], known: dict[Node, Symbols]
    ) -> Symbols:
        """`first` under the sets that rules are known to have so far."""
        if isinstance(node, Ref):
            found = firsts.get(node.rule)
            return self._set_of(Undefined(node.rule)) if found is None else found
        if isinstance(node, (Tag, Literal, Field)):
            return self._leaves[node]
        first = known.get(node)
        if first is None:
            if isinstance(node, Seq):
                first = EMPTY_WORD
                for item in node.items:
                    if not first.passes:
                        break
                    first = first.then(self._first(item, firsts, known))
            else:
                first = EMPTY
                for inner in children(node):
                    first |= self._first(inner, firsts, known)
                if isinstance(node, Repeat) and node.low == 0:
                    first |= EMPTY_WORD
            known[node] = first
        return first

    def _first_of(self, name: str, firsts: Mapping[str, Symbols]) -> Symbols:
        """What may come first in a rule."""
        sets, used = self._inside[name], tuple([firsts[used] for used in self.uses.used[name]])
        if sets.used != used:
            sets.used, sets.first = used, self._first(self._rules[name], firsts, {})
        return sets.first

    def _behind(self, start: str) -> None:
        """Find what may come behind the nodes of each rule."""
        behind = dict.fromkeys(self._rules, EMPTY)
        behind[start] = _AT_END
        pending = deque(reversed(self._firsts))  # a rule before those that it uses
        queued = set(pending)
        while pending:
            name = pending.popleft()
            queued.discard(name)
            for rule, after in self._calls(name, behind[name]):
                if (new := behind[rule] | after) != behind[rule]:
                    behind[rule] = new
                    if rule not in queued:
                        queued.add(rule)
                        pending.append(rule)

    def _calls(self, name: str, behind: Symbols) -> Sequence[tuple[str, Symbols]]:
        """The rules that a rule uses, each with what may come behind it there."""
        sets = self._inside[name]
        around = behind, *(self._firsts[used] for used in self.uses.used[name])
        if sets.around != around:
            found = self._following(self._rules[name], behind)
            refs = ((ref.rule, after) for ref, after in found if isinstance(ref, Ref))
            sets.calls = [(rule, after) for rule, after in refs if rule in self._rules]
            sets.around, sets.follow = around, dict(found)
        return sets.calls

    def _following(self, node: Node, after: Symbols) -> list[tuple[Node, Symbols]]:
        """`node` and all inside it, each with what may come behind it."""
        found, pending = [], [(node, after)]
        while pending:
            node, after = pending.pop()
            found.append((node, after))
            if isinstance(node, (Tag, Literal, Field, Ref)):
                continue
            match node:
                case Seq():
                    for item in reversed(node.items):
                        pending.append((item, after))
                        after = self.first(item).then(after)
                case Repeat(node=inner, high=high) if high != 1:
                    pending.append((inner, self.first(inner).then(after) | after))
                case ForkNode(branch=inner):
                    pending.append((inner, self.first(inner).then(after) | after))
                case _:
                    pending.extend((inner, after) for inner in children(node))
        return found
