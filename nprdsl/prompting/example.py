"""The example of a schema's format: a short legal trace with placeholders for its texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from nprdsl.grammar import ir
from nprdsl.grammar.walk import bodies, height, nodes, references, rule_heights
from nprdsl.regular.dfa import Dfa, compile_regex

LONGER = 3  # bytes by which an example may be longer than the automaton has states
READABLE_FIRST = sorted(range(256), key=lambda byte: (not bytes([byte]).isalnum(), byte))
# Values to try for a terminal in the example, before its pattern is asked for one.
SIMPLE_VALUES = ("1", "a", "A", "yes", "true", "0", "0.5", "x")


def skeleton(grammar: ir.Grammar) -> str:
    """A short legal trace: two items in every list, every optional part once, canonical glue."""
    return _Example(grammar).text()


class _Example:
    """Writes the skeleton of one grammar."""

    def __init__(self, grammar: ir.Grammar) -> None:
        self._grammar = grammar
        self._parts: list[str] = []
        self._open: list[str] = []  # rules being written
        self._met: set[str] = set()  # rules written, or being written
        self._place: list[str] = []  # numbers of the items and branches being written
        self._map: ir.Block | None = None
        self._listed: dict[int, list[list[tuple[str, str]]]] = {}
        self._item: list[tuple[str, str]] | None = None
        self._forced: list[tuple[str, str]] = []
        self._heights = rule_heights(bodies(grammar.rules))

    def text(self) -> str:
        self._rule(self._grammar.start)
        return "".join(self._parts)

    def _write(self, node: ir.Node) -> None:
        match node:
            case ir.Tag() | ir.Literal():
                self._parts.append(node.text)
            case ir.Field():
                self._field(node.terminal)
            case ir.Ref():
                self._rule(node.rule)
            case ir.Seq():
                for item in node.items:
                    self._write(item)
            case ir.Alt():
                self._write(self._choose(node.options))
            case ir.Repeat():
                for _ in range(self._turns(node)):
                    self._write(node.node)
            case ir.MapNode():
                self._list(node)
            case ir.ForkNode():
                self._fork(node)
            case ir.JoinNode():
                self._write(node.node)

    def _field(self, terminal: ir.Terminal) -> None:
        if terminal.kind is ir.TerminalKind.GLUE:
            self._parts.append(terminal.literal)
            return
        if self._forced and self._forced[0][0] == terminal.name:
            self._parts.append(self._forced.pop(0)[1])
            return
        value = self._value(terminal)
        if self._item is not None and self._map is not None:
            captured = len(self._item)
            if self._map.bound[captured : captured + 1] == (terminal.name,):
                self._item.append((terminal.name, value))
        self._parts.append(value)

    def _value(self, terminal: ir.Terminal) -> str:
        if terminal.kind is ir.TerminalKind.TEXT:
            name = "text" if terminal.name == "TEXT" else terminal.name.lower()
            place = f" {self._place[-1]}" if self._place else ""
            return f"({name} of {self._open[-1]}{place})"
        if self._item is not None and self._map is not None and terminal.name in self._map.bound:
            return example_value(terminal, self._taken(terminal.name))
        return example_value(terminal)

    def _taken(self, name: str) -> set[str]:
        assert self._map is not None
        listed = self._listed[self._map.index]
        return {value for item in listed for bound, value in item if bound == name}

    def _rule(self, name: str) -> None:
        is_item = self._map is not None and self._item is None and self._map.item == name
        if is_item and self._map is not None:
            self._item = []
            self._place.append(str(len(self._listed[self._map.index]) + 1))
        self._open.append(name)
        self._met.add(name)
        self._write(self._grammar.rules[name].node)
        self._open.pop()
        if is_item and self._map is not None and self._item is not None:
            self._listed[self._map.index].append(self._item)
            self._item = None
            self._place.pop()

    def _list(self, node: ir.MapNode) -> None:
        outer = self._map, self._item
        self._map, self._item = node.block, None
        self._listed[node.block.index] = []
        self._write(node.node)
        self._map, self._item = outer

    def _fork(self, node: ir.ForkNode) -> None:
        block = node.block
        if block.item is None:
            count = max(block.low, 2) if block.high is None else min(max(block.low, 2), block.high)
            items: list[list[tuple[str, str]]] = [[] for _ in range(count)]
        else:
            items = self._listed[block.index]
        outer = self._map, self._item, self._forced
        self._map = self._item = None
        for number, item in enumerate(items, 1):
            self._forced = list(item)
            self._place.append(str(number))
            self._write(node.branch)
            self._place.pop()
        self._map, self._item, self._forced = outer

    def _turns(self, node: ir.Repeat) -> int:
        turns = node.low
        listing = self._map is not None and self._item is None
        if listing and self._map is not None and self._map.item in references(node.node):
            turns = max(turns, 2)
        elif not turns and self._adds(node.node):
            turns = 1
        return turns if node.high is None else min(turns, node.high)

    def _choose(self, options: Iterable[ir.Node]) -> ir.Node:
        """The option that shows most, among those that do not nest a rule in itself."""
        options = tuple(options)
        flat = [o for o in options if not set(self._open) & set(references(o))]
        if not flat:
            return min(options, key=lambda o: height(o, self._heights))
        return max(flat, key=lambda o: (len(references(o)), sum(1 for _ in nodes(o)), _has_text(o)))

    def _adds(self, node: ir.Node) -> bool:
        """Whether an optional part shows something that was not shown yet."""
        named = set(references(node))
        return not named & set(self._open) and (not named or bool(named - self._met))


def _has_text(node: ir.Node) -> bool:
    return isinstance(node, ir.Field) and node.terminal.kind is ir.TerminalKind.TEXT


def example_value(terminal: ir.Terminal, taken: Iterable[str] = ()) -> str:
    """A value of a regular or typed terminal that is not among `taken`, a number if it may be.

    Where all values are taken, one of them.
    """
    pattern = re.compile(terminal.pattern, re.ASCII)
    used = set(taken)
    for value in (*(str(n + 1) for n in range(len(used) + 1)), *SIMPLE_VALUES):
        if value not in used and pattern.fullmatch(value):
            return value
    found = _words(compile_regex(terminal.pattern))
    return next((value for value in found if value not in used), next(iter(used), ""))


def _words(dfa: Dfa) -> Iterator[str]:
    """Words of an automaton over bytes, short ones first, letters before signs."""
    rest = dfa.distance.tolist()
    for length in range(rest[dfa.start], len(rest) + LONGER):
        yield from (word.decode() for word in _words_of(dfa, rest, dfa.start, length))


def _words_of(dfa: Dfa, rest: list[int], state: int, length: int) -> Iterator[bytes]:
    """The words of `length` bytes from `state` on; `rest` is `dfa.distance`."""
    if length == 0 and dfa.accepting[state]:
        yield b""
    if length == 0:
        return
    for byte in READABLE_FIRST:
        after = int(dfa.table[state, byte])
        if rest[after] < length:
            for word in _words_of(dfa, rest, after, length - 1):
                yield bytes([byte]) + word
