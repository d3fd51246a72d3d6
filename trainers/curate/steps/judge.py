"""The judge, if there is one: a model reads the rewritten branches and names every sentence that
depends on a sibling."""

from __future__ import annotations

from itertools import chain
from typing import Final

from nprdsl.trainers.curate.asking import Answer, Step, StepName
from nprdsl.trainers.curate.isolation import BranchSentences

TASK: Final = """\
These branches of the chain, as rewritten, will be worked out at the same time; none can see
another. What stands in the problem, or before the block, is visible to all of them.

{branches}

Name every sentence of a branch that uses something which only a sibling has: a result, a name, a
case that was set up there, a phrase that points at it. That two branches compute the same thing,
each for itself, is no fault.
Reply with {{"leaks": [{{"sentence": 7, "why": "uses the sum from branch 1"}}, ...]}}; "leaks" is []
if there are none."""


Siblings = list[list[BranchSentences]]  # the branches of every parallel block


class Leak(Answer):
    sentence: int
    why: str


class Verdict(Answer):
    leaks: tuple[Leak, ...]

    def faults(self) -> list[str]:
        """What is wrong with the answer of step 5, in words for the model."""
        return [f"sentence {leak.sentence} leans on a sibling: {leak.why}" for leak in self.leaks]


def ask(given: Siblings) -> str:
    lines: list[str] = []
    for branch in chain(*given):
        lines.append(branch.name.upper())
        lines += [f"[{number}] {text.strip()}" for number, text in branch.sentences]
    return TASK.format(branches="\n".join(lines))


def mend(answer: Verdict, given: Siblings) -> Verdict:
    """About sentences of branches only."""
    known = {number for branch in chain(*given) for number, _ in branch.sentences}
    return Verdict(leaks=tuple(leak for leak in answer.leaks if leak.sentence in known))


def faults(answer: Verdict, given: Siblings) -> list[str]:
    return []


STEP: Final = Step(StepName.JUDGE, Verdict, ask, mend, faults)
