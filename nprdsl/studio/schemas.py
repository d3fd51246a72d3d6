"""A schema as a page draws it: rules as boxes in boxes, tags with their tokens, figures.

In go a schema and a vocabulary that it is bound to; out comes a versioned model for JSON. The boxes
are the outline that the pictures of a schema are drawn from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Literal

from nprdsl.export import ExportError, Target
from nprdsl.grammar.ir import Block, Terminal, TerminalKind
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.pictures.schema_pictures import OutlineItem, OutlineKind, WordKind, outline, times
from nprdsl.schema import Schema
from nprdsl.studio.lanes import StudioView


class WordView(StudioView):
    kind: WordKind
    text: str


class BoxView(StudioView):
    """One thing of the outline; `note` says how often or how it happens."""

    kind: OutlineKind
    name: str
    note: str
    words: tuple[WordView, ...]
    children: tuple[BoxView, ...]


class TagView(StudioView):
    """A tag and its tokens: one where the vocabulary has it as a token of its own."""

    text: str
    ids: tuple[int, ...]
    special: bool


class TerminalView(StudioView):
    name: str
    kind: TerminalKind
    says: str


class ForkView(StudioView):
    """A block; `says`: how many branches of what, and how they join."""

    rule: str
    branch: str
    join: str
    says: str


class ExportView(StudioView):
    """What the linear language of a target cannot hold, or why there is none."""

    target: str
    lost: tuple[str, ...]
    refused: str


class SchemaView(StudioView):
    """One schema over one vocabulary; `minimum`: tokens that are enough for a legal trace."""

    kind: Literal["schema"] = "schema"
    version: Literal[1] = 1
    title: str
    name: str
    root: BoxView
    tags: tuple[TagView, ...]
    terminals: tuple[TerminalView, ...]
    forks: tuple[ForkView, ...]
    exports: tuple[ExportView, ...]
    vocabulary: str
    vocabulary_size: int
    mode: str
    minimum: int


def schema_view(
    schema: Schema,
    bound: BoundSchema,
    vocabulary: str,
    *,
    title: str = "",
    targets: Iterable[Target] = Target,
) -> SchemaView:
    """`vocabulary` names the vocabulary of `bound` for people; `targets` are the libraries of which
    is told what they cannot hold, which takes longer than all else."""
    grammar = schema.grammar
    return SchemaView(
        title=title or schema.name,
        name=schema.name,
        root=_box(outline(grammar)),
        tags=tuple(_tag(tag, bound) for tag in grammar.tags),
        terminals=tuple(_terminal(terminal) for terminal in grammar.terminals.values()),
        forks=tuple(_fork(block) for block in grammar.blocks),
        exports=export_views(schema, bound, targets),
        vocabulary=vocabulary,
        vocabulary_size=bound.vocabulary.size,
        mode=str(bound.mode),
        minimum=bound.minimum,
    )


def _box(item: OutlineItem) -> BoxView:
    return BoxView(
        kind=item.kind,
        name=item.name,
        note=item.note,
        words=tuple(WordView(kind=word.kind, text=word.text) for word in item.words),
        children=tuple(_box(child) for child in item.children),
    )


def _tag(tag: str, bound: BoundSchema) -> TagView:
    token = bound.tag_tokens.get(tag)
    ids = tuple(bound.vocabulary.encode(tag)) if token is None else (token,)
    return TagView(text=tag, ids=ids, special=token is not None)


def _terminal(terminal: Terminal) -> TerminalView:
    says = {
        TerminalKind.GLUE: f"glue {json.dumps(terminal.literal)}",
        TerminalKind.TEXT: "free text up to the next tag",
        TerminalKind.REGULAR: f"/{terminal.pattern}/",
        TerminalKind.TYPED: f"typed: {terminal.description}",
    }[terminal.kind]
    return TerminalView(name=terminal.name, kind=terminal.kind, says=says)


def _fork(block: Block) -> ForkView:
    if block.item is None:
        count = f"{times(block.low, block.high)} {block.branch}"
    else:
        count = f"one {block.branch} for each {block.item}"
    bound = f", same {' and '.join(block.bound)}" if block.bound else ""
    joined = f"joins by {block.join}"
    return ForkView(
        rule=block.rule,
        branch=block.branch,
        join=block.join.value,
        says=f"{count}{bound}; {joined}",
    )


def export_views(
    schema: Schema, bound: BoundSchema, targets: Iterable[Target] = Target
) -> tuple[ExportView, ...]:
    """What other libraries cannot hold of the schema."""
    return tuple(_export(schema, target, bound) for target in targets)


def _export(schema: Schema, target: Target, bound: BoundSchema) -> ExportView:
    try:
        made = schema.export(target, special=bound.tag_tokens)
    except ExportError as error:
        return ExportView(target=target.value, lost=(), refused=str(error))
    return ExportView(target=target.value, lost=made.lost, refused="")
