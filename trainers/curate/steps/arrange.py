"""Step 3: from groups to blocks, nested to a depth, in a document that the schema has room for.

The answer is flat: every block is a list of branches, every branch a range of leaves; nesting
follows from one range lying in another.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final, Literal

from nprdsl.trainers.curate.capacity import Room
from nprdsl.trainers.curate.document import Kind, Node, Span, depth_of, nested
from nprdsl.trainers.curate.step import Answer, Shown, Step, StepName
from nprdsl.trainers.curate.steps.group import Groups, crossing, labels_of, needed_leaves
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


class Grouped(Shown):
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

    def document(self, outline: Outline) -> tuple[Node, ...]:
        """The leaves with these blocks. ValueError where blocks cross."""
        ranges = labels_of(outline)
        spans = [
            Span(
                Kind(block.kind),
                tuple((ranges[b.first][0], ranges[b.last][1]) for b in block.branches),
            )
            for block in self.blocks
        ]
        return nested(spans, len(outline.leaves()))


def ask(given: Grouped) -> str:
    deep = given.room.depth
    nesting = (
        f"A branch may hold blocks of its own; at most {deep} blocks lie inside each other."
        if deep > 1
        else "Blocks do not nest: of two groups of which one lies in the other, keep one."
    )
    return TASK.format(
        outline=given.outline.told(),
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


def mend(answer: Arrangement, given: Grouped) -> Arrangement:
    """A block of one branch is none, and of two equal blocks one is enough."""
    blocks = dict.fromkeys(block for block in answer.blocks if len(block.branches) > 1)
    return Arrangement(blocks=tuple(blocks))


def faults(answer: Arrangement, given: Grouped) -> list[str]:
    if not answer.blocks:
        return ["there is no block of two branches or more"]
    found = [
        f"block {number}: {fault}"
        for number, block in enumerate(answer.blocks, 1)
        for fault in _block_faults(block, given)
    ]
    if found:
        return found
    try:
        document = answer.document(given.outline)
    except ValueError:
        return ["two blocks overlap, and neither lies in one branch of the other"]
    if depth_of(document) > given.room.depth:
        return [
            f"blocks lie {depth_of(document)} deep in each other; at most {given.room.depth} may"
        ]
    return []


def _block_faults(block: BlockPlan, given: Grouped) -> list[str]:
    ranges = labels_of(given.outline)
    named = dict.fromkeys(label for b in block.branches for label in (b.first, b.last))
    unknown = [label for label in named if label not in ranges]
    if unknown:
        return [f"the outline has no `{label}`" for label in unknown]
    if len(block.branches) > given.room.branches:
        return [f"{len(block.branches)} branches are more than {given.room.branches}"]
    branches = [(ranges[b.first][0], ranges[b.last][1]) for b in block.branches]
    for plan, (first, last) in zip(block.branches, branches, strict=True):
        if first > last:
            return [f"`{plan.first}` stands behind `{plan.last}`"]
    if any(last + 1 != first for (_, last), (first, _) in pairwise(branches)):
        return ["its branches do not follow each other without a gap"]
    leaves = given.outline.leaves()
    needed = needed_leaves(given.groups, given.outline)
    return [
        f"{leaves[leaf].label} needs {leaves[need].label}, which is in another branch"
        for _, leaf, _, need in crossing(branches, needed)
    ]


STEP: Final = Step(StepName.ARRANGE, Arrangement, ask, mend, faults)
