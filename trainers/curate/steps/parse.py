"""Step 1: from the sentences of a chain to its outline, a tree of two levels: steps and parts."""

from __future__ import annotations

import re
from typing import Final

from nprdsl.trainers.curate.asking import Answer, Step, StepName
from nprdsl.trainers.curate.document import Leaf

_NUMBERED: Final = re.compile(r"^\s*(?:(?:step|part|s)\s*)?\d+(?:\.\d+)*\s*[.:)]\s+", re.I)

TASK: Final = """\
Outline the chain of thought as a tree of two levels.
- A step is a stretch of the chain with one purpose; steps follow the order of the sentences.
- Where a step does several things (treats cases, computes several quantities, tries several ways,
  checks several conditions), give each of them as a part, in order. Else it has no parts.
- What only one sentence does may be a step or a part of its own; nothing may be smaller.
- Detours, mistakes, corrections and checks are steps too: the outline covers every sentence.
- If the chain ends by stating the answer, that is the last step, alone.
- A title says in at most twelve words what is done, with its objects, not what comes out.
Reply with {"steps": [{"title": "...", "parts": ["...", "..."]}, ...]}; "parts" is [] if there are
none."""


class OutlineStep(Answer):
    title: str
    parts: tuple[str, ...]


class Outline(Answer):
    """Steps in the order of the chain; a step has two parts or more, or none."""

    steps: tuple[OutlineStep, ...]

    def leaves(self) -> tuple[Leaf, ...]:
        """The smallest parts in order, with their labels."""
        leaves = []
        for number, step in enumerate(self.steps, 1):
            if not step.parts:
                leaves.append(Leaf(str(number), step.title))
            for part, title in enumerate(step.parts, 1):
                leaves.append(Leaf(f"{number}.{part}", title))
        return tuple(leaves)

    def text(self) -> str:
        """The outline with its labels, for questions."""
        lines = []
        for number, step in enumerate(self.steps, 1):
            lines.append(f"{number}  {step.title}")
            lines += [f"  {number}.{part}  {title}" for part, title in enumerate(step.parts, 1)]
        return "\n".join(lines)


def shown(problem: str, sentences: tuple[str, ...]) -> str:
    """The chain of thought as it stands in front of every question."""
    numbered = "\n".join(f"[{n}] {text.strip()}" for n, text in enumerate(sentences, 1))
    return f"PROBLEM\n{problem.strip()}\n\nCHAIN OF THOUGHT, SENTENCE BY SENTENCE\n{numbered}"


def ask(sentences: tuple[str, ...]) -> str:
    return TASK


def mend(answer: Outline, sentences: tuple[str, ...]) -> Outline:
    """Without numbers in titles; a single part is its step."""
    steps = []
    for step in answer.steps:
        parts = tuple(title for part in step.parts if (title := _title(part)))
        steps.append(OutlineStep(title=_title(step.title), parts=parts if len(parts) > 1 else ()))
    return Outline(steps=tuple(steps))


def _title(text: str) -> str:
    return " ".join(_NUMBERED.sub("", text).split())


def faults(answer: Outline, sentences: tuple[str, ...]) -> list[str]:
    if not answer.steps:
        return ["there are no steps"]
    wrong = [f"step {n} has no title" for n, step in enumerate(answer.steps, 1) if not step.title]
    leaves, count = len(answer.leaves()), len(sentences)
    if leaves > count:
        wrong.append(
            f"the outline has {leaves} smallest parts, but there are only {count} sentences"
        )
    return wrong


STEP: Final = Step(StepName.PARSE, Outline, ask, mend, faults)
