"""Pictures of a schema: an indented tree for a terminal, SVG, and a Mermaid flowchart.

All three draw the same outline of the grammar: rules inside the rules that use them, with maps,
forks and joins in the order in which a trace runs. A rule is drawn where it is met first and only
named after that, so that recursion ends. Glue is left out: it carries no meaning.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby

from nprdsl.grammar import ir
from nprdsl.pictures.svg import (
    FAINT,
    INK,
    LINE,
    PAPER,
    PLAIN,
    TINTS,
    Drawing,
    mermaid_label,
    text_width,
)


class OutlineKind(StrEnum):
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
class OutlineItem:
    """One thing in the outline; `note` says how often or how it happens."""

    kind: OutlineKind
    name: str = ""
    note: str = ""
    words: tuple[Word, ...] = ()
    children: tuple[OutlineItem, ...] = ()


def outline(grammar: ir.Grammar) -> OutlineItem:
    """The start rule, with everything reachable from it inside."""
    return _Outliner(grammar).rule(grammar.start)


class _Outliner:
    """Makes one outline; remembers the rules that are shown."""

    def __init__(self, grammar: ir.Grammar) -> None:
        self._rules = grammar.rules
        self._shown: set[str] = set()

    def rule(self, name: str) -> OutlineItem:
        if name in self._shown:
            return OutlineItem(OutlineKind.AGAIN, name)
        self._shown.add(name)
        return OutlineItem(OutlineKind.RULE, name, children=self._items(self._rules[name].node))

    def _items(self, node: ir.Node) -> tuple[OutlineItem, ...]:
        """The items of a sequence; neighbouring words share a line."""
        items: list[OutlineItem] = []
        for inner in node.items if isinstance(node, ir.Seq) else (node,):
            for item in self._item(inner):
                if items and _is_plain_line(items[-1]) and _is_plain_line(item):
                    items[-1] = replace(items[-1], words=items[-1].words + item.words)
                else:
                    items.append(item)
        return tuple(items)

    def _item(self, node: ir.Node) -> Iterator[OutlineItem]:
        if isinstance(node, ir.Seq):
            yield from self._items(node)
        elif isinstance(node, ir.Ref):
            yield self.rule(node.rule)
        elif isinstance(node, ir.Repeat):
            if inside := self._items(node.node):
                yield _noted(inside, times(node.low, node.high))
        elif isinstance(node, ir.Alt):
            yield from self._choice(node)
        elif isinstance(node, ir.MapNode):
            note, inside = f"lists {node.block.item}", self._items(node.node)
            yield OutlineItem(OutlineKind.MAP, "map", note, (), inside)
        elif isinstance(node, ir.ForkNode):
            branch = self.rule(node.branch.rule)
            yield OutlineItem(OutlineKind.FORK, "fork", _fork_note(node.block), (), (branch,))
        elif isinstance(node, ir.JoinNode):
            name, inside = str(node.block.join), self._items(node.node)
            yield OutlineItem(OutlineKind.JOIN, name, _JOIN_NOTES[node.block.join], (), inside)
        elif (word := _word(node)) is not None:
            yield OutlineItem(OutlineKind.LINE, words=(word,))

    def _choice(self, node: ir.Alt) -> Iterator[OutlineItem]:
        options = [self._items(option) for option in node.options]
        shown = [option for option in options if option]
        if not shown:
            return
        if len(shown) == 1:
            yield _noted(shown[0], "optional")
            return
        children = tuple(_one(option) for option in shown)
        note = "one of these" if len(shown) == len(options) else "one of these, or nothing"
        yield OutlineItem(OutlineKind.CHOICE, "choice", note, (), children)


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


def _is_plain_line(item: OutlineItem) -> bool:
    return item.kind is OutlineKind.LINE and not item.note


def _one(items: tuple[OutlineItem, ...]) -> OutlineItem:
    return items[0] if len(items) == 1 else OutlineItem(OutlineKind.GROUP, children=items)


def _noted(items: tuple[OutlineItem, ...], note: str) -> OutlineItem:
    """The items as one, with a note; a group where the one has a note already."""
    one = _one(items)
    if one.note:
        one = OutlineItem(OutlineKind.GROUP, children=(one,))
    return replace(one, note=note)


# -- for a terminal --------------------------------------------------------------------------------


def schema_text(grammar: ir.Grammar) -> str:
    """The rules of a schema as an indented tree: tags, terminals, repetitions, forks and joins.

    A rule is drawn out where it stands first; `↑` marks it where it stands again.
    """
    return "\n".join(_lines(outline(grammar), "", "")) + "\n"


def _lines(item: OutlineItem, first: str, rest: str) -> Iterator[str]:
    yield first + _head(item)
    last = len(item.children) - 1
    for index, child in enumerate(item.children):
        branch, stem = ("└─ ", "   ") if index == last else ("├─ ", "│  ")
        yield from _lines(child, rest + branch, rest + stem)


def _head(item: OutlineItem) -> str:
    name = item.name
    if item.kind is OutlineKind.LINE:
        name = " ".join(word.text for word in item.words)
    elif item.kind is OutlineKind.AGAIN:
        name = f"{item.name} ↑"
    elif item.kind is OutlineKind.GROUP:
        return f"({item.note})" if item.note else "in turn"
    separator = ": " if item.kind in {OutlineKind.MAP, OutlineKind.FORK, OutlineKind.JOIN} else "  "
    return f"{name}{separator}{item.note}" if item.note else name


# -- SVG -------------------------------------------------------------------------------------------


PAD, GAP, HEAD, PILL, BAR, SHADOW = 10, 8, 24, 24, 28, 5
STAGES = {OutlineKind.MAP: TINTS[0], OutlineKind.FORK: TINTS[1], OutlineKind.JOIN: TINTS[2]}
WORDS = {WordKind.TAG: TINTS[4], WordKind.LITERAL: PLAIN, WordKind.TERMINAL: (PAPER, LINE)}


@dataclass(frozen=True)
class _Box(ABC):
    """A box knows its size before anything is drawn: it is laid out from the inside out."""

    width: float
    height: float

    @abstractmethod
    def draw(self, drawing: Drawing, x: float, y: float) -> None: ...


@dataclass(frozen=True)
class _Pills(_Box):
    """Words in a row."""

    item: OutlineItem

    def draw(self, drawing: Drawing, x: float, y: float) -> None:
        for word in self.item.words:
            fill, stroke = WORDS[word.kind]
            width = _pill_width(word.text)
            radius = PILL / 2 if word.kind is WordKind.TERMINAL else 4
            drawing.rect(x, y, width, PILL, fill=fill, stroke=stroke, radius=radius)
            drawing.text(x + width / 2, y + 16, word.text, anchor="middle")
            x += width + 6
        if self.item.note:
            drawing.text(x + 4, y + 16, self.item.note, size=11, fill=FAINT)


@dataclass(frozen=True)
class _Container(_Box):
    """A frame with a heading and its parts below one another; a rule drawn elsewhere has none."""

    item: OutlineItem
    parts: tuple[_Box, ...]
    tint: tuple[str, str]
    copies: int = 0  # of the frame, drawn behind it
    dashed: bool = False

    def draw(self, drawing: Drawing, x: float, y: float) -> None:
        fill, stroke = self.tint
        width, height = self.width - self.copies * SHADOW, self.height - self.copies * SHADOW
        for copy in range(self.copies, -1, -1):
            corner, dashed = (x + copy * SHADOW, y + copy * SHADOW), self.dashed
            drawing.rect(*corner, width, height, fill=fill, stroke=stroke, radius=6, dashed=dashed)
        _heading(drawing, x + PAD, y, self.item.name, self.item.note)
        y += HEAD if _has_heading(self.item) else PAD
        for part in self.parts:
            part.draw(drawing, x + PAD, y)
            y += part.height + GAP


@dataclass(frozen=True)
class _Stages(_Box):
    """Map, fork and join from left to right, a dark bar before and behind the branches."""

    stages: tuple[tuple[OutlineKind, _Box], ...]

    def draw(self, drawing: Drawing, x: float, y: float) -> None:
        middle = y + self.height / 2
        for kind, box in self.stages:
            if kind is OutlineKind.FORK:
                x = self._bar(drawing, x, y, middle)
            box.draw(drawing, x, middle - box.height / 2)
            x += box.width
            if kind is OutlineKind.FORK:
                x = self._bar(drawing, x, y, middle)

    def _bar(self, drawing: Drawing, x: float, y: float, middle: float) -> float:
        drawing.line(x, middle, x + BAR, middle, stroke=INK)
        drawing.rect(x + BAR / 2 - 2, y, 4, self.height, fill=INK, radius=2)
        return x + BAR


def _heading(drawing: Drawing, x: float, y: float, name: str, note: str) -> None:
    if name:
        drawing.text(x, y + 16, name, bold=True)
        x += text_width(name) + 10
    if note:
        drawing.text(x, y + 16, note, size=11, fill=FAINT)


def _has_heading(item: OutlineItem) -> bool:
    return bool(item.name or item.note)


def _pill_width(text: str) -> float:
    return text_width(text) + 14


def _heading_width(name: str, note: str) -> float:
    return text_width(name) + (10 if name and note else 0) + text_width(note, 11)


def _box(item: OutlineItem) -> _Box:
    if item.kind is OutlineKind.LINE:
        width = sum(_pill_width(word.text) + 6 for word in item.words) - 6
        return _Pills(width + (text_width(item.note, 11) + 10 if item.note else 0), PILL, item)
    if item.kind is OutlineKind.AGAIN:
        named = replace(item, name=f"↑ {item.name}")
        width = _heading_width(named.name, named.note) + 2 * PAD
        return _Container(width, PILL, named, (), (PAPER, FAINT), dashed=True)
    copies = 2 if item.kind is OutlineKind.FORK else 0
    parts = _parts(item.children)
    inside = max((part.width for part in parts), default=0)
    head = _heading_width(item.name, item.note)
    width = max(inside, head) + 2 * PAD + copies * SHADOW
    height = sum(part.height + GAP for part in parts) - GAP + PAD
    height += (HEAD if _has_heading(item) else PAD) + copies * SHADOW
    tint = STAGES.get(item.kind, (PAPER, LINE))
    return _Container(width, height, item, parts, tint, copies)


def _parts(items: Sequence[OutlineItem]) -> tuple[_Box, ...]:
    """Boxes to stack; the stages of a block are one box."""
    parts: list[_Box] = []
    for staged, run in groupby(items, lambda item: item.kind in STAGES):
        if not staged:
            parts += [_box(item) for item in run]
            continue
        stages: list[tuple[OutlineKind, _Box]] = []
        for item in run:
            stages.append((item.kind, _box(item)))
            if item.kind is OutlineKind.JOIN:
                parts.append(_stages(stages))
                stages = []
    return tuple(parts)


def _stages(stages: Sequence[tuple[OutlineKind, _Box]]) -> _Stages:
    width = sum(box.width for _, box in stages) + 2 * BAR
    height = max(box.height for _, box in stages) + 2 * GAP
    return _Stages(width, height, tuple(stages))


def schema_svg(grammar: ir.Grammar) -> str:
    """The schema as one SVG document: tags, terminals, repetitions, forks and joins."""
    box = _box(outline(grammar))
    drawing = Drawing()
    box.draw(drawing, PAD, PAD)
    title = f"The language {grammar.name}" if grammar.name else "A language"
    return drawing.document(box.width + 2 * PAD, box.height + 2 * PAD, title)


# -- Mermaid ---------------------------------------------------------------------------------------


Ends = tuple[tuple[str, ...], tuple[str, ...]]  # nodes that are entered, nodes that are left


def schema_mermaid(grammar: ir.Grammar) -> str:
    """The schema as Mermaid text."""
    chart = _Chart()
    chart.draw(outline(grammar), 1)
    return "\n".join(["flowchart LR", *chart.lines]) + "\n"


class _Chart:
    """Writes one flowchart. A rule that holds other rules is a subgraph; a fork has thick arrows to
    one branch and to the dots that stand for the others."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._count = 0

    def draw(self, item: OutlineItem, depth: int) -> Ends:
        if item.kind is OutlineKind.LINE:
            return self._node(f'["{_words(item)}"]', depth)
        if item.kind is OutlineKind.AGAIN:
            return self._node(f'(["↑ {_title(item)}"])', depth)
        if item.kind is OutlineKind.FORK:
            return self._fork(item, depth)
        if item.kind is OutlineKind.JOIN:
            return self._join(item, depth)
        if all(child.kind is OutlineKind.LINE for child in item.children):
            lines = [_title(item), *(_words(child) for child in item.children)]
            return self._node(f'["{"<br/>".join(line for line in lines if line)}"]', depth)
        return self._subgraph(item, depth)

    def _node(self, shape: str, depth: int) -> Ends:
        name = self._name()
        self._line(f"{name}{shape}", depth)
        return (name,), (name,)

    def _subgraph(self, item: OutlineItem, depth: int) -> Ends:
        self._line(f'subgraph {self._name()}["{_title(item) or " "}"]', depth)
        if item.kind is OutlineKind.CHOICE:
            ends = [self.draw(child, depth + 1) for child in item.children]
            entries = tuple(name for entry, _ in ends for name in entry)
            exits = tuple(name for _, exit_ in ends for name in exit_)
        else:
            entries, exits = self._chain(item.children, depth + 1)
        self._line("end", depth)
        return entries, exits

    def _chain(self, items: tuple[OutlineItem, ...], depth: int) -> Ends:
        entries, exits = self.draw(items[0], depth)
        for item in items[1:]:
            begins, ends = self.draw(item, depth)
            self._arrows(exits, begins, "-->", depth)
            exits = ends
        return entries, exits

    def _fork(self, item: OutlineItem, depth: int) -> Ends:
        entries, forked = self._node(f'{{{{"{_title(item)}"}}}}', depth)
        begins, ends = self._chain(item.children, depth)
        others, _ = self._node('(["⋮"])', depth)
        self._arrows(forked, begins + others, "==>", depth)
        return entries, ends + others

    def _join(self, item: OutlineItem, depth: int) -> Ends:
        entries, joined = self._node(f'{{{{"{_title(item)}"}}}}', depth)
        if not item.children:
            return entries, joined
        begins, exits = self._chain(item.children, depth)
        self._arrows(joined, begins, "-->", depth)
        return entries, exits

    def _arrows(
        self, sources: tuple[str, ...], targets: tuple[str, ...], arrow: str, depth: int
    ) -> None:
        for source in sources:
            for target in targets:
                self._line(f"{source} {arrow} {target}", depth)

    def _name(self) -> str:
        self._count += 1
        return f"n{self._count}"

    def _line(self, text: str, depth: int) -> None:
        self.lines.append("    " * depth + text)


def _title(item: OutlineItem) -> str:
    return mermaid_label(" ".join(part for part in (item.name, item.note) if part))


def _words(item: OutlineItem) -> str:
    words = " ".join(word.text for word in item.words)
    return mermaid_label(f"{words} {item.note}".rstrip())
