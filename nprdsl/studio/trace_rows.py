"""The traces of a file, as rows of a list: what `nprdsl` writes, what it trains from, one text.

In go the name and the text of a file: JSON lines (results of `run` and `eval`, rollouts of a
training run, training data), the JSON of one result or of a report, or a trace as it is. Out come
rows; what is no trace is counted. A row is found by the fields that hold a trace, not by who wrote
it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from pydantic import FiniteFloat, TypeAdapter, ValidationError

from nprdsl.machine.transcript import Alternatives
from nprdsl.studio.lanes import StudioView
from nprdsl.studio.traces import whole_characters

ROLLOUTS: Final = "rollouts.jsonl"  # in the folder of a training run: some of each step
_TEXTS: Final = ("text", "trace", "completion")  # what holds the trace; beside a text, `trace` may
# be its digest
_NAMES: Final = ("suite", "problem", "id", "index", "step", "number", "trial", "mode")
_HIDDEN: Final = ("prompt", "question", "key", "kind", "schema", "request_id")
_MOST_ROWS: Final = 20_000
_LARGEST: Final = 1e9  # of a log-probability
_ALTERNATIVES: Final = TypeAdapter(tuple[tuple[tuple[int, FiniteFloat], ...], ...])
_LONG: Final = 120  # characters of a fact, and of a title


class TraceRow(StudioView):
    """One trace of a file. `facts` are what else is known of it, in words. Of a result with tokens,
    `token_ids`, `logprobs` and `alternatives` stand beside each other, without the prompt's."""

    title: str
    schema_name: str = ""
    prompt: str = ""
    text: str
    facts: tuple[tuple[str, str], ...] = ()
    prompt_ids: tuple[int, ...] = ()
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float | None, ...] = ()
    alternatives: tuple[Alternatives, ...] = ()


class TraceRowsView(StudioView):
    """The rows of a file, and how many lines or objects of it hold no trace."""

    kind: Literal["rows"] = "rows"
    version: Literal[1] = 1
    name: str
    rows: tuple[TraceRow, ...]
    other: int


def trace_rows(name: str, text: str) -> TraceRowsView:
    """The rows of the file `name`; of more than 20,000 the first."""
    text = text.removeprefix("\ufeff")
    values = [*_values(text)]
    if all(value is None for _, value in values) and not text.lstrip().startswith('{"'):
        whole = whole_characters(text.removesuffix("\n").removesuffix("\r"))
        alone = [TraceRow(title=name, text=whole)] if whole.strip() else []
        return TraceRowsView(name=name, rows=tuple(alone), other=0)
    found = [row for number, value in values for row in _rows(value, number, {})]
    rows = [row for row in found if row is not None]
    return TraceRowsView(name=name, rows=tuple(rows[:_MOST_ROWS]), other=len(found) - len(rows))


def _values(text: str) -> Iterator[tuple[int, Any]]:
    """The JSON values of a text with the numbers of their lines; None for a line that is none."""
    if text.lstrip()[:1] not in ("{", "["):
        return
    whole = _read(text)
    if whole is not None:
        yield 1, whole
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _read(line)


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # the latter of thousands of brackets
        return None


def _rows(value: Any, number: int, outer: Mapping[str, Any]) -> Iterator[TraceRow | None]:
    """The rows of a JSON value; None where it holds no trace. `outer` are facts of what it stands
    in."""
    if isinstance(value, list):
        for index, one in enumerate(value, 1):
            yield from _rows(one, index, outer)
    elif not isinstance(value, dict):
        yield None
    elif isinstance(value.get("suites"), dict):  # a report of an evaluation
        for suite, one in value["suites"].items():
            samples = one.get("samples") if isinstance(one, dict) else None
            yield from _rows(samples, number, {"suite": suite})
    elif isinstance(value.get("sample"), dict):  # a sample in a file of `eval` that goes on
        yield from _rows(value["sample"], number, {**outer, **_scalars(value)})
    else:
        yield _row({**outer, **value}, number)


def _row(value: Mapping[str, Any], number: int) -> TraceRow | None:
    held = next((name for name in _TEXTS if isinstance(value.get(name), str)), None)
    if held is None or not value[held]:
        return None
    usage = value.get("usage")
    facts = _scalars(value) | (_scalars(usage) if isinstance(usage, dict) else {})
    named = [f"{name} {facts[name]}" for name in _NAMES if name in facts]
    prompt = value.get("prompt", value.get("question", ""))
    schema = value.get("schema")
    shown = [
        (name, _short(fact)) for name, fact in facts.items() if name not in (*_TEXTS, *_HIDDEN)
    ]
    ids, logprobs = _integers(value.get("token_ids")), _numbers(value.get("logprobs"))
    return TraceRow(
        title=_short(", ".join(named) or f"line {number}"),
        schema_name=schema if isinstance(schema, str) else "",
        prompt=whole_characters(prompt if isinstance(prompt, str) else json.dumps(prompt)),
        text=whole_characters(value[held]),
        facts=tuple(shown),
        prompt_ids=_integers(value.get("prompt_ids")),
        token_ids=ids,
        logprobs=logprobs if len(ids) == len(logprobs) else (),
        alternatives=_alternatives(value.get("alternatives"), len(ids)),
    )


def _scalars(value: Mapping[str, Any]) -> dict[str, Any]:
    """What can be told in a word."""
    return {
        str(name): fact
        for name, fact in value.items()
        if isinstance(fact, str | int | float | bool) and fact != ""
    }


def _short(fact: Any) -> str:
    if isinstance(fact, bool):
        return "yes" if fact else "no"
    told = f"{fact:.6g}" if isinstance(fact, float) else whole_characters(str(fact))
    line = " ".join(told.split())
    return line if len(line) <= _LONG else line[: _LONG - 1] + "…"


def _integers(value: Any) -> tuple[int, ...]:
    fits = isinstance(value, list) and all(type(one) is int for one in value)
    return tuple(value) if fits else ()


def _alternatives(value: Any, count: int) -> tuple[Alternatives, ...]:
    try:
        found = _ALTERNATIVES.validate_python(value)
    except ValidationError:
        return ()
    return found if len(found) == count else ()


def _numbers(value: Any) -> tuple[float | None, ...]:
    """Those of JSON, which has neither NaN nor infinity."""
    fits = isinstance(value, list) and all(
        one is None or (isinstance(one, int | float) and abs(one) < _LARGEST) for one in value
    )
    return tuple(value) if fits else ()
