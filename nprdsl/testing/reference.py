"""A second, slow reader of traces, against which the parser and the automata are tested.

It tries every way to read a text and keeps what fits, so it needs no look-ahead, no stack machine
and no automaton. It shares no code with what it judges, the walks and the first sets of
`nprdsl.grammar` included; only the syntax of regular expressions is read by the one parser. Tests
use it as the oracle of legality; mutations find in its tree where a fault can be put.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from nprdsl.grammar import ir
from nprdsl.regular.syntax import Chars, Concat, Regex, Times, Union, parse

WHITE_SPACE = " \t\n\r\f\v"
MOST_BOUND = 4  # fields of a branch that are read in every way


@dataclass(frozen=True, eq=False, slots=True)
class Tree:
    """One node of a grammar with the stretch of text, in characters, that it covers. `repeated` are
    the places of the first fields in it that a branch may have to repeat: readings that differ
    there are kept apart until the branch is compared with its item."""

    node: ir.Node
    start: int
    end: int
    children: tuple[Tree, ...] = ()
    repeated: tuple[tuple[int, int], ...] = ()

    def followed_by(self, child: Tree) -> Tree:
        """The tree with one child more."""
        repeated = (*self.repeated, *child.repeated)[:MOST_BOUND]
        return Tree(self.node, self.start, child.end, (*self.children, child), repeated)

    def leaves(self) -> Iterator[Tree]:
        if isinstance(self.node, ir.Tag | ir.Literal | ir.Field):
            yield self
        for child in self.children:
            yield from child.leaves()

    def walk(self) -> Iterator[Tree]:
        yield self
        for child in self.children:
            yield from child.walk()


class Unread(StrEnum):
    """What stands at the place where reading stopped."""

    TAG = "tag"
    TEXT = "text"
    END = "end"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The furthest place that any reading reached, what stands there, and what could have."""

    offset: int
    unread: Unread
    wanted: tuple[ir.Tag | ir.Literal | ir.Field, ...]
    miscounted: bool  # a branch too few or too many explains it
    blank: bool  # white space stands between the place and what was found
    surplus: bool  # one turn of a repetition too many explains it
    mislabelled: bool  # values that should be equal, or distinct, are not


