"""A schema as a Mermaid flowchart, in the order in which a trace runs.

A rule that holds other rules is a subgraph; a fork has thick arrows to one branch and to the dots
that stand for the others.
"""

from __future__ import annotations

from nprdsl.grammar import ir
from nprdsl.pictures.mermaid import escape
from nprdsl.pictures.outline import Item, ItemKind, outline

Ends = tuple[tuple[str, ...], tuple[str, ...]]  # nodes that are entered, nodes that are left


def schema_mermaid(grammar: ir.Grammar) -> str:
    """The schema as Mermaid text."""
    chart = _Chart()
    chart.draw(outline(grammar), 1)
    return "\n".join(["flowchart LR", *chart.lines]) + "\n"


class _Chart:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self._count = 0

    def draw(self, item: Item, depth: int) -> Ends:
        if item.kind is ItemKind.LINE:
            return self._node(f'["{_words(item)}"]', depth)
        if item.kind is ItemKind.AGAIN:
            return self._node(f'(["↑ {_title(item)}"])', depth)
        if item.kind is ItemKind.FORK:
            return self._fork(item, depth)
        if item.kind is ItemKind.JOIN:
            return self._join(item, depth)
        if all(child.kind is ItemKind.LINE for child in item.children):
            lines = [_title(item), *(_words(child) for child in item.children)]
            return self._node(f'["{"<br/>".join(line for line in lines if line)}"]', depth)
        return self._subgraph(item, depth)

    def _node(self, shape: str, depth: int) -> Ends:
        name = self._name()
        self._line(f"{name}{shape}", depth)
        return (name,), (name,)

    def _subgraph(self, item: Item, depth: int) -> Ends:
        self._line(f'subgraph {self._name()}["{_title(item) or " "}"]', depth)
        if item.kind is ItemKind.CHOICE:
            ends = [self.draw(child, depth + 1) for child in item.children]
            entries = tuple(name for entry, _ in ends for name in entry)
            exits = tuple(name for _, exit_ in ends for name in exit_)
        else:
            entries, exits = self._chain(item.children, depth + 1)
        self._line("end", depth)
        return entries, exits

    def _chain(self, items: tuple[Item, ...], depth: int) -> Ends:
        entries, exits = self.draw(items[0], depth)
        for item in items[1:]:
            begins, ends = self.draw(item, depth)
            self._arrows(exits, begins, "-->", depth)
            exits = ends
        return entries, exits

    def _fork(self, item: Item, depth: int) -> Ends:
        entries, forked = self._node(f'{{{{"{_title(item)}"}}}}', depth)
        begins, ends = self._chain(item.children, depth)
        others, _ = self._node('(["⋮"])', depth)
        self._arrows(forked, begins + others, "==>", depth)
        return entries, ends + others

    def _join(self, item: Item, depth: int) -> Ends:
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


def _title(item: Item) -> str:
    return escape(" ".join(part for part in (item.name, item.note) if part))


def _words(item: Item) -> str:
    words = " ".join(word.text for word in item.words)
    return escape(f"{words} {item.note}".rstrip())
