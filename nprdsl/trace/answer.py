"""What the answer of a trace is: the one definition for results, evaluation and graders.

The answer is what stands in the rule (or terminal) `answer` on the trunk, the last one where there
are several. Where a trace has none, or forks inside it, the answer is the last stretch of text
between two tags of the trunk: what is said behind the last block, or, where nothing is, in its
join. Tags, white space around it, and what branches write are no part of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from nprdsl.grammar.ir import Grammar
from nprdsl.structure.events import EnterBranch, EnterRule, LeaveBranch, LeaveRule
from nprdsl.structure.field_content import FieldValue, field_of
from nprdsl.trace.graph import Mark

_NAME: Final = "answer"
_Span = tuple[int, int]


def answer_of_trace(text: str, marks: Iterable[Mark], tags: re.Pattern[str]) -> str:
    """The answer in the text of a legal trace; `marks` are at characters, `tags` finds the tags."""
    answers, branches = _answers_and_branches(marks)
    if answers:
        start, end = answers[-1]
        said = tags.sub("", text[start:end]).strip()
        inside = [span for span in branches if start <= span[0] < end]
        if said and not inside:
            return said
        said = _last_stretch(text[:end], inside, start, tags)
        if said:
            return said
    return _last_stretch(text, branches, 0, tags)


def is_answer(name: str) -> bool:
    """Whether a rule or a terminal of that name is an answer."""
    return name.lower() == _NAME


def has_answer(grammar: Grammar) -> bool:
    """Whether traces may have an answer of that name."""
    return any(is_answer(name) for name in (*grammar.rules, *grammar.terminals))


def _answers_and_branches(marks: Iterable[Mark]) -> tuple[list[_Span], list[_Span]]:
    """Where the answers and the branches of the trunk stand, in order."""
    answers: list[_Span] = []
    branches: list[_Span] = []
    rules: list[tuple[int, bool]] = []  # those that are open on the trunk: start, is it an answer
    opened: list[int] = []  # where the branches begin that are open
    for mark in marks:
        match mark.what:
            case EnterBranch():
                opened.append(mark.at)
            case LeaveBranch():
                start = opened.pop()
                if not opened:
                    branches.append((start, mark.at))
            case EnterRule(rule) if not opened:
                rules.append((mark.at, is_answer(rule)))
            case LeaveRule() if not opened:
                start, answers_here = rules.pop()
                if answers_here:
                    answers.append((start, mark.at))
            case FieldValue(symbol, start, end) if not opened:
                if is_answer(field_of(symbol).terminal.name):
                    answers.append((mark.at, mark.at + end - start))
            case _:
                pass
    return answers, branches


def _last_stretch(text: str, branches: list[_Span], start: int, tags: re.Pattern[str]) -> str:
    """The last text between two tags from `start` on, outside the branches, that is not blank."""
    said = ""
    for begin, end in _outside(branches, start, len(text)):
        for stretch in tags.split(text[begin:end]):
            said = stretch.strip() or said
    return said


def _outside(branches: list[_Span], start: int, end: int) -> Iterator[_Span]:
    """The spans from `start` to `end` that are in no branch."""
    for begin, stop in branches:
        yield start, begin
        start = stop
    yield start, end
