"""A document whose sentences are in place, before and after its missing texts are written."""

from __future__ import annotations

from functools import cached_property

import pydantic

from nprdsl.schema import Schema
from nprdsl.trainers.curate.document import Kind
from nprdsl.trainers.curate.form_parts import (
    ConclusionSlot,
    ExtraSlot,
    ItemSlot,
    ProseSlot,
    Slot,
)
from nprdsl.trainers.curate.forms import Form, FormBlock
from nprdsl.trainers.curate.isolation import Branch
from nprdsl.trainers.curate.step import Answer


class BlockWording(Answer):
    """What a block says. `items` is empty where the schema lists none, `conclusion` where its join
    has no text."""

    block: int
    items: tuple[str, ...]
    conclusion: str


class Text(Answer):
    """A text that the schema wants and the chain does not have."""

    text: int
    words: str


class Edit(Answer):
    """A sentence in other words."""

    sentence: int
    words: str


class Wording(Answer):
    blocks: tuple[BlockWording, ...]
    texts: tuple[Text, ...]
    edits: tuple[Edit, ...]


class Draft(pydantic.BaseModel):
    """The form of a trace, and the sentences of every leaf: numbers from 1, both included."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True, extra="forbid", frozen=True)

    schema_: Schema
    problem: str
    sentences: tuple[str, ...]
    titles: tuple[str, ...]  # of the leaves
    runs: tuple[tuple[int, int], ...]  # of the leaves
    form: Form
    limit: float  # of the edit distance

    @property
    def parallel(self) -> tuple[FormBlock, ...]:
        """The blocks whose branches must not lean on each other."""
        return tuple(b for b in self.form.blocks if b.block.kind is not Kind.ALONE)

    @cached_property
    def editable(self) -> frozenset[int]:
        """The sentences that stand in a branch beside others."""
        leaves = (leaf for b in self.parallel for leaf in range(b.block.first, b.block.last + 1))
        return frozenset(n for leaf in leaves for n in self.numbers(leaf, leaf))

    def numbers(self, first: int, last: int) -> range:
        """The sentences of the leaves from `first` to `last`."""
        return range(self.runs[first][0], self.runs[last][1] + 1)

    def rewritten(self, wording: Wording) -> tuple[str, ...]:
        """The sentences after the edits; the white space behind each is the original's."""
        edits = {edit.sentence: edit.words for edit in wording.edits}
        return tuple(
            edits[number].strip() + text[len(text.rstrip()) :] if number in edits else text
            for number, text in enumerate(self.sentences, 1)
        )

    def trace(self, wording: Wording) -> str:
        """The whole trace in the schema."""
        sentences = self.rewritten(wording)
        blocks = {block.path: words for block, words in self._worded(wording)}
        texts = {text.text: text.words for text in wording.texts}

        def text(slot: Slot) -> str:
            match slot:
                case ProseSlot():
                    return "".join(sentences[n - 1] for n in self.numbers(slot.first, slot.last))
                case ItemSlot():
                    return blocks[slot.path].items[slot.branch]
                case ConclusionSlot():
                    return blocks[slot.path].conclusion
                case ExtraSlot():
                    return texts[slot.number]

        return self.form.fill(text)

    def _worded(self, wording: Wording) -> list[tuple[FormBlock, BlockWording]]:
        words = {block.block: block for block in wording.blocks}
        return [(block, words[block.number]) for block in self.form.blocks]

    def siblings(self, wording: Wording) -> list[list[Branch]]:
        """The branches of every parallel block, as they read after the edits."""
        sentences = self.rewritten(wording)
        words = {block.path: words for block, words in self._worded(wording)}
        found = []
        for block in self.parallel:
            seen = " ".join(sentences[n - 1] for n in self._visible(block))
            branches = []
            for index, nodes in enumerate(block.block.branches):
                item = words[block.path].items[index] if block.items else ""
                numbers = self.numbers(nodes[0].first, nodes[-1].last)
                branches.append(
                    Branch(
                        f"branch {index + 1} of block {block.number}",
                        f"{self.problem} {seen} {item}",
                        tuple((n, sentences[n - 1]) for n in numbers),
                    )
                )
            found.append(branches)
        return found

    def _visible(self, block: FormBlock) -> list[int]:
        """The sentences that the fork of a block can see."""
        leaves = set(range(block.block.first))
        for number, branch in block.around:
            outer = self.form.blocks[number - 1].block
            for index, nodes in enumerate(outer.branches):
                if index != branch:
                    leaves -= set(range(nodes[0].first, nodes[-1].last + 1))
        return [n for leaf in sorted(leaves) for n in self.numbers(leaf, leaf)]
