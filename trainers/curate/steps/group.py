"""Step 2: from an outline to what needs what, and to groups of neighbours that need no other.

The model names the dependencies and the groups; that they agree is checked. A group is *collective*
(parts of one work, every result is used) or *selective* (cases or attempts, one of which decides):
arXiv 2506.09991.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Final, Literal

from nprdsl.trainers.curate.asking import Answer, Step, StepName
from nprdsl.trainers.curate.document import LeafRange
from nprdsl.trainers.curate.steps.parse import Outline

_LABEL: Final = re.compile(r"\d+(?:\.\d+)?")

TASK: Final = """\
Find what in this outline could have been worked out at the same time.

OUTLINE
{outline}

First say for every smallest part (a step without parts, or a part) which earlier ones it needs:
it uses a result, a quantity, a name or a conclusion that was found there. What the problem states,
and what a person would know anyway, is not needed from anywhere. Where the text merely says
"similarly" or "the other case", nothing is needed unless a result is used.
Then list the groups: branches that stand side by side in the outline, with nothing between them,
none of which needs another. A branch is one label, or several that follow each other and belong
together; the branches of a group are all steps, or all parts of the same step. Alternatives count
as independent: cases of a distinction, and attempts of which the first was given up.
- "collective": parts of one work; all their results are used.
- "selective": cases or attempts; one of them may decide.
A step may be a branch of one group while its parts form another. If nothing is independent, the
list of groups is empty.
Reply with {{"needs": [{{"label": "2.1", "needs": ["1"]}}, ...],
"groups": [{{"kind": "collective", "branches": [["2.1"], ["2.2", "2.3"]]}}, ...]}}."""


class Need(Answer):
    label: str
    needs: tuple[str, ...]


class Group(Answer):
    kind: Literal["collective", "selective"]
    branches: tuple[tuple[str, ...], ...]


class Groups(Answer):
    """Dependencies of the leaves, and groups of branches without."""

    needs: tuple[Need, ...]
    groups: tuple[Group, ...]


def ask(outline: Outline) -> str:
    return TASK.format(outline=outline.text())


def mend(answer: Groups, outline: Outline) -> Groups:
    """Labels as the outline has them; no part needs itself; a group of one branch is none."""
    needs = []
    for need in answer.needs:
        own = _label(need.label)
        others = dict.fromkeys(label for label in map(_label, need.needs) if label != own)
        needs.append(Need(label=own, needs=tuple(others)))
    groups = (
        Group(kind=group.kind, branches=tuple(tuple(map(_label, b)) for b in group.branches if b))
        for group in answer.groups
    )
    return Groups(needs=tuple(needs), groups=tuple(g for g in groups if len(g.branches) > 1))


def _label(text: str) -> str:
    match = _LABEL.search(text)
    return match[0] if match else text


def faults(answer: Groups, outline: Outline) -> list[str]:
    ranges = leaf_ranges(outline)
    used = [label for need in answer.needs for label in (need.label, *need.needs)]
    used += [label for group in answer.groups for branch in group.branches for label in branch]
    if unknown := unknown_labels(used, ranges):
        return unknown
    wrong = []
    named = {leaf for need in answer.needs for leaf in ranges[need.label].leaves}
    missing = [leaf.label for at, leaf in enumerate(outline.leaves()) if at not in named]
    if missing:
        wrong.append(f"`needs` has no entry for {', '.join(missing)}")
    for need in answer.needs:
        late = [n for n in need.needs if ranges[n].first > ranges[need.label].last]
        if late:
            wrong.append(f"{need.label} cannot need {', '.join(late)}, which comes later")
    for number, group in enumerate(answer.groups, 1):
        wrong += [f"group {number}: {fault}" for fault in _group_faults(group, answer, outline)]
    return wrong


def _group_faults(group: Group, answer: Groups, outline: Outline) -> list[str]:
    ranges = leaf_ranges(outline)
    labels = [label for branch in group.branches for label in branch]
    if len({label.rpartition(".")[0] for label in labels}) > 1:
        return ["its labels are not all steps, or all parts of the same step"]
    for before, label in pairwise(labels):
        if ranges[label].first != ranges[before].last + 1:
            return [f"{label} does not stand right behind the label before it"]
    branches = [LeafRange(ranges[b[0]].first, ranges[b[-1]].last) for b in group.branches]
    return crossing_needs(branches, answer, outline)


def leaf_ranges(outline: Outline) -> dict[str, LeafRange]:
    """The leaves of every label: one of a part, or of a step without parts; else several."""
    ranges: dict[str, LeafRange] = {}
    first = 0
    for number, step in enumerate(outline.steps, 1):
        size = max(len(step.parts), 1)
        ranges[str(number)] = LeafRange(first, first + size - 1)
        for part in range(len(step.parts)):
            ranges[f"{number}.{part + 1}"] = LeafRange(first + part, first + part)
        first += size
    return ranges


def unknown_labels(used: Iterable[str], ranges: Mapping[str, LeafRange]) -> list[str]:
    """A fault for every label that the outline does not have."""
    return [f"the outline has no `{label}`" for label in dict.fromkeys(used) if label not in ranges]


def needed_leaves(answer: Groups, outline: Outline) -> dict[int, set[int]]:
    """The leaves that each leaf needs."""
    ranges = leaf_ranges(outline)
    needed: dict[int, set[int]] = {leaf: set() for leaf in range(len(outline.leaves()))}
    for need in answer.needs:
        own = ranges[need.label].leaves
        others = {leaf for label in need.needs for leaf in ranges[label].leaves}.difference(own)
        for leaf in own:
            needed[leaf] |= others
    return needed


def crossing_needs(branches: list[LeafRange], answer: Groups, outline: Outline) -> list[str]:
    """A fault for every leaf of a branch that needs one of another branch."""
    leaves, needed = outline.leaves(), needed_leaves(answer, outline)
    return [
        f"{leaves[leaf].label} needs {leaves[other].label}, which is in another branch"
        for branch in branches
        for leaf in branch.leaves
        for other in sorted(needed[leaf])
        if any(other in sibling.leaves for sibling in branches if sibling is not branch)
    ]


STEP: Final = Step(StepName.GROUP, Groups, ask, mend, faults)