class Reading:
    """One text read by one grammar. `tree` is None when the text is not legal, `refusal` then says
    why.

    Where a text can be read in two ways, which only glue beside free text allows, `tree` is the
    one with the longest glue. `max_depth` bounds the nesting of forks.
    """

    def __init__(self, grammar: ir.Grammar, text: str, max_depth: int | None = None) -> None:
        self._grammar = grammar
        self._text = text
        self._max_depth = max_depth
        self._bound = {name for block in grammar.blocks for name in block.bound}
        self._values: dict[str, str] = {}  # of the item whose branch is being read
        self._known: dict[tuple[object, ...], list[Tree]] = {}  # readings of rules, by place
        tags = [(m.start(), m.end()) for m in tag_pattern(grammar.tags).finditer(text)]
        self._tag_end = dict(tags)
        self._tag_starts = [start for start, _ in tags]
        self._far = -1
        self._wanted: list[ir.Tag | ir.Literal | ir.Field] = []
        self._miscounted: set[int] = set()
        self._surplus: set[int] = set()
        self._mislabelled: set[int] = set()
        rule = grammar.rules[grammar.start]
        readings = self._read(rule.node, 0, (), 0)
        self.tree = next((tree for tree in readings if tree.end == len(text)), None)
        for tree in readings:
            self._refuse(tree.end)

    @property
    def refusal(self) -> Refusal | None:
        if self.tree is not None:
            return None
        if self._mislabelled:  # found only behind the element, which is read to its end first
            offset = min(self._mislabelled)
        else:
            offset = max([self._far, *self._miscounted, *self._surplus])
        return Refusal(
            offset,
            self._unread(self._after_blank(offset)),
            tuple(self._wanted) if offset == self._far else (),
            offset in self._miscounted,
            self._after_blank(offset) > offset,
            offset in self._surplus,
            bool(self._mislabelled),
        )

    def _unread(self, offset: int) -> Unread:
        if offset >= len(self._text):
            return Unread.END
        return Unread.TAG if offset in self._tag_end else Unread.TEXT

    def _refuse(self, offset: int, *wanted: ir.Tag | ir.Literal | ir.Field) -> None:
        if offset > self._far:
            self._far, self._wanted = offset, []
        if offset == self._far:
            self._wanted += wanted

    def _read(self, node: ir.Node, start: int, before: tuple[Tree, ...], depth: int) -> list[Tree]:
        """Every reading of `node` from `start`; `before` holds what the rule has read so far."""
        match node:
            case ir.Tag() | ir.Literal() | ir.Field():
                ends = self._leaf_ends(node, start)
                if depth and isinstance(node, ir.Field) and node.terminal.name in self._bound:
                    return [Tree(node, start, end, (), ((start, end),)) for end in ends]
                return [Tree(node, start, end) for end in ends]
            case ir.Ref():
                inner = self._rule(node.rule, start, depth)
                return [Tree(node, start, tree.end, (tree,), tree.repeated) for tree in inner]
            case ir.Seq():
                return self._sequence(node, start, before, depth)
            case ir.Alt():
                inner = [t for o in node.options for t in self._read(o, start, before, depth)]
                return _distinct(
                    Tree(node, start, tree.end, (tree,), tree.repeated) for tree in inner
                )
            case ir.Repeat():

                def turn(at: int, _: int) -> list[Tree]:
                    return self._read(node.node, at, before, depth)

                return self._turns(node, start, node.low, node.high, turn)
            case ir.ForkNode():
                return self._fork(node, start, before, depth)
            case ir.MapNode() | ir.JoinNode():
                inner = self._read(node.node, start, before, depth)
                trees = [Tree(node, start, tree.end, (tree,)) for tree in inner]
                if isinstance(node, ir.JoinNode):
                    return trees
                return [tree for tree in trees if self._labels_differ(node.block, tree)]

    def _rule(self, name: str, start: int, depth: int) -> list[Tree]:
        """Every reading of a rule, which is worked out once for each place."""
        key = (name, start, depth, tuple(self._values.items()))
        if key not in self._known:
            self._known[key] = self._read(self._grammar.rules[name].node, start, (), depth)
        return self._known[key]

    def _leaf_ends(self, node: ir.Tag | ir.Literal | ir.Field, start: int) -> list[int]:
        """Where the leaf can end, longest first; notes a refusal when it cannot stand here."""
        ends = self._possible_ends(node, start)
        if not ends:
            self._refuse(start, node)
        return ends

    def _possible_ends(self, node: ir.Tag | ir.Literal | ir.Field, start: int) -> list[int]:
        if isinstance(node, ir.Tag):
            end = self._tag_end.get(start)
            return [end] if end is not None and self._text[start:end] == node.text else []
        index = bisect_left(self._tag_starts, start)
        limit = self._tag_starts[index] if index < len(self._tag_starts) else len(self._text)
        content = self._text[start:limit]
        if isinstance(node, ir.Literal):
            return [start + len(node.text)] if content.startswith(node.text) else []
        match node.terminal.kind:
            case ir.TerminalKind.GLUE:
                blank = len(content) - len(content.lstrip(WHITE_SPACE))
                return list(range(start + blank, start - 1, -1))
            case ir.TerminalKind.TEXT if node.terminal.name in self._bound:
                # a literal may stand behind a repeated text; of two readings the fitting one counts
                value = self._values.get(node.terminal.name)
                lengths = [n for n in range(len(content), 0, -1) if content[:n].strip(WHITE_SPACE)]
                lengths.sort(key=lambda n: content[:n] != value)
                return [start + length for length in lengths]
            case ir.TerminalKind.TEXT:
                return [limit] if content.strip(WHITE_SPACE) else []
            case ir.TerminalKind.REGULAR | ir.TerminalKind.TYPED:
                ends = _value_ends(_parsed(node.terminal.pattern), content, frozenset({0}))
                return [start + end for end in sorted(ends, reverse=True)]

    def _sequence(
        self, node: ir.Seq, start: int, before: tuple[Tree, ...], depth: int
    ) -> list[Tree]:
        partial = [Tree(node, start, start)]
        for item in node.items:
            partial = _distinct(
                so_far.followed_by(tree)
                for so_far in partial
                for tree in self._read(item, so_far.end, before + so_far.children, depth)
            )
        return partial

    def _turns(
        self,
        node: ir.Repeat | ir.ForkNode,
        start: int,
        low: int,
        high: int | None,
        read: Callable[[int, int], list[Tree]],
    ) -> list[Tree]:
        """Every reading of `low` to `high` turns; `read` reads one at an offset, by its number."""
        results: list[Tree] = []
        partial = [Tree(node, start, start)]
        while partial:
            count = len(partial[0].children)
            if count >= low:
                results = partial + results
            if count == high:
                break
            partial = _distinct(
                so_far.followed_by(tree)
                for so_far in partial
                for tree in read(so_far.end, count)
                if tree.end > so_far.end or count < low
            )
        turn = node.branch if isinstance(node, ir.ForkNode) else node.node
        for tree in partial:  # with `high` turns
            if self._opens(turn, tree.end):
                self._surplus.add(self._after_blank(tree.end))
        return _distinct(results)

    def _fork(
        self, node: ir.ForkNode, start: int, before: tuple[Tree, ...], depth: int
    ) -> list[Tree]:
        if self._max_depth is not None and depth >= self._max_depth:
            self._refuse(start)
            return []
        block = node.block
        if block.item is None:  # as many branches as there are, within the bounds

            def branch(at: int, count: int) -> list[Tree]:
                read = self._branch if count < block.low else self._read_branch
                return read(node, at, depth)

            return self._turns(node, start, block.low, block.high, branch)
        partial = [Tree(node, start, start)]
        outer = self._values
        for values in bound_of_items(self._text, block, before):
            self._values = dict(zip(block.bound, values, strict=False))
            partial = _distinct(
                replace(so_far.followed_by(tree), repeated=())
                for so_far in partial
                for tree in self._branch(node, so_far.end, depth)
                if self._agrees(block, tree, values)
            )
        self._values = outer
        for tree in partial:
            if self._opens(node.branch, tree.end):
                self._miscounted.add(self._after_blank(tree.end))
        return partial

    def _read_branch(self, node: ir.ForkNode, start: int, depth: int) -> list[Tree]:
        return self._read(node.branch, start, (), depth + 1)

    def _branch(self, node: ir.ForkNode, start: int, depth: int) -> list[Tree]:
        trees = self._read_branch(node, start, depth)
        if not trees and not self._opens(node.branch, start):
            self._miscounted.add(self._after_blank(start))
        return trees

    def _agrees(self, block: ir.Block, branch: Tree, values: tuple[str, ...]) -> bool:
        fields = bound_fields(block, branch)
        for field, value in zip(fields, values, strict=False):
            if value_of(self._text, field) != value:
                self._mislabelled.add(field.start)
                return False
        return len(fields) == len(values)

    def _labels_differ(self, block: ir.Block, listed: Tree) -> bool:
        seen: set[str] = set()
        for item in items_of(block, listed):
            label = label_field(block, item)
            if label is None:
                continue
            value = value_of(self._text, label)
            if value in seen:
                self._mislabelled.add(label.start)
                return False
            seen.add(value)
        return True

    def _opens(self, node: ir.Node, start: int) -> bool:
        """Whether the next tag, stray text before it or not, could be the first of `node`."""
        index = bisect_left(self._tag_starts, start)
        if index == len(self._tag_starts):
            return False
        at = self._tag_starts[index]
        tags, _ = _first(self._grammar, node, frozenset())
        return self._text[at : self._tag_end[at]] in tags

    def _after_blank(self, start: int) -> int:
        rest = self._text[start:]
        return start + len(rest) - len(rest.lstrip(WHITE_SPACE))


