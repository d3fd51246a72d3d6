"""Problems with their answers, and traces to learn from; every row is taken, or listed as rejected.

loaded = read_problems("math.jsonl")
loaded.problems, loaded.rejected
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from nprdsl.trainers.data.fields import (
    ANSWERS,
    CHOICES,
    CONTEXTS,
    IDS,
    PROMPTS,
    TRACES,
    Record,
    answer,
    choose,
    find,
    first,
    record,
)
from nprdsl.trainers.data.sources import (
    AUTO,
    RawRow,
    RawRows,
    RejectedRow,
    SourceError,
    read_rows,
    refused,
)
from nprdsl.trainers.data.values import LETTERS, ProblemRow, TraceRow, checked

_LISTED: Final = 10  # rejected rows that an account shows

_Example = TypeVar("_Example")
_Readable = list[tuple[RawRow, Record]]


@dataclass(frozen=True, slots=True)
class Problem:
    """A prompt and the answer that the benchmark gives, as it stands there.

    Where there are `choices`, the prompt lists them under letters, and `answer` is one of these.
    """

    id: str
    prompt: str
    answer: str
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("id", "prompt", "answer"):
            if not getattr(self, name).strip():
                raise ValueError(f"the `{name}` of a problem is blank")
        known = LETTERS[: len(self.choices)]
        if known and (len(self.answer) != 1 or self.answer not in known):
            raise ValueError(f"the answer of `{self.id}` is `{self.answer}`, none of {known}")


@dataclass(frozen=True, slots=True)
class TraceExample:
    """A prompt and a trace of it that is worth learning."""

    id: str
    prompt: str
    trace: str

    def __post_init__(self) -> None:
        for name in ("id", "prompt", "trace"):
            if not getattr(self, name).strip():
                raise ValueError(f"the `{name}` of a trace example is blank")


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
    put behind its `puzzle` or `context`, and its `choices` are listed below it. A row without an id
    gets the source's name and its number; a second row with the same id is rejected. Raises
    SourceError where nothing can be read.
    """
    raw = read_rows(source, split=split, subset=subset)
    rows, bad = _readable(raw)
    records = [fields for _, fields in rows]
    prompt = choose(raw.name, records, PROMPTS, prompt_field, "prompt")
    answered = choose(raw.name, records, ANSWERS, answer_field, "answer")
    named = first(raw.name, records, IDS, id_field)
    context, choices = first(raw.name, records, CONTEXTS), first(raw.name, records, CHOICES)
    seen: dict[str, str] = {}

    def take(row: RawRow, fields: Record) -> Problem:
        values = {
            "id": _id(source, row, fields, named),
            "prompt": find(fields, prompt),
            "answer": answer(fields, answered),
            "context": find(fields, context) or "",
            "choices": find(fields, choices) or (),
        }
        found = checked(ProblemRow, values)
        right = found.letter if found.choices else found.answer
        if found.id in seen:
            raise ValueError(f"the id `{found.id}` stands at {seen[found.id]} already")
        seen[found.id] = row.where
        return Problem(found.id, found.text, right, found.choices)

    problems, rejected = _take(raw, rows, bad, take)
    return Loaded(raw.name, problems, rejected)


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
    raw = read_rows(source, split=split, subset=subset)
    rows, bad = _readable(raw)
    records = [fields for _, fields in rows]
    prompt = choose(raw.name, records, PROMPTS, prompt_field, "prompt")
    trace = choose(raw.name, records, TRACES, trace_field, "trace")
    named = first(raw.name, records, IDS, id_field)

    def take(row: RawRow, fields: Record) -> TraceExample:
        values = {
            "id": _id(source, row, fields, named),
            "prompt": find(fields, prompt),
            "trace": find(fields, trace),
        }
        found = checked(TraceRow, values)
        return TraceExample(found.id, found.prompt, found.trace)

    traces, rejected = _take(raw, rows, bad, take)
    return LoadedTraces(raw.name, traces, rejected)


def _readable(raw: RawRows) -> tuple[_Readable, list[RejectedRow]]:
    """Rows with their fields, and rows that have none."""
    good: _Readable = []
    bad = list(raw.rejected)
    for row in raw.rows:
        try:
            good.append((row, record(row.value)))
        except ValueError as error:
            bad.append(refused(row, str(error)))
    if not good:
        raise _none(raw.name, bad)
    return good, bad


def _take(
    raw: RawRows,
    rows: _Readable,
    bad: list[RejectedRow],
    take: Callable[[RawRow, Record], _Example],
) -> tuple[tuple[_Example, ...], tuple[RejectedRow, ...]]:
    """What `take` makes of the rows; those that it refuses join the bad ones."""
    taken: list[_Example] = []
    rejected = list(bad)
    for row, fields in rows:
        try:
            taken.append(take(row, fields))
        except ValueError as error:
            rejected.append(refused(row, str(error)))
    rejected.sort(key=lambda one: one.number)
    if not taken:
        raise _none(raw.name, rejected)
    return tuple(taken), tuple(rejected)


def _id(source: str | Path, row: RawRow, fields: Record, named: str) -> object:
    given = find(fields, named)
    return f"{Path(source).stem}-{row.number}" if given is None else given


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
