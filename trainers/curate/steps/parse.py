"""Step 1: the chain as a tree of two levels, steps and their parts."""

from __future__ import annotations

import re
from typing import Final

from nprdsl.trainers.curate.document import Leaf
from nprdsl.trainers.curate.step import Answer, Shown, Step, StepName

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


class Chain(Shown):
    """A problem and its chain of thought in sentences."""

    problem: str
    sentences: tuple[str, ...]


class OutlineStep(Answer):
    title: str
    parts: tuple[str, ...]


class Outline(Answer):
    """Steps in the order of the chain; a step has two parts or more, or none."""

    steps: tuple[OutlineStep, ...]

    def leaves(self) -> tuple[Leaf, ...]:
        """The smallest parts in order, with their labels."""
        found = []
        for number, step in enumerate(self.steps, 1):
            if not step.parts:
                found.append(Leaf(str(number), step.title))
            for part, title in enumerate(step.parts, 1):
                found.append(Leaf(f"{number}.{part}", title))
        return tuple(found)

    def told(self) -> str:
        """The outline with its labels, for questions."""
        lines = []
        for number, step in enumerate(self.steps, 1):
            lines.append(f"{number}  {step.title}")
            lines += [f"  {number}.{part}  {title}" for part, title in enumerate(step.parts, 1)]
        return "\n".join(lines)


def shown(chain: Chain) -> str:
    """The chain as it stands in front of every question."""
    numbered = "\n".join(f"[{n}] {text.strip()}" for n, text in enumerate(chain.sentences, 1))
    return f"PROBLEM\n{chain.problem.strip()}\n\nCHAIN OF THOUGHT, SENTENCE BY SENTENCE\n{numbered}"


def ask(given: Chain) -> str:
    return TASK


def mend(answer: Outline, given: Chain) -> Outline:
    """Without numbers in titles; a single part is its step."""
    steps = []
    for step in answer.steps:
        parts = tuple(title for part in step.parts if (title := _title(part)))
        steps.append(OutlineStep(title=_title(step.title), parts=parts if len(parts) > 1 else ()))
    return Outline(steps=tuple(steps))


def _title(text: str) -> str:
    return " ".join(_NUMBERED.sub("", text).split())


def faults(answer: Outline, given: Chain) -> list[str]:
    if not answer.steps:
        return ["there are no steps"]
    found = [f"step {n} has no title" for n, step in enumerate(answer.steps, 1) if not step.title]
    leaves, count = len(answer.leaves()), len(given.sentences)
    if leaves > count:
        found.append(
            f"the outline has {leaves} smallest parts, but there are only {count} sentences"
        )
    return found


STEP: Final = Step(StepName.PARSE, Outline, ask, mend, faults)
