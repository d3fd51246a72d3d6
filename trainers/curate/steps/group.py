"""Step 2: what needs what, and which neighbours do not need each other.

The model names the dependencies and the groups; that they agree is checked. A group is *collective*
(parts of one work, every result is used) or *selective* (cases or attempts, one of which decides):
arXiv 2506.09991.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from nprdsl.trainers.curate.step import Answer, Shown, Step, StepName
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


class Outlined(Shown):
    """The outline of step 1."""

    outline: Outline


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


def ask(given: Outlined) -> str:
    return TASK.format(outline=given.outline.told())


def mend(answer: Groups, given: Outlined) -> Groups:
    """Labels as the outline has them; no part needs itself; a group of one branch is none."""
    needs = tuple(
        Need(
            label=_label(need.label),
            needs=tuple(
                dict.fromkeys(n for n in map(_label, need.needs) if n != _label(need.label))
            ),
        )
        for need in answer.needs
    )
    groups = tuple(
        Group(kind=group.kind, branches=tuple(tuple(map(_label, b)) for b in group.branches if b))
        for group in answer.groups
    )
    return Groups(needs=needs, groups=tuple(g for g in groups if len(g.branches) > 1))


def _label(text: str) -> str:
    found = _LABEL.search(text)
    return found[0] if found else text


def faults(answer: Groups, given: Outlined) -> list[str]:
    labels = labels_of(given.outline)
    found = _unknown(answer, labels)
    if found:
        return found
    told = {leaf for need in answer.needs for leaf in _leaves(labels[need.label])}
    missing = [leaf.label for at, leaf in enumerate(given.outline.leaves()) if at not in told]
    if missing:
        found.append(f"`needs` has no entry for {', '.join(missing)}")
    for need in answer.needs:
        late = [n for n in need.needs if labels[n][0] > labels[need.label][1]]
        if late:
            found.append(f"{need.label} cannot need {', '.join(late)}, which comes later")
    needed = needed_leaves(answer, given.outline)
    for number, group in enumerate(answer.groups, 1):
        found += [f"group {number}: {fault}" for fault in _group_faults(group, needed, labels)]
    return found


Ranges = dict[str, tuple[int, int]]  # the first and the last leaf of every label


def labels_of(outline: Outline) -> Ranges:
    """Every label of an outline with its first and last leaf."""
    found: Ranges = {}
    at = 0
    for number, step in enumerate(outline.steps, 1):
        size = max(len(step.parts), 1)
        found[str(number)] = (at, at + size - 1)
        found.update(
            {f"{number}.{n}": (at + n - 1, at + n - 1) for n in range(1, len(step.parts) + 1)}
        )
        at += size
    return found


def needed_leaves(answer: Groups, outline: Outline) -> dict[int, set[int]]:
    """For every leaf the leaves that it needs by itself."""
    ranges = labels_of(outline)
    found: dict[int, set[int]] = {leaf: set() for leaf in range(len(outline.leaves()))}
    for need in answer.needs:
        own = set(_leaves(ranges[need.label]))
        wanted = {leaf for label in need.needs for leaf in _leaves(ranges[label])}
        for leaf in own:
            found[leaf] |= wanted - own
    return found


def crossing(
    branches: list[tuple[int, int]], needed: dict[int, set[int]]
) -> list[tuple[int, int, int, int]]:
    """Needs between branches of leaves: branch and leaf, and the branch and leaf that it needs."""
    return [
        (here, leaf, there, need)
        for here, (first, last) in enumerate(branches)
        for leaf in range(first, last + 1)
        for need in sorted(needed[leaf])
        for there, (begin, end) in enumerate(branches)
        if here != there and begin <= need <= end
    ]


def _leaves(place: tuple[int, int]) -> range:
    return range(place[0], place[1] + 1)


def _unknown(answer: Groups, labels: Ranges) -> list[str]:
    used = [label for need in answer.needs for label in (need.label, *need.needs)]
    used += [label for group in answer.groups for branch in group.branches for label in branch]
    return [f"the outline has no `{label}`" for label in dict.fromkeys(used) if label not in labels]


def _group_faults(group: Group, needed: dict[int, set[int]], labels: Ranges) -> list[str]:
    flat = [label for branch in group.branches for label in branch]
    parents = {label.rpartition(".")[0] for label in flat}
    if len(parents) > 1:
        return ["its labels are not all steps, or all parts of the same step"]
    places = [labels[label] for label in flat]
    for (_, last), (first, _), label in zip(places[:-1], places[1:], flat[1:], strict=True):
        if first != last + 1:
            return [f"{label} does not stand right behind the label before it"]
    branches = [(labels[b[0]][0], labels[b[-1]][1]) for b in group.branches]
    names = {at: label for label, (at, end) in labels.items() if at == end}
    return [
        f"{names[leaf]} needs {names[need]}, which is in another branch"
        for _, leaf, _, need in crossing(branches, needed)
    ]


STEP: Final = Step(StepName.GROUP, Groups, ask, mend, faults)
