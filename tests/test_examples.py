"""Worked examples beside a schema: read, checked when it is loaded, told with their line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import nprdsl
from examples import triage
from nprdsl.cli.main import cli
from nprdsl.grammar.diagnostics import DiagnosticCode, SchemaError, SchemaWarning
from nprdsl.prompting.examples import Example, of_other_topics
from nprdsl.schema import Schema, load, shipped

PAIR = """\
%import .parallel (map, process, reduce)
start:  map{asks} process{ask, reply} reduce{end}
asks:   "<asks>" ask~1..3 "</asks>"
ask:    "<ask>" LABEL ":" TEXT "</ask>"
reply:  "<reply>" LABEL ":" TEXT "</reply>"
end:    "<end>" TEXT "</end>"
LABEL: /[1-9]/
%declare TEXT
"""
GOOD = "<asks><ask>1:who?</ask></asks><reply>1:me</reply><end>so</end>"


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    file = tmp_path / "pair.v2.lark"
    file.write_text(PAIR, encoding="utf-8")
    return file


def beside(schema: Path, *rows: object) -> Path:
    file = schema.with_suffix(".examples.jsonl")
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def shipped_schema(name: str) -> Schema:
    return triage.SCHEMA if name == "triage" else load(name)


@pytest.mark.parametrize("name", shipped())
def test_every_schema_that_ships_has_legal_examples_of_different_topics(name: str) -> None:
    schema = shipped_schema(name)
    text = (Path(nprdsl.__file__).parent / "grammars" / f"{name}.examples.jsonl").read_text("utf-8")
    assert list(schema.examples) == list(schema.read_examples(text, f"{name}.examples.jsonl"))
    assert len(schema.examples) in (2, 3)
    assert len({example.question for example in schema.examples}) == len(schema.examples)
    for example in schema.examples:  # it shows that work is done side by side
        trace = schema.parse(example.trace)
        assert max(len(trace.find(block.branch)) for block in schema.grammar.blocks) >= 2


def test_examples_stand_beside_the_schema(pair: Path) -> None:
    assert load(pair).examples == ()
    beside(pair, {"question": "Who?", "trace": GOOD}, "", {"trace": GOOD, "question": "Es?\n"})
    assert load(pair).examples == (Example("Who?", GOOD), Example("Es?\n", GOOD))


def test_files_of_windows_hold_examples_too(pair: Path) -> None:
    rows = [json.dumps({"question": who, "trace": GOOD}) for who in ("Who?", "Me?")]
    text = "\ufeff" + "\r\n".join([*rows, "", ""])
    pair.with_suffix(".examples.jsonl").write_bytes(text.encode())
    assert load(pair).examples == (Example("Who?", GOOD), Example("Me?", GOOD))


FAULTS = {
    "not json": ("the line is not JSON", "{"),
    "a list": ("not a JSON object", [1]),
    "no question": ("has no `question`", {"trace": GOOD}),
    "no trace": ("has no `trace`", {"question": "q"}),
    "number": ("the `trace` of the example is no text", {"question": "q", "trace": 3}),
    "blank": (
        "the `question` of the example is no text, or blank",
        {"question": " ", "trace": "x"},
    ),
    "more": ("not `answer`", {"question": "q", "trace": GOOD, "answer": "a"}),
    "illegal": (
        "1 `ask` were listed but only 0 `reply` follow [count-mismatch], in line 2 of the trace",
        {"question": "q", "trace": GOOD.replace("<reply>1:me</reply>", "\n")},
    ),
    "label": ("label-mismatch", {"question": "q", "trace": GOOD.replace("1:me", "2:me")}),
    "deep": ("the line is not JSON", "[" * 100_000),
}


@pytest.mark.parametrize(("message", "row"), FAULTS.values(), ids=FAULTS)
def test_a_bad_example_is_told_with_its_line(message: str, row: object, pair: Path) -> None:
    file = beside(pair, {"question": "fine", "trace": GOOD}, "", row)
    with pytest.raises(SchemaError) as caught:
        load(pair)
    (found,) = caught.value.diagnostics
    assert found.code is DiagnosticCode.BAD_EXAMPLE
    assert (found.span.file, found.span.line) == (str(file), 3)
    assert message in found.message and found.suggestion


def test_all_bad_examples_are_told_together_by_check(pair: Path, tmp_path: Path) -> None:
    file = beside(pair, "{", {"question": "q", "trace": GOOD}, {"question": "q", "trace": "no"})
    ran = CliRunner().invoke(cli, ["check", str(file), "--schema", str(pair)])
    assert ran.exit_code == 2
    assert f"{file.name}:1:1" in ran.output and f"{file.name}:3:1" in ran.output
    assert "2 errors" in ran.output


def test_check_reads_the_traces_of_examples(pair: Path) -> None:
    file = beside(pair, {"question": "q", "trace": GOOD})
    ran = CliRunner().invoke(cli, ["check", str(file), "--schema", str(pair)])
    assert (ran.exit_code, ran.output) == (0, "1 trace: legal\n")
    other = file.with_name("other.examples.jsonl")
    other.write_text(json.dumps({"question": "q", "trace": "no"}), encoding="utf-8")
    ran = CliRunner().invoke(cli, ["check", str(other), "--schema", str(pair)])
    assert ran.exit_code == 1 and f"{other.name}[1]" in ran.output.replace(str(other.parent), "")


def test_a_file_without_examples_is_warned_of(pair: Path) -> None:
    beside(pair, "", "")
    with pytest.warns(SchemaWarning, match=r"pair\.v2\.examples\.jsonl` holds no example"):
        load(pair)


def test_examples_of_other_types_are_left_out() -> None:
    schema = load("triage", terminals={"VERDICT": r"[0-9]", "DECISION": nprdsl.FreeText})
    assert schema.examples == ()
    assert len(triage.SCHEMA.examples) == 2


def test_prompt_with_an_example_is_short(pair: Path) -> None:
    schema = load("npr")
    example = schema.examples[0]
    prompt = schema.prompt(example=example)
    assert prompt.endswith(f"{example.question}\n\n{example.trace}\n\n")
    assert "one `step` for each `plan`" in prompt
    assert len(prompt) - len(example.trace) < 250 < len(schema.prompt()) / 4


def test_the_examples_shown_are_of_other_topics() -> None:
    examples = load("npr").examples
    assert of_other_topics(examples, "Why is the sky blue?") == list(examples[:2])
    near = examples[0].question + " Coffee at bedtime?"
    assert of_other_topics(examples, near) == list(examples[1:])
    assert of_other_topics(examples[:1], near) == list(examples[:1])
    assert of_other_topics((), near) == []
