"""Step 3: from groups to blocks, which may nest, in a document that the schema has room for.

The answer is flat: every block is a list of branches, every branch a range of leaves; nesting
follows from one range lying in another.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from nprdsl.trainers.curate.asking import Answer, Step, StepName
from nprdsl.trainers.curate.document import (
    BlockKind,
    DocumentBlock,
    LeafRange,
    Passage,
    depth_of,
    nest,
)
from nprdsl.trainers.curate.placement import Room
from nprdsl.trainers.curate.steps.group import Groups, crossing_needs, leaf_ranges, unknown_labels
from nprdsl.trainers.curate.steps.parse import Outline

TASK: Final = """\
Turn the groups into blocks.

OUTLINE
{outline}

WHAT NEEDS WHAT
{needs}

GROUPS
{groups}

- A block has 2 to {branches} branches. Each is a range of smallest parts, from "first" to "last";
  a label of a step stands for all its parts. The ranges of a block follow each other without a gap.
- {nesting}
- If two groups overlap otherwise, keep the one that saves more. If a group has too many branches,
  join neighbours that are alike.
- No branch may need another branch of its block. What stands in no block stays as it is.
- There is at least one block.
Reply with {{"blocks": [{{"kind": "collective",
"branches": [{{"first": "2.1", "last": "2.1"}}, {{"first": "2.2", "last": "2.3"}}]}}, ...]}}."""


@dataclass(frozen=True, slots=True)
class ArrangeInput:
    """The results of the steps before, and what the schema has room for."""

    outline: Outline
    groups: Groups
    room: Room


class Range(Answer):
    first: str
    last: str


class BlockPlan(Answer):
    kind: Literal["collective", "selective"]
    branches: tuple[Range, ...]


class Arrangement(Answer):
    """Blocks in any order."""

    blocks: tuple[BlockPlan, ...]

    def document(self, outline: Outline) -> tuple[Passage, ...]:
        """The leaves with these blocks. ValueError where blocks cross."""
        blocks = [
            DocumentBlock(BlockKind(block.kind), tuple((b,) for b in _branches(block, outline)))
            for block in self.blocks
        ]
        return nest(blocks, len(outline.leaves()))


def _branches(block: BlockPlan, outline: Outline) -> list[LeafRange]:
    ranges = leaf_ranges(outline)
    return [LeafRange(ranges[b.first].first, ranges[b.last].last) for b in block.branches]


def ask(given: ArrangeInput) -> str:
    deep = given.room.depth
    nesting = (
        f"A branch may hold blocks of its own; at most {deep} blocks lie inside each other."
        if deep > 1
        else "Blocks do not nest: of two groups of which one lies in the other, keep one."
    )
    return TASK.format(
        outline=given.outline.text(),
        needs="\n".join(
            f"{need.label}: {', '.join(need.needs) or 'nothing'}" for need in given.groups.needs
        ),
        groups="\n".join(
            f"{group.kind}: {' | '.join(', '.join(branch) for branch in group.branches)}"
            for group in given.groups.groups
        ),
        branches=given.room.branches,
        nesting=nesting,
    )


def mend(answer: Arrangement, given: ArrangeInput) -> Arrangement:
    """A block of one branch is none, and of two equal blocks one is enough."""
    blocks = dict.fromkeys(block for block in answer.blocks if len(block.branches) > 1)
    return Arrangement(blocks=tuple(blocks))


def faults(answer: Arrangement, given: ArrangeInput) -> list[str]:
    if not answer.blocks:
        return ["there is no block of two branches or more"]
    wrong = [
        f"block {number}: {fault}"
        for number, block in enumerate(answer.blocks, 1)
        for fault in _block_faults(block, given)
    ]
    if wrong:
        return wrong
    try:
        depth = depth_of(answer.document(given.outline))
    except ValueError:
        return ["two blocks overlap, and neither lies in one branch of the other"]
    if depth > given.room.depth:
        return [f"blocks lie {depth} deep in each other; at most {given.room.depth} may"]
    return []


def _block_faults(block: BlockPlan, given: ArrangeInput) -> list[str]:
    ranges = leaf_ranges(given.outline)
    if unknown := unknown_labels([n for b in block.branches for n in (b.first, b.last)], ranges):
        return unknown
    if len(block.branches) > given.room.branches:
        return [f"{len(block.branches)} branches are more than {given.room.branches}"]
    for plan in block.branches:
        if ranges[plan.first].first > ranges[plan.last].last:
            return [f"`{plan.first}` stands behind `{plan.last}`"]
    branches = _branches(block, given.outline)
    if any(before.last + 1 != after.first for before, after in pairwise(branches)):
        return ["its branches do not follow each other without a gap"]
    return crossing_needs(branches, given.groups, given.outline)


STEP: Final = Step(StepName.ARRANGE, Arrangement, ask, mend, faults)
