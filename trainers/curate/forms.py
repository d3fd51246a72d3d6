"""How a document is written in a schema: its tags, labels and glue, with slots for the texts.

Where the schema wants a text that the document does not have (an opening, an answer), the form has
an `ExtraSlot`; prose for which it has no place becomes a block of one branch. `form_of` chooses
what needs the least of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from nprdsl.grammar import ir
from nprdsl.trainers.curate.derivation import Cost, Way
from nprdsl.trainers.curate.document import Block, Kind, Node, Prose
from nprdsl.trainers.curate.form_parts import (
    ConclusionSlot,
    ExtraSlot,
    ItemSlot,
    OpenMark,
    Path,
    Piece,
    Slot,
    Source,
    Written,
)
from nprdsl.trainers.curate.placement import Sequel


@dataclass(frozen=True, slots=True)
class FormBlock:
    """A block of a form, numbered from 1 in the order of their beginnings.

    `items`, `conclusion`: whether the schema has a text there. `around`: the blocks that it lies in
    with the index of the branch, the outermost first.
    """

    number: int
    path: Path
    block: Block
    items: bool
    conclusion: bool
    around: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Form:
    """A document in a schema. `on_lines`: whether the schema sets its tags on lines."""

    pieces: tuple[Piece, ...]
    on_lines: bool

    @cached_property
    def blocks(self) -> tuple[FormBlock, ...]:
        marks = [piece for piece in self.pieces if isinstance(piece, OpenMark)]
        numbers = {mark.path: number for number, mark in enumerate(marks, 1)}
        items = {piece.path for piece in self.pieces if isinstance(piece, ItemSlot)}
        ends = {piece.path for piece in self.pieces if isinstance(piece, ConclusionSlot)}
        return tuple(
            FormBlock(
                numbers[mark.path],
                mark.path,
                mark.block,
                mark.path in items,
                mark.path in ends,
                tuple(
                    (numbers[mark.path[:end]], mark.path[end])
                    for end in range(1, len(mark.path), 2)
                ),
            )
            for mark in marks
        )

    @cached_property
    def extras(self) -> int:
        """How many texts must be made up."""
        return sum(isinstance(piece, ExtraSlot) for piece in self.pieces)

    def fill(self, text: Callable[[Slot], str]) -> str:
        """The trace with the text of every slot, without white space around it."""
        shown = [piece for piece in self.pieces if isinstance(piece, Written | Slot)]
        out: list[str] = []
        for index, piece in enumerate(shown):
            if isinstance(piece, Written):
                out.append(piece.text)
                continue
            before = shown[index - 1] if index else None
            behind = shown[index + 1] if index + 1 < len(shown) else None
            out.append(self._lead(before, piece) + text(piece).strip() + self._trail(piece, behind))
        return "".join(out)

    def _lead(self, before: Piece | None, slot: Slot) -> str:
        """What parts a text from what stands before it, where the schema does not say."""
        if not isinstance(before, Written) or before.text[-1:].isspace():
            return ""
        if before.source is Source.TAG:
            return "\n" if self.on_lines and not isinstance(slot, ItemSlot) else ""
        return " " if before.source is Source.LITERAL else ""

    def _trail(self, slot: Slot, behind: Piece | None) -> str:
        tag = isinstance(behind, Written) and behind.source is Source.TAG
        return "\n" if tag and self.on_lines and not isinstance(slot, ItemSlot) else ""


def form_of(grammar: ir.Grammar, nodes: Sequence[Node]) -> Form | None:
    """The form of a document; None where the schema has no place for it."""
    way = _way(grammar, nodes, Cost.JOINED if _flows(grammar) else Cost.BURIED)
    if way is None:
        return None
    pieces, extras = [], 0
    for piece in way.pieces:
        if isinstance(piece, ExtraSlot):
            extras += 1
            piece = replace(piece, number=extras)
        pieces.append(piece)
    glue = (t.literal for t in grammar.terminals.values() if t.kind is ir.TerminalKind.GLUE)
    return Form(tuple(pieces), any("\n" in literal for literal in glue))


def _way(grammar: ir.Grammar, nodes: Sequence[Node], merge: Cost) -> Way | None:
    start = ir.Ref(grammar.start, grammar.rules[grammar.start].span)
    return Sequel(grammar, nodes, merge=merge).ways(start)


@lru_cache(maxsize=32)
def _flows(grammar: ir.Grammar) -> bool:
    """Whether prose may stand before, between and behind the blocks of the trunk."""
    block = Block(Kind.COLLECTIVE, ((Prose(1, 1),), (Prose(1, 1),)))
    prose = Prose(0, 0)
    way = _way(grammar, (prose, block, prose, block, prose), Cost.BURIED)
    return way is not None and way.cost == 0
