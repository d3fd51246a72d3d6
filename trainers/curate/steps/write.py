"""Step 5: the texts of maps and joins, and branches that stand on their own.

The model words what the schema wants and the chain does not have, and rewrites the sentences of a
branch that lean on a sibling; every other sentence stays as it was, to the character. The trace
must be legal, near the original, and free of what `isolation` can see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from nprdsl.schema import Schema
from nprdsl.trainers.curate.asking import Answer, Step, StepName
from nprdsl.trainers.curate.document import BlockKind, LeafRange
from nprdsl.trainers.curate.form import (
    BlockMark,
    BlockPath,
    BranchMark,
    ConclusionSlot,
    ExtraSlot,
    FormBlock,
    ItemSlot,
    JoinMark,
    Slot,
    TraceForm,
)
from nprdsl.trainers.curate.isolation import BranchSentences, leaks
from nprdsl.trainers.curate.sentences import distance

TASK: Final = """\
The chain was cut into branches that will be worked out at the same time; none can see another.

DOCUMENT
{document}

Write what is missing:
{wanted}
- An item tells its branch what to do, in one sentence that stands alone: every object and quantity
  that the branch needs by name, and no result.
- A conclusion brings together what the branches of its block found, in one or two sentences. It
  computes nothing new.
- A text to be written says, in one sentence, what belongs at its place: at the beginning what is
  about to be done, at the end the final answer exactly as the chain gives it.
