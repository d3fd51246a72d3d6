"""A grammar as an outline: rules inside the rules that use them, with maps, forks and joins.

Every rule is shown where it is met first and named after that, so that recursion ends. Glue is left
out: it carries no meaning.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from nprdsl.grammar import ir


class ItemKind(StrEnum):
    LINE = "line"  # tags, literals and terminals in a row: `words`
    RULE = "rule"
    AGAIN = "again"  # a rule that is shown elsewhere
    GROUP = "group"
    CHOICE = "choice"
    MAP = "map"
    FORK = "fork"
    JOIN = "join"


class WordKind(StrEnum):
    TAG = "tag"
    LITERAL = "literal"
    TERMINAL = "terminal"


@dataclass(frozen=True, slots=True)
class Word:
    kind: WordKind
    text: str


@dataclass(frozen=True, slots=True)
class Item:
    """One thing in the outline; `note` says how often or how it happens."""

    kind: ItemKind
    name: str = ""
    note: str = ""
    words: tuple[Word, ...] = ()
    children: tuple[Item, ...] = ()


def outline(grammar: ir.Grammar) -> Item:
    """The start rule, with everything reachable from it inside."""
    return _Outliner(grammar).rule(grammar.start)


class _Outliner:
    def __init__(self, grammar: ir.Grammar) -> None:
        self._rules = grammar.rules
        self._shown: set[str] = set()

    def rule(self, name: str) -> Item:
        if name in self._shown:
            return Item(ItemKind.AGAIN, name)
        self._shown.add(name)
        return Item(ItemKind.RULE, name, children=self._items(self._rules[name].node))

    def _items(self, node: ir.Node) -> tuple[Item, ...]:
        """The items of a sequence; neighbouring words share a line."""
        found: list[Item] = []
        parts = node.items if isinstance(node, ir.Seq) else (node,)
        for part in parts:
            for item in self._item(part):
                if item.kind is ItemKind.LINE and found and _is_plain_line(found[-1], item):
                    found[-1] = replace(found[-1], words=found[-1].words + item.words)
                else:
                    found.append(item)
        return tuple(found)

    def _item(self, node: ir.Node) -> Iterator[Item]:
        if isinstance(node, ir.Seq):
            yield from self._items(node)
        elif isinstance(node, ir.Ref):
            yield self.rule(node.rule)
        elif isinstance(node, ir.Repeat):
            yield from self._repeat(node)
        elif isinstance(node, ir.Alt):
            yield from self._choice(node)
        elif isinstance(node, ir.MapNode):
            yield Item(ItemKind.MAP, "map", f"lists {node.block.item}", (), self._items(node.node))
        elif isinstance(node, ir.ForkNode):
            branch = self.rule(node.branch.rule)
            yield Item(ItemKind.FORK, "fork", _fork_note(node.block), (), (branch,))
        elif isinstance(node, ir.JoinNode):
            note = _JOIN_NOTES[node.block.join]
            yield Item(ItemKind.JOIN, str(node.block.join), note, (), self._items(node.node))
        elif (word := _word(node)) is not None:
            yield Item(ItemKind.LINE, words=(word,))

    def _repeat(self, node: ir.Repeat) -> Iterator[Item]:
        inside = self._items(node.node)
        if inside:
            yield _noted(inside, times(node.low, node.high))

    def _choice(self, node: ir.Alt) -> Iterator[Item]:
        options = [self._items(option) for option in node.options]
        written = [option for option in options if option]
        if not written:
            return
        if len(written) == 1:
            yield _noted(written[0], "optional")
            return
        children = tuple(_one(option) for option in written)
        note = "one of these" if len(written) == len(options) else "one of these, or nothing"
        yield Item(ItemKind.CHOICE, "choice", note, (), children)


_JOIN_NOTES = {
    ir.JoinKind.REDUCE: "sees every branch",
    ir.JoinKind.REREAD: "reads every branch again",
}


def _fork_note(block: ir.Block) -> str:
    if block.item is None:
        return f"{block.branch} {times(block.low, block.high)}, side by side"
    bound = f", same {' and '.join(block.bound)}" if block.bound else ""
    return f"one {block.branch} for each {block.item}{bound}"


def times(low: int, high: int | None) -> str:
    if high is None:
        return f"{low} or more times"
    return f"{low} times" if low == high else f"{low}…{high} times"


def _word(node: ir.Node) -> Word | None:
    if isinstance(node, ir.Tag):
        return Word(WordKind.TAG, node.text)
    if isinstance(node, ir.Literal):
        return Word(WordKind.LITERAL, json.dumps(node.text, ensure_ascii=False))
    if isinstance(node, ir.Field) and node.terminal.kind is not ir.TerminalKind.GLUE:
        return Word(WordKind.TERMINAL, node.terminal.name)
    return None


def _is_plain_line(before: Item, item: Item) -> bool:
    return before.kind is ItemKind.LINE and not before.note and not item.note


def _one(items: tuple[Item, ...]) -> Item:
    return items[0] if len(items) == 1 else Item(ItemKind.GROUP, children=items)


def _noted(items: tuple[Item, ...], note: str) -> Item:
    """The items as one, with a note; a group where the one has a note already."""
    one = _one(items)
    if one.note:
        one = Item(ItemKind.GROUP, children=(one,))
    return replace(one, note=note)
