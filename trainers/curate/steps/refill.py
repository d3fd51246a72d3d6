"""Step 4: which sentences belong to each leaf of the outline; none is lost, none is said twice.

The model names numbers, the code moves the sentences: what goes into a leaf is what was there, to
the character.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from nprdsl.trainers.curate.asking import Answer, Step, StepName
from nprdsl.trainers.curate.steps.parse import Outline

TASK: Final = """\
Put the sentences of the chain into the smallest parts of the outline.

OUTLINE
{outline}

Every smallest part ({labels}) gets a run of sentences, in the order of the outline: the
first part begins at sentence 1, every part begins right behind the one before it, and the last
ends at sentence {count}. Every part gets one sentence at least; every sentence goes into one part.
Reply with {{"parts": [{{"label": "{example}", "first": 1, "last": 2}}, ...]}}."""


@dataclass(frozen=True, slots=True)
class RefillInput:
    """The outline, and how many sentences there are."""

    outline: Outline
    sentences: int


class Filling(Answer):
    """The sentences of every leaf, counted from 1, in the order of the leaves."""

    class Part(Answer):
        label: str
        first: int
        last: int

    parts: tuple[Part, ...]


def ask(given: RefillInput) -> str:
    labels = [leaf.label for leaf in given.outline.leaves()]
    return TASK.format(
        outline=given.outline.text(),
        labels=", ".join(labels),
        count=given.sentences,
        example=labels[0],
    )


def mend(answer: Filling, given: RefillInput) -> Filling:
    """In the order of the sentences."""
    parts = sorted(answer.parts, key=lambda part: (part.first, part.last))
    return Filling(parts=tuple(parts))


def faults(answer: Filling, given: RefillInput) -> list[str]:
    wanted = [leaf.label for leaf in given.outline.leaves()]
    labels = [part.label for part in answer.parts]
    if labels != wanted:
        return [f"the parts are {', '.join(labels)}; they must be {', '.join(wanted)}, in order"]
    wrong = [
        f"{part.label} ends at sentence {part.last}, before it begins"
        for part in answer.parts
        if part.last < part.first
    ]
    edges = [0, *(at for part in answer.parts for at in (part.first, part.last))]
    edges.append(given.sentences + 1)
    for last, first in list(pairwise(edges))[::2]:
        if first > last + 1:
            wrong.append(f"{_run(last + 1, first - 1)} in no part")
        elif first <= last:
            wrong.append(f"{_run(first, last)} in two parts, or out of order")
    return wrong


def _run(first: int, last: int) -> str:
    return f"sentence {first} is" if first == last else f"sentences {first} to {last} are"


STEP: Final = Step(StepName.REFILL, Filling, ask, mend, faults)