@lru_cache(maxsize=64)
def derive(grammar: ir.Grammar, text: str) -> Tree | None:
    """The tree of a legal text, or None."""
    return Reading(grammar, text).tree


def tag_pattern(tags: Iterable[str]) -> re.Pattern[str]:
    """Any of the tags; matches nothing when there are none."""
    spelled = [re.escape(tag) for tag in sorted(tags, key=len, reverse=True)]
    return re.compile("|".join(spelled) or r"(?!)")


@lru_cache
def value_pattern(terminal: ir.Terminal) -> re.Pattern[str]:
    """The compiled pattern of a regular or typed terminal."""
    return re.compile(terminal.pattern, re.ASCII)


_parsed = lru_cache(parse)


def _value_ends(regex: Regex, text: str, starts: frozenset[int]) -> frozenset[int]:
    """Where matches of the expression end that begin at one of `starts`."""
    match regex:
        case Chars():
            return frozenset(
                at + 1 for at in starts if at < len(text) and _holds(regex, ord(text[at]))
            )
        case Concat(parts=parts):
            for part in parts:
                starts = _value_ends(part, text, starts)
            return starts
        case Union(options=options):
            return frozenset().union(*(_value_ends(option, text, starts) for option in options))
        case Times(regex=inner, low=low, high=high):
            for _ in range(low):
                starts = _value_ends(inner, text, starts)
            ends, turns = starts, low
            while starts and (high is None or turns < high):
                starts, turns = _value_ends(inner, text, starts) - ends, turns + 1
                ends |= starts
            return ends


