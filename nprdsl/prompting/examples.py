"""Worked examples of a schema: questions with traces that answer them, as people wrote them.

`NAME.examples.jsonl` beside `NAME.lark` has one in each line: `{"question": …, "trace": …}`. A
model that was not trained on the format is shown one of them as an earlier turn of the
conversation, which small models follow far better than a description in words. Text goes in;
examples come out, and a diagnostic with its line for each that cannot be used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode, Span
from nprdsl.grammar.ir import Grammar

ENDING: Final = ".examples.jsonl"
SHOWN: Final = 2  # of one, small models copy whole sentences
_FIELDS: Final = ("question", "trace")
_WORDS: Final = re.compile(r"\w{5,}")  # shorter ones say little about a topic


@dataclass(frozen=True, slots=True)
class Example:
    """A question and a trace that answers it. Raises ValueError where one of them is blank."""

    question: str
    trace: str

    def __post_init__(self) -> None:
        for name in _FIELDS:
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"the `{name}` of an example is a text that is not blank")


class ExampleChoice(StrEnum):
    """Which examples a prompt shows if none are named."""

    OWN = "own"  # the schema's


Examples = Sequence[Example] | ExampleChoice


@dataclass(frozen=True, slots=True)
class PlacedExample:
    """An example, and the line of the file that it stands in, from 1."""

    example: Example
    line: int


def read_examples(text: str, file: str) -> tuple[list[PlacedExample], list[Diagnostic]]:
    """The examples of a JSONL text, and a diagnostic for every line that is none. Blank lines are
    skipped, a byte order mark too. Traces are not judged here."""
    found: list[PlacedExample] = []
    faults: list[Diagnostic] = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if not line.strip():
            continue
        read = _read(line)
        if isinstance(read, Example):
            found.append(PlacedExample(read, number))
        else:
            faults.append(fault(file, number, line, read))
    return found, faults


def fault(file: str, number: int, line: str, message: str) -> Diagnostic:
    """What is wrong with the example of a line."""
    span = Span(file, number, 1, number, max(len(line), 1) + 1)
    help_ = 'write {"question": …, "trace": …}, a legal trace of the schema, or remove the line'
    return Diagnostic(DiagnosticCode.BAD_EXAMPLE, span, message, help_)


def _read(line: str) -> Example | str:
    """The example of one line, or what is wrong with it."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"the line is not JSON: {error}"
    if not isinstance(row, dict):
        return "the line is not a JSON object"
    for name in _FIELDS:
        if name not in row:
            return f"the example has no `{name}`"
        if not isinstance(row[name], str) or not row[name].strip():
            return f"the `{name}` of the example is no text, or blank"
    further = [name for name in row if name not in _FIELDS]
    if further:
        return f"an example has a `question` and a `trace` only, not `{further[0]}`"
    return Example(row["question"], row["trace"])


def of_other_topics(examples: Sequence[Example], question: str) -> list[Example]:
    """The two examples that share the fewest long words with the question, so that the model has
    little to copy from them; in the order of their file."""
    asked = set(_WORDS.findall(question.lower()))
    shared = [len(asked & set(_WORDS.findall(_all_text(one)))) for one in examples]
    chosen = sorted(range(len(examples)), key=lambda number: shared[number])[:SHOWN]
    return [examples[number] for number in sorted(chosen)]


def _all_text(example: Example) -> str:
    return f"{example.question} {example.trace}".lower()


def rule(grammar: Grammar) -> str:
    """One short paragraph for a model that is shown an example."""
    listed = [block for block in grammar.blocks if block.item is not None]
    each = [f"one `{block.branch}` for each `{block.item}`" for block in listed]
    more = f", and write {' and '.join(each)}" if each else ""
    return f"Answer every question in the form of the first answer: use the same tags{more}."


def with_examples(grammar: Grammar, examples: Sequence[Example]) -> str:
    """The rule and the examples as one text, for models without a chat template; a question
    follows."""
    shown = "".join(f"{one.question}\n\n{one.trace}\n\n" for one in examples)
    return f"{rule(grammar)}\n\n{shown}"
