"""A schema as SVG: rules as boxes in the boxes of their users; blocks run left to right.

Every box knows its size before anything is drawn, so that a box is laid out from the inside out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from nprdsl.grammar import ir
from nprdsl.pictures.outline import Item, ItemKind, WordKind, outline
from nprdsl.pictures.svg import FAINT, INK, LINE, PAPER, PLAIN, TINTS, Drawing, text_width

PAD, GAP, HEAD, PILL, BAR, SHADOW = 10, 8, 24, 24, 28, 5
STAGES = {ItemKind.MAP: TINTS[0], ItemKind.FORK: TINTS[1], ItemKind.JOIN: TINTS[2]}
WORDS = {
    WordKind.TAG: TINTS[4],
    WordKind.LITERAL: PLAIN,
    WordKind.TERMINAL: (PAPER, LINE),
}


@dataclass(frozen=True)
class _Box(ABC):
    width: float
    height: float

    @abstractmethod
    def draw(self, drawing: Drawing, x: float, y: float) -> None: ...


@dataclass(frozen=True)
class _Pills(_Box):
    """Words in a row."""

    item: Item

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
class _Again(_Box):
    """The name of a rule that is drawn elsewhere."""

    item: Item

    def draw(self, drawing: Drawing, x: float, y: float) -> None:
        drawing.rect(x, y, self.width, self.height, fill=PAPER, stroke=FAINT, radius=6, dashed=True)
        _heading(drawing, x + PAD, y, f"↑ {self.item.name}", self.item.note)


@dataclass(frozen=True)
class _Container(_Box):
    """A frame with a heading and its parts below one another."""

    item: Item
    parts: tuple[_Box, ...]
    tint: tuple[str, str]
    copies: int = 0  # of the frame, drawn behind it

    def draw(self, drawing: Drawing, x: float, y: float) -> None:
        fill, stroke = self.tint
        width, height = self.width - self.copies * SHADOW, self.height - self.copies * SHADOW
        for copy in range(self.copies, -1, -1):
            at = copy * SHADOW
            drawing.rect(x + at, y + at, width, height, fill=fill, stroke=stroke, radius=6)
        _heading(drawing, x + PAD, y, self.item.name, self.item.note)
        y += HEAD if _has_heading(self.item) else PAD
        for part in self.parts:
            part.draw(drawing, x + PAD, y)
            y += part.height + GAP


@dataclass(frozen=True)
class _Stages(_Box):
    """Map, fork and join from left to right, a dark bar before and behind the branches."""

    stages: tuple[tuple[ItemKind, _Box], ...]

    def draw(self, drawing: Drawing, x: float, y: float) -> None:
        middle = y + self.height / 2
        for kind, box in self.stages:
            if kind is ItemKind.FORK:
                x = self._bar(drawing, x, y, middle)
            box.draw(drawing, x, middle - box.height / 2)
            x += box.width
            if kind is ItemKind.FORK:
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


def _has_heading(item: Item) -> bool:
    return bool(item.name or item.note)


def _pill_width(text: str) -> float:
    return text_width(text) + 14


def _heading_width(name: str, note: str) -> float:
    return text_width(name) + (10 if name and note else 0) + text_width(note, 11)


def _box(item: Item) -> _Box:
    if item.kind is ItemKind.LINE:
        width = sum(_pill_width(word.text) + 6 for word in item.words) - 6
        return _Pills(width + (text_width(item.note, 11) + 10 if item.note else 0), PILL, item)
    if item.kind is ItemKind.AGAIN:
        width = _heading_width(f"↑ {item.name}", item.note) + 2 * PAD
        return _Again(width, PILL, item)
    copies = 2 if item.kind is ItemKind.FORK else 0
    parts = _parts(item.children)
    inside = max((part.width for part in parts), default=0)
    head = _heading_width(item.name, item.note)
    width = max(inside, head) + 2 * PAD + copies * SHADOW
    height = sum(part.height + GAP for part in parts) - GAP + PAD
    height += (HEAD if _has_heading(item) else PAD) + copies * SHADOW
    tint = STAGES.get(item.kind, (PAPER, LINE))
    return _Container(width, height, item, parts, tint, copies)


def _parts(items: Sequence[Item]) -> tuple[_Box, ...]:
    """Boxes to stack; the stages of a block are one box."""
    parts: list[_Box] = []
    for staged, run in groupby(items, lambda item: item.kind in STAGES):
        if not staged:
            parts += [_box(item) for item in run]
            continue
        stages: list[tuple[ItemKind, _Box]] = []
        for item in run:
            stages.append((item.kind, _box(item)))
            if item.kind is ItemKind.JOIN:
                parts.append(_stages(stages))
                stages = []
    return tuple(parts)


def _stages(stages: Sequence[tuple[ItemKind, _Box]]) -> _Stages:
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
