"""How a document is written in one schema: fixed texts, slots for the others, and marks.

`placement.form_of` makes a `TraceForm` for a document; `fill` turns it into a trace once every slot
has its text. The fixed texts (tags, literals, glue, labels) follow from the schema. Where it wants
a text that the document does not have, such as an opening or an answer, there is an `ExtraSlot`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from nprdsl.trainers.curate.document import BlockKind, DocumentBlock, LeafRange

# Of a block: its index in the document, then the branch and the index in that branch, and so on.
BlockPath = tuple[int, ...]


class TextSource(StrEnum):
    """What a fixed text is in the grammar."""

    TAG = "tag"
    LITERAL = "literal"
    GLUE = "glue"
    LABEL = "label"


@dataclass(frozen=True, slots=True)
class FixedText:
    """A text that follows from the schema."""

    text: str
    source: TextSource


@dataclass(frozen=True, slots=True)
class ItemSlot:
    """What the map of the block at `path` lists for one branch, counted from 0."""

    path: BlockPath
    branch: int


@dataclass(frozen=True, slots=True)
class ConclusionSlot:
    """What the join of the block at `path` says."""

    path: BlockPath


@dataclass(frozen=True, slots=True)
class ExtraSlot:
    """A text that the schema wants and the chain does not have; numbered from 1."""

    number: int


@dataclass(frozen=True, slots=True)
class BlockMark:
    """The block at `path` begins: its map, or its first branch."""

    path: BlockPath
    block: DocumentBlock


@dataclass(frozen=True, slots=True)
class BranchMark:
    """Branch number `index` of the block at `path` begins."""

    path: BlockPath
    index: int


@dataclass(frozen=True, slots=True)
class JoinMark:
    """The last branch of the block at `path` has ended."""

    path: BlockPath


Slot = LeafRange | ItemSlot | ConclusionSlot | ExtraSlot  # a range of leaves: their sentences
FormPart = FixedText | Slot | BlockMark | BranchMark | JoinMark


@dataclass(frozen=True, slots=True)
class FormBlock:
    """A block of a form, numbered from 1 in the order in which blocks begin. `items` and
    `conclusion` say whether the schema has a text there."""

    number: int
    path: BlockPath
    block: DocumentBlock
    items: bool
    conclusion: bool


@dataclass(frozen=True)
class TraceForm:
    """A document in a schema. `on_lines`: whether the schema sets its tags on lines."""

    parts: tuple[FormPart, ...]
    on_lines: bool

    @cached_property
    def blocks(self) -> tuple[FormBlock, ...]:
        marks = [part for part in self.parts if isinstance(part, BlockMark)]
        items = {part.path for part in self.parts if isinstance(part, ItemSlot)}
        ends = {part.path for part in self.parts if isinstance(part, ConclusionSlot)}
        return tuple(
            FormBlock(number, mark.path, mark.block, mark.path in items, mark.path in ends)
            for number, mark in enumerate(marks, 1)
        )

    @cached_property
    def extras(self) -> int:
        """How many texts must be made up."""
        return sum(isinstance(part, ExtraSlot) for part in self.parts)

    @cached_property
    def wraps(self) -> int:
        """How many blocks are prose, for which the schema has no other place."""
        return sum(block.block.kind is BlockKind.ALONE for block in self.blocks)

    def fill(self, text: Callable[[Slot], str]) -> str:
        """The trace with the text of every slot, without white space around it."""
        shown = [part for part in self.parts if isinstance(part, FixedText | Slot)]
        trace: list[str] = []
        for before, part, behind in zip(
            [None, *shown][:-1], shown, [*shown, None][1:], strict=True
        ):
            if isinstance(part, FixedText):
                trace.append(part.text)
            else:
                trace += [self._lead(before, part), text(part).strip(), self._trail(part, behind)]
        return "".join(trace)

    def _lead(self, before: FormPart | None, slot: Slot) -> str:
        """What parts a text from what stands before it, where the schema does not say."""
        if not isinstance(before, FixedText) or before.text[-1:].isspace():
            return ""
        if before.source is TextSource.TAG:
            return "\n" if self.on_lines and not isinstance(slot, ItemSlot) else ""
        return " " if before.source is TextSource.LITERAL else ""

    def _trail(self, slot: Slot, behind: FormPart | None) -> str:
        tag = isinstance(behind, FixedText) and behind.source is TextSource.TAG
        return "\n" if tag and self.on_lines and not isinstance(slot, ItemSlot) else ""
