"""Step 5: the texts of maps and joins, and branches that stand on their own.

The model words what the schema wants and the chain does not have, and rewrites the sentences of a
branch that lean on a sibling; every other sentence stays as it was, to the character. The trace
must be legal, near the original, and free of what `isolation` can see.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from nprdsl.trainers.curate.draft import BlockWording, Draft, Wording
from nprdsl.trainers.curate.fidelity import distance
from nprdsl.trainers.curate.form_parts import (
    BranchMark,
    ExtraSlot,
    JoinMark,
    OpenMark,
    ProseSlot,
)
from nprdsl.trainers.curate.forms import FormBlock
from nprdsl.trainers.curate.isolation import leaks
from nprdsl.trainers.curate.step import Step, StepName

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


def ask(given: Draft) -> str:
    return TASK.format(
        document="\n".join(_document(given)),
        wanted="\n".join(_wanted(given)),
        editable=_numbers(sorted(given.editable)),
        tags=", ".join(f"`{tag}`" for tag in given.schema_.tags),
    )


def _document(given: Draft) -> Iterator[str]:
    numbers = {block.path: block for block in given.form.blocks}
    depth = 0
    for piece in given.form.pieces:
        match piece:
            case OpenMark(path, block):
                count = len(block.branches)
                what = "one branch" if count == 1 else f"{count} branches, {block.kind}"
                yield f"{'  ' * depth}block {numbers[path].number} ({what})"
                depth += 1
            case BranchMark(path, index):
                yield f"{'  ' * depth}branch {index + 1} of block {numbers[path].number}:"
            case JoinMark(path):
                depth -= 1
                yield f"{'  ' * depth}end of block {numbers[path].number}"
            case ProseSlot(first, last):
                run = given.numbers(first, last)
                about = "; ".join(given.titles[first : last + 1])
                yield f"{'  ' * (depth + 1)}{_numbers(list(run))} ({about})"
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


def _numbers(numbers: list[int]) -> str:
    """Sentences by their numbers, neighbours together."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    told = [f"{run[0]}" if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return f"sentence{'s' if len(numbers) > 1 else ''} {', '.join(told)}"


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
    found = [*_missing(answer, given), *_misplaced(answer, given), *_unfit(answer, given)]
    if found:
        return found
    trace = given.trace(answer)
    for violation in given.schema_.check(trace):
        found.append(f"the trace is not legal at line {violation.line}: {violation.message}")
    original, rewritten = "".join(given.sentences), "".join(given.rewritten(answer))
    far = distance(original, rewritten)
    if far > given.limit:
        found.append(
            f"the rewritten sentences are {far:.2f} away from the chain, and {given.limit:g} is "
            "the limit; rewrite fewer of them, and less in each"
        )
    for branches in given.siblings(answer):
        found += leaks(branches)
    return found


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
    if sorted(texts) != [*range(1, given.form.extras + 1)]:
        wanted = [*range(1, given.form.extras + 1)]
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
        tag = given.schema_.tag_pattern.search(text)
        if not text.strip():
            yield f"{name} is empty"
        elif tag is not None:
            yield f"{name} holds the tag `{tag[0]}`"


def _list(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


STEP: Final = Step(StepName.WRITE, Wording, ask, mend, faults)
