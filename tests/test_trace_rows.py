"""The rows of files: everything that the package writes is found, and nothing breaks the list."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nprdsl
from nprdsl.studio import TraceRow, recognised, trace_rows
from nprdsl.trainers.data.problems import Problem
from nprdsl.trainers.evaluate.samples import Mode, unanswered
from tests.cli.test_check import LEGAL

SAMPLE = {**asdict(unanswered(Problem("p7", "1+1?", "2"), 3, Mode.FREE, "x")), "text": LEGAL}
RESULT = {"index": 4, "key": "a", "prompt": "1+1?", "text": LEGAL, "finish": "completed",
          "usage": {"tokens": 12, "tokens_per_s": 3.25}}  # fmt: skip


def rows(*values: Any, indent: int | None = None) -> tuple[TraceRow, ...]:
    return trace_rows("f", "\n".join(json.dumps(value, indent=indent) for value in values)).rows


def test_results_of_a_run() -> None:
    one, _ = rows(RESULT, RESULT)
    assert (one.title, one.prompt, one.text) == ("index 4", "1+1?", LEGAL)
    assert dict(one.facts) == {
        "index": "4",
        "finish": "completed",
        "tokens": "12",
        "tokens_per_s": "3.25",
    }


def test_an_evaluation_before_and_behind_its_end() -> None:
    (line,) = rows({"settings": {}}, {"suite": "sums", "sample": SAMPLE})
    (sample,) = rows({"version": "1", "suites": {"sums": {"samples": [SAMPLE]}}}, indent=1)
    assert line == sample and line.title == "suite sums, problem p7, number 3, mode free"
    assert dict(line.facts)["right"] == "no" and line.text == LEGAL


def test_training_data_and_a_trace_as_it_is() -> None:
    (row,) = rows({"id": "a", "prompt": [{"role": "user"}], "trace": LEGAL, "schema": "arith"})
    assert (row.title, row.schema_name, row.text) == ("id a", "arith", LEGAL)
    (alone,) = trace_rows("trace.txt", LEGAL + "\n").rows
    assert (alone.title, alone.text) == ("trace.txt", LEGAL)


def test_tokens_stand_beside_their_probabilities_or_there_are_none() -> None:
    whole = {"text": "ab", "token_ids": [1, 2], "logprobs": [-1.5, None]}
    assert rows(whole)[0].logprobs == (-1.5, None)
    unlike = ({"logprobs": [1]}, {"logprobs": "ab"}, {"token_ids": [True, 1]})
    no_json = ({"logprobs": [float("-inf"), 1]}, {"logprobs": [float("nan")] * 2})
    for wrong in (*unlike, *no_json, {"logprobs": [10**400, 1]}):
        assert rows({**whole, **wrong})[0].logprobs == ()


def test_alternatives_stand_beside_tokens_or_there_are_none() -> None:
    whole = {"text": "ab", "token_ids": [1, 2], "alternatives": [[], [[2, -0.5], [3, -1]]]}
    assert rows(whole)[0].alternatives == ((), ((2, -0.5), (3, -1.0)))
    for wrong in ([[]], "ab", [[], [[2]]], [[], [[2, float("nan")]]], [[], {"2": -1}], 7):
        assert rows({**whole, "alternatives": wrong})[0].alternatives == ()


def test_rows_that_are_too_many_are_traces_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("nprdsl.studio.trace_rows"), "_MOST_ROWS", 2)
    view = trace_rows("f", '{"text": "a"}\n' * 3 + "{}")
    assert (len(view.rows), view.other) == (2, 1)


@pytest.mark.parametrize(
    ("text", "found", "other"),
    [
        ("", 0, 0),
        ("{}", 0, 1),
        ('{"text": ""}', 0, 1),
        ('{"text": "a"}\n{broken\n\n3', 1, 2),
        ("{broken", 1, 0),
        ("[" * 50_000, 1, 0),
        ("[" * 600 + "]" * 600, 0, 0),
        ('{"suites": {"a": 3, "b": {"samples": 3}}}', 0, 2),
        ('{"text": "\\ud800"}', 1, 0),
        ('\ufeff{"text": "a"}\n{"text": "b"}', 2, 0),
        ('{"text": "cut off in its first li', 0, 1),
    ],
)
def test_what_is_none_is_counted(text: str, found: int, other: int) -> None:
    view = trace_rows("f", text)
    assert (len(view.rows), view.other) == (found, other)
    view.model_dump_json().encode()


values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["text", "trace", "suites", "samples", "sample", "usage", "id"]),
        inner,
    ),
)  # fmt: skip


@given(values)
def test_any_json_has_rows_that_pages_can_read(value: Any) -> None:
    view = trace_rows("f", json.dumps(value))
    for row in view.rows:
        assert TraceRow.model_validate_json(row.model_dump_json()) == row


def test_the_likelier_schema_is_taken_where_it_reads_the_trace() -> None:
    arith, review = nprdsl.load("arith"), nprdsl.load("multiverse")
    assert recognised(LEGAL).name == "npr"
    assert recognised(LEGAL, [review, arith]).name == "arith"
    assert recognised(LEGAL + "</step>", [review]).name in ("npr", "arith")
