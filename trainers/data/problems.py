"""Problems with their answers, and traces to learn from; every row is taken, or listed as rejected.

loaded = read_problems("math.jsonl")
loaded.problems, loaded.rejected
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from nprdsl.trainers.data import fields
from nprdsl.trainers.data.fields import LETTERS, Record, choose, find, first
from nprdsl.trainers.data.sources import (
    AUTO,
    RawRow,
    RawRows,
    RejectedRow,
    SourceError,
    read_rows,
    rejected_row,
)
from nprdsl.trainers.grading.answers import Fallback, answer_of
from nprdsl.trainers.grading.grading import is_right
from nprdsl.trainers.grading.grids import grid_in, same_grid, task_of
from nprdsl.trainers.grading.quantities import EXACT, Tolerance

_LISTED: Final = 10  # rejected rows that an account shows

_Example = TypeVar("_Example")


def _check_blank(what: str, **texts: str) -> None:
    for name, text in texts.items():
        if not text.strip():
            raise ValueError(f"the `{name}` of a {what} is blank")


class AnswerForm(StrEnum):
    """What an answer is: an expression or words, or the table of a puzzle."""

    EXPRESSION = "expression"
    GRID = "grid"


@dataclass(frozen=True, slots=True)
class Problem:
    """A prompt and the answer that the benchmark gives, as it stands there.

    Where there are `choices`, the prompt lists them under letters, and `answer` is one of these. A
    `grid` as answer is JSON (`grading.grids`). `tolerance` and `unit` are what the benchmark states
    beside its answer.
    """

    id: str
    prompt: str
    answer: str
    choices: tuple[str, ...] = ()
    form: AnswerForm = AnswerForm.EXPRESSION
    tolerance: Tolerance = EXACT
    unit: str = ""

    def __post_init__(self) -> None:
        _check_blank("problem", id=self.id, prompt=self.prompt, answer=self.answer)
        known = LETTERS[: len(self.choices)]
        if known and (len(self.answer) != 1 or self.answer not in known):
            raise ValueError(f"the answer of `{self.id}` is `{self.answer}`, none of {known}")

    def answer_in(self, text: str, fallback: Fallback = Fallback.NONE, marked: str = "") -> str:
        """What counts as the answer of a text, "" if there is none; `marked` as for `answer_of`."""
        if self.form is AnswerForm.GRID:
            grid = grid_in(marked) or grid_in(text)
            return "" if grid is None else json.dumps(grid, ensure_ascii=False)
        return answer_of(text, fallback, marked) or ""

    def is_answered_by(
        self, text: str, fallback: Fallback = Fallback.NONE, marked: str = ""
    ) -> bool:
        """Whether the answer of a text is right."""
        if self.form is AnswerForm.GRID:
            return same_grid(self.answer_in(text, fallback, marked), self.answer)
        return is_right(
            text, self.answer, fallback, self.choices, marked, self.tolerance, self.unit
        )


@dataclass(frozen=True, slots=True)
class TraceExample:
    """A prompt and a trace of it that is worth learning."""

    id: str
    prompt: str
    trace: str

    def __post_init__(self) -> None:
        _check_blank("trace example", id=self.id, prompt=self.prompt, trace=self.trace)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The problems of a source, and the rows that are none, both in its order."""

    source: str
    problems: tuple[Problem, ...]
    rejected: tuple[RejectedRow, ...]

    def account(self) -> str:
        """How many rows were taken, and which were not, for people."""
        return _account(self.source, _counted(len(self.problems), "problem"), self.rejected)


@dataclass(frozen=True, slots=True)
class LoadedTraces:
    """The trace examples of a source, and the rows that are none, both in its order."""

    source: str
    traces: tuple[TraceExample, ...]
    rejected: tuple[RejectedRow, ...]

    def account(self) -> str:
        """How many rows were taken, and which were not, for people."""
        return _account(self.source, _counted(len(self.traces), "trace"), self.rejected)


