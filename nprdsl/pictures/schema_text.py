"""A schema as a tree for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from nprdsl.grammar import ir
from nprdsl.pictures.outline import Item, ItemKind, outline


def schema_text(grammar: ir.Grammar) -> str:
    """The rules of a schema as an indented tree: tags, terminals, repetitions, forks and joins.

    A rule is drawn out where it stands first; `↑` marks it where it stands again.
    """
    return "\n".join(_lines(outline(grammar), "", "")) + "\n"


def _lines(item: Item, first: str, rest: str) -> Iterator[str]:
    yield first + _head(item)
    last = len(item.children) - 1
    for index, child in enumerate(item.children):
        branch, stem = ("└─ ", "   ") if index == last else ("├─ ", "│  ")
        yield from _lines(child, rest + branch, rest + stem)


def _head(item: Item) -> str:
    name = item.name
    if item.kind is ItemKind.LINE:
        name = " ".join(word.text for word in item.words)
    elif item.kind is ItemKind.AGAIN:
        name = f"{item.name} ↑"
    elif item.kind is ItemKind.GROUP:
        return f"({item.note})" if item.note else "in turn"
    separator = ": " if item.kind in {ItemKind.MAP, ItemKind.FORK, ItemKind.JOIN} else "  "
    return f"{name}{separator}{item.note}" if item.note else name