Then make every branch stand on its own: a reader of the problem, of what stands before the block,
and of the item must understand it without its siblings. Rewrite a sentence only where it opens a
branch with a connective ("First", "Next", "Similarly", "Alternatively"), points at a sibling ("as
in the other case"), or uses a name or a result that only a sibling has; say in full what it leans
on.
Change nothing else: every rewritten sentence keeps its content and its formulas, and only sentences
of branches may be rewritten ({editable}).
No text may hold {tags}.
Reply with {{"blocks": [{{"block": 1, "items": ["...", "..."], "conclusion": "..."}}, ...],
"texts": [{{"text": 1, "words": "..."}}], "edits": [{{"sentence": 7, "words": "..."}}]}}; "items" is
[] and "conclusion" is "" where none is wanted, and so are "texts" and "edits"."""


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


@dataclass(frozen=True)
class Draft:
    """A document in its schema, before its missing texts are written: `runs` are the first and the
    last sentence of every leaf, counted from 1."""

    schema: Schema
    problem: str
    sentences: tuple[str, ...]
    titles: tuple[str, ...]  # of the leaves
    runs: tuple[tuple[int, int], ...]  # of the leaves
    form: TraceForm
    limit: float  # of the edit distance

    @property
    def parallel(self) -> tuple[FormBlock, ...]:
        """The blocks whose branches must not lean on each other."""
        return tuple(b for b in self.form.blocks if b.block.kind is not BlockKind.ALONE)

    @cached_property
    def editable(self) -> frozenset[int]:
        """The sentences that stand in a branch beside others."""
        ranges = (leaves for block in self.parallel for leaves in block.block.ranges)
        return frozenset(number for leaves in ranges for number in self.numbers(leaves))

    def numbers(self, leaves: LeafRange) -> range:
        """The sentences of these leaves."""
        return range(self.runs[leaves.first][0], self.runs[leaves.last][1] + 1)

    def rewritten(self, wording: Wording) -> tuple[str, ...]:
        """The sentences after the edits; the white space behind each is the original's."""
        edits = {edit.sentence: edit.words for edit in wording.edits}
        return tuple(
            edits[number].strip() + text[len(text.rstrip()) :] if number in edits else text
            for number, text in enumerate(self.sentences, 1)
        )

    def trace(self, wording: Wording) -> str:
        """The whole trace in the schema."""
        sentences, blocks = self.rewritten(wording), self._worded(wording)
        texts = {text.text: text.words for text in wording.texts}

        def text(slot: Slot) -> str:
            match slot:
                case LeafRange():
                    return "".join(sentences[number - 1] for number in self.numbers(slot))
                case ItemSlot():
                    return blocks[slot.path].items[slot.branch]
                case ConclusionSlot():
                    return blocks[slot.path].conclusion
                case ExtraSlot():
                    return texts[slot.number]

        return self.form.fill(text)

    def _worded(self, wording: Wording) -> dict[BlockPath, BlockWording]:
        words = {block.block: block for block in wording.blocks}
        return {block.path: words[block.number] for block in self.form.blocks}

    def siblings(self, wording: Wording) -> list[list[BranchSentences]]:
        """The branches of every parallel block, as they read after the edits."""
        sentences, words = self.rewritten(wording), self._worded(wording)
        blocks = []
        for block in self.parallel:
            seen = " ".join(sentences[number - 1] for number in self._visible(block))
            items = words[block.path].items if block.items else ("",) * len(block.block.branches)
            blocks.append(
                [
                    BranchSentences(
                        f"branch {number} of block {block.number}",
                        f"{self.problem} {seen} {item}",
                        tuple((n, sentences[n - 1]) for n in self.numbers(leaves)),
                    )
                    for number, (leaves, item) in enumerate(
                        zip(block.block.ranges, items, strict=True), 1
                    )
                ]
            )
        return blocks

    def _visible(self, block: FormBlock) -> list[int]:
        """The sentences that the fork of a block can see: all before it, but for those in siblings
        of the branches around it."""
        leaves = set(range(block.block.first))
        for outer in self.form.blocks:
            depth = len(outer.path)
            if outer is not block and block.path[:depth] == outer.path:
                for branch, own in enumerate(outer.block.ranges):
                    if branch != block.path[depth]:
                        leaves.difference_update(own.leaves)
        return [n for leaf in sorted(leaves) for n in self.numbers(LeafRange(leaf, leaf))]


def ask(given: Draft) -> str:
    return TASK.format(
        document="\n".join(_document(given)),
        wanted="\n".join(_wanted(given)),
        editable=_numbers(sorted(given.editable)),
        tags=", ".join(f"`{tag}`" for tag in given.schema.tags),
    )


def _document(given: Draft) -> Iterator[str]:
    numbers = {block.path: block for block in given.form.blocks}
    depth = 0
    for part in given.form.parts:
        match part:
            case BlockMark(path, block):
                count = len(block.branches)
                what = "one branch" if count == 1 else f"{count} branches, {block.kind}"
                yield f"{'  ' * depth}block {numbers[path].number} ({what})"
                depth += 1
            case BranchMark(path, index):
                yield f"{'  ' * depth}branch {index + 1} of block {numbers[path].number}:"
            case JoinMark(path):
                depth -= 1
                yield f"{'  ' * depth}end of block {numbers[path].number}"
            case LeafRange(first, last):
                about = "; ".join(given.titles[first : last + 1])
                yield f"{'  ' * (depth + 1)}{_numbers(given.numbers(part))} ({about})"
            case ExtraSlot(number):
                yield f"{'  ' * (depth + 1)}text {number}, to be written"


def _wanted(given: Draft) -> Iterator[str]:
    for block in given.form.blocks:
        count = len(block.block.branches)
        wanted = [f"{count} items" if count > 1 else "1 item"] if block.items else []
        wanted += ["a conclusion"] if block.conclusion else []
        yield f"- block {block.number}: {' and '.join(wanted) or 'nothing'}"
    for number in range(1, given.form.extras + 1):
        yield f"- text {number}"


def _numbers(numbers: Sequence[int]) -> str:
    """Sentences by their numbers, neighbours together."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    listed = [f"{run[0]}" if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return f"sentence{'s' if len(numbers) > 1 else ''} {', '.join(listed)}"


def mend(answer: Wording, given: Draft) -> Wording:
    """What is not wanted is left out: items and conclusions for which the schema has no place, and
    edits that change nothing."""
    known = {block.number: block for block in given.form.blocks}
    blocks = tuple(
        _wanted_words(words, known[words.block]) if words.block in known else words
        for words in answer.blocks
    )
    edits = tuple(
        edit
        for edit in answer.edits
        if not 1 <= edit.sentence <= len(given.sentences)
        or edit.words.strip() != given.sentences[edit.sentence - 1].strip()
    )
    return Wording(blocks=blocks, texts=answer.texts, edits=edits)


def _wanted_words(words: BlockWording, block: FormBlock) -> BlockWording:
    return BlockWording(
        block=words.block,
        items=tuple(" ".join(item.split()) for item in words.items) if block.items else (),
        conclusion=words.conclusion if block.conclusion else "",
    )


def faults(answer: Wording, given: Draft) -> list[str]:
    wrong = [*_missing(answer, given), *_misplaced(answer, given), *_unfit(answer, given)]
    if wrong:
        return wrong
    trace = given.trace(answer)
    for violation in given.schema.check(trace):
        wrong.append(f"the trace is not legal at line {violation.line}: {violation.message}")
    original, rewritten = "".join(given.sentences), "".join(given.rewritten(answer))
    far = distance(original, rewritten)
    if far > given.limit:
        wrong.append(
            f"the rewritten sentences are {far:.2f} away from the chain, and {given.limit:g} is "
            "the limit; rewrite fewer of them, and less in each"
        )
    for branches in given.siblings(answer):
        wrong += leaks(branches)
    return wrong


def _missing(answer: Wording, given: Draft) -> Iterator[str]:
    blocks = [words.block for words in answer.blocks]
    wanted = [block.number for block in given.form.blocks]
    if sorted(blocks) != wanted:
        yield f"`blocks` is about {_list(blocks)}; it must be about {_list(wanted)}, once each"
        return
    known = {block.number: block for block in given.form.blocks}
    for words in answer.blocks:
        count = len(known[words.block].block.branches) if known[words.block].items else 0
        if len(words.items) != count:
            yield f"block {words.block} has {len(words.items)} items for {count} branches"
    texts = [text.text for text in answer.texts]
    wanted = [*range(1, given.form.extras + 1)]
    if sorted(texts) != wanted:
        yield f"`texts` has {_list(texts)}; it must have {_list(wanted)}, once each"


def _misplaced(answer: Wording, given: Draft) -> Iterator[str]:
    seen: set[int] = set()
    for edit in answer.edits:
        if not 1 <= edit.sentence <= len(given.sentences):
            yield f"there is no sentence {edit.sentence}"
        elif edit.sentence not in given.editable:
            yield f"sentence {edit.sentence} has no sibling; it must stay as it is"
        elif edit.sentence in seen:
            yield f"sentence {edit.sentence} is rewritten twice"
        seen.add(edit.sentence)


def _unfit(answer: Wording, given: Draft) -> Iterator[str]:
    """Texts that are blank, or that hold a tag."""
    known = {block.number: block for block in given.form.blocks}
    texts: list[tuple[str, str]] = []
    for words in answer.blocks:
        block = known.get(words.block)
        texts += [(f"item {n} of block {words.block}", t) for n, t in enumerate(words.items, 1)]
        if block is not None and block.conclusion:
            texts.append((f"the conclusion of block {words.block}", words.conclusion))
    texts += [(f"text {text.text}", text.words) for text in answer.texts]
    texts += [(f"the new sentence {edit.sentence}", edit.words) for edit in answer.edits]
    for name, text in texts:
        tag = given.schema.tag_pattern.search(text)
        if not text.strip():
            yield f"{name} is empty"
        elif tag is not None:
            yield f"{name} holds the tag `{tag[0]}`"


def _list(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


STEP: Final = Step(StepName.WRITE, Wording, ask, mend, faults)