def read_problems(
    source: str | Path,
    *,
    split: str = AUTO,
    subset: str = AUTO,
    prompt_field: str = AUTO,
    answer_field: str = AUTO,
    id_field: str = AUTO,
) -> Loaded:
    """The problems of JSONL, a JSON array, parquet, a folder of `datasets`, or a name on the hub.

    Fields are found by their usual names; an answer in a box is what stands in it. A question is
    put behind its `puzzle` or `context`, and its `choices` are listed below it; a puzzle without a
    question wants the table that is its `solution`. `error` and `unit` of OlympiadBench are kept. A
    row without an id gets the source's name and its number; a second row with the same id is
    rejected. Raises SourceError where nothing can be read.
    """
    raw, records, rejected = _records(source, split, subset)
    if prompt_field == answer_field == AUTO and any(map(fields.has_grid, records)):
        prompt_field, answer_field = fields.PUZZLE, fields.SOLUTION
    prompt = choose(raw.name, records, fields.PROMPTS, prompt_field, "prompt")
    answer = choose(raw.name, records, fields.ANSWERS, answer_field, "answer")
    named = first(raw.name, records, fields.IDS, id_field)
    context = first(raw.name, records, fields.CONTEXTS)
    choices = first(raw.name, records, fields.CHOICES)
    places: dict[str, str] = {}  # of ids

    def take(row: RawRow, record: Record) -> Problem:
        if fields.has_grid(record):
            return take_grid(row, record)
        answer_value = fields.answer_value(record, answer)
        name = _id(source, row, record, named)
        question = fields.prompt_text(find(record, prompt))
        right = fields.scalar_text("answer", answer_value)
        before = find(record, context) or ""
        if not isinstance(before, str):
            raise fields.RowError(f"the context is of type {type(before).__name__}, not a text")
        texts = fields.choice_texts(find(record, choices) or ())
        if texts:
            right = fields.right_letter(right, texts)
        enter(name, row)
        listed = "\n".join(f"{a}. {b}" for a, b in zip(LETTERS, texts, strict=False))
        whole = "\n\n".join(part for part in (before, question, listed) if part)
        tolerance, unit = fields.tolerance(record), fields.unit(record)
        return Problem(name, whole, right, texts, tolerance=tolerance, unit=unit)

    def take_grid(row: RawRow, record: Record) -> Problem:
        grid, name = fields.grid(record), _id(source, row, record, named)
        puzzle = fields.prompt_text(find(record, prompt))
        enter(name, row)
        answer = json.dumps(grid, ensure_ascii=False)
        return Problem(name, f"{puzzle}\n\n{task_of(grid)}", answer, form=AnswerForm.GRID)

    def enter(name: str, row: RawRow) -> None:
        if name in places:
            raise fields.RowError(f"the id `{name}` stands at {places[name]} already")
        places[name] = row.where

    problems, bad = _take(raw, records, rejected, take)
    return Loaded(raw.name, problems, bad)


def read_traces(
    source: str | Path,
    *,
    split: str = AUTO,
    subset: str = AUTO,
    prompt_field: str = AUTO,
    trace_field: str = AUTO,
    id_field: str = AUTO,
) -> LoadedTraces:
    """Rows `{"prompt": …, "trace": …}`, with an `id` if they have one; sources as for problems.

    Several traces may share an id. Raises SourceError where nothing can be read.
    """
    raw, records, rejected = _records(source, split, subset)
    prompt = choose(raw.name, records, fields.PROMPTS, prompt_field, "prompt")
    trace = choose(raw.name, records, fields.TRACES, trace_field, "trace")
    named = first(raw.name, records, fields.IDS, id_field)

    def take(row: RawRow, record: Record) -> TraceExample:
        return TraceExample(
            _id(source, row, record, named),
            fields.prompt_text(find(record, prompt)),
            fields.text("trace", find(record, trace)),
        )

    traces, bad = _take(raw, records, rejected, take)
    return LoadedTraces(raw.name, traces, bad)


def _records(
    source: str | Path, split: str, subset: str
) -> tuple[RawRows, list[Record], list[RejectedRow]]:
    """The rows of a source that have fields, these fields, and the rows that have none."""
    raw = read_rows(source, split=split, subset=subset)
    rows: list[RawRow] = []
    records: list[Record] = []
    rejected = list(raw.rejected)
    for row in raw.rows:
        try:
            records.append(fields.record(row.value))
            rows.append(row)
        except fields.RowError as error:
            rejected.append(rejected_row(row, str(error)))
    if not rows:
        raise _none(raw.name, rejected)
    return RawRows(raw.name, tuple(rows)), records, rejected


def _take(
    raw: RawRows,
    records: Sequence[Record],
    rejected: Sequence[RejectedRow],
    take: Callable[[RawRow, Record], _Example],
) -> tuple[tuple[_Example, ...], tuple[RejectedRow, ...]]:
    """What `take` makes of the rows; those that it refuses join the rejected ones."""
    taken: list[_Example] = []
    bad = list(rejected)
    for row, record in zip(raw.rows, records, strict=True):
        try:
            taken.append(take(row, record))
        except ValueError as error:
            bad.append(rejected_row(row, str(error)))
    bad.sort(key=lambda one: one.number)
    if not taken:
        raise _none(raw.name, bad)
    return tuple(taken), tuple(bad)


def _id(source: str | Path, row: RawRow, record: Record, field: str) -> str:
    """The id of a row, else the source's name and the row's number."""
    given = find(record, field)
    return f"{Path(source).stem}-{row.number}" if given is None else fields.scalar_text("id", given)


def _none(name: str, rejected: Sequence[RejectedRow]) -> SourceError:
    return SourceError(f"no row of `{name}` can be used, of {len(rejected)}; {rejected[0]}")


def _account(source: str, taken: str, rejected: Sequence[RejectedRow]) -> str:
    if not rejected:
        return f"{source}: {taken}"
    rows = f"{_counted(len(rejected), 'row')} rejected"
    lines = [f"{source}: {taken}; {rows}", *(f"  {one}" for one in rejected[:_LISTED])]
    if len(rejected) > _LISTED:
        lines.append(f"  and {len(rejected) - _LISTED} more")
    return "\n".join(lines)


def _counted(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count} {what}s"