def _holds(chars: Chars, letter: int) -> bool:
    return any(low <= letter <= high for low, high in chars.ranges)


def value_of(text: str, leaf: Tree) -> str:
    """The value that a bound field is compared by, character by character."""
    return text[leaf.start : leaf.end]


def items_of(block: ir.Block, tree: Tree) -> list[Tree]:
    """The items that a map's tree lists, in order; items of other maps inside it are not looked
    into.
    """
    if isinstance(tree.node, ir.Ref) and tree.node.rule == block.item:
        return [tree]
    if isinstance(tree.node, ir.MapNode) and tree.node.block is not block:
        return []
    return [item for child in tree.children for item in items_of(block, child)]


def bound_fields(block: ir.Block, element: Tree) -> list[Tree]:
    """The leaves of an item or a branch that are bound, in the order of `block.bound`."""
    names = list(block.bound)
    fields: list[Tree] = []
    for leaf in element.leaves():
        if not names:
            break
        if isinstance(leaf.node, ir.Field) and leaf.node.terminal.name == names[0]:
            fields.append(leaf)
            names.pop(0)
    return fields


def label_field(block: ir.Block, element: Tree) -> Tree | None:
    """The first bound regular terminal: what must differ between the items of one map."""
    for field in bound_fields(block, element):
        if isinstance(field.node, ir.Field) and field.node.terminal.kind is ir.TerminalKind.REGULAR:
            return field
    return None


def bound_of_items(text: str, block: ir.Block, before: tuple[Tree, ...]) -> list[tuple[str, ...]]:
    """The bound values of each item that the block's map, among `before`, has listed."""
    for tree in reversed(before):
        for inner in tree.walk():
            if isinstance(inner.node, ir.MapNode) and inner.node.block is block:
                items = items_of(block, inner)
                return [
                    tuple(value_of(text, f) for f in bound_fields(block, item)) for item in items
                ]
    return []


def is_field(node: ir.Node, *kinds: ir.TerminalKind) -> bool:
    return isinstance(node, ir.Field) and node.terminal.kind in kinds


def _first(
    grammar: ir.Grammar, node: ir.Node, inside: frozenset[str]
) -> tuple[frozenset[str], bool]:
    """The tags that can come first in `node`, past glue and fields, and whether it needs none."""
    none: frozenset[str] = frozenset()
    match node:
        case ir.Tag():
            return frozenset({node.text}), False
        case ir.Literal() | ir.Field():
            return none, True
        case ir.Ref():
            if node.rule in inside:
                return none, False
            return _first(grammar, grammar.rules[node.rule].node, inside | {node.rule})
        case ir.Seq():
            tags = none
            for item in node.items:
                more, tagless = _first(grammar, item, inside)
                tags |= more
                if not tagless:
                    return tags, False
            return tags, True
        case ir.Alt():
            firsts = [_first(grammar, option, inside) for option in node.options]
            return none.union(*(tags for tags, _ in firsts)), any(empty for _, empty in firsts)
        case ir.Repeat():
            tags, tagless = _first(grammar, node.node, inside)
            return tags, tagless or node.low == 0
        case ir.ForkNode():
            return _first(grammar, node.branch, inside)
        case ir.MapNode() | ir.JoinNode():
            return _first(grammar, node.node, inside)


def _distinct(trees: Iterable[Tree]) -> list[Tree]:
    """The first reading for each end, and for each way to read what a branch repeats."""
    kept: dict[tuple[int, tuple[tuple[int, int], ...]], Tree] = {}
    for tree in trees:
        kept.setdefault((tree.end, tree.repeated), tree)
    return list(kept.values())
