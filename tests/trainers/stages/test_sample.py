"""Rejection sampling with the bundled model: what is kept, why the rest is not, and going on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nprdsl
from nprdsl.machine.budget import Limits
from nprdsl.runtime import LocalEngine, Sampling
from nprdsl.trainers.config import SampleConfig, read_config
from nprdsl.trainers.curriculum.arithmetic import held_out
from nprdsl.trainers.data.problems import read_traces
from nprdsl.trainers.run.directory import RunError
from nprdsl.trainers.stages.sample import Sampled, sample
from tests.cli.commands import invoke
from tests.trainers.stages.tiny import toml

PROBLEMS = [p for p in held_out(20) if p.id.startswith("flat-2")][:5]
WRONG = {"id": "wrong", "prompt": "12*13+14*15?", "answer": "1"}


def config(folder: Path, **changes: object) -> Path:
    rows = [{"id": p.id, "prompt": p.prompt, "answer": p.answer} for p in PROBLEMS]
    source = folder / "problems.jsonl"
    lines = [json.dumps(row) for row in [*rows, WRONG, {"id": "none"}]]
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    values: dict[str, object] = {
        "schema": "arith",
        "output": str(folder / "traces.jsonl"),
        "mode": "parallel",
        "trials": 3,
        "max_tokens": 400,
        "concurrency": 4,
        "model__path": "arith",
        "data__source": str(source),
        "prompt__instructions": False,
        **changes,
    }
    file = folder / "sample.toml"
    file.write_text(toml(values), encoding="utf-8")
    return file


def sampled(folder: Path, **changes: object) -> Sampled:
    return sample(read_config(SampleConfig, config(folder, **changes)))


def test_right_and_legal_traces_are_kept_and_the_rest_is_told(tmp_path: Path) -> None:
    found = sampled(tmp_path)
    assert found.problems == 6 and len(found.rejected) == 1
    assert "wrong" in found.unsolved
    assert found.why["wrong"] >= 3  # every trial of the problem whose answer is not right
    assert found.traces == 6 - len(found.unsolved) >= 4
    assert found.trials == found.traces + sum(found.why.values())
    rows = [json.loads(line) for line in found.output.read_text("utf-8").splitlines()]
    answers = {p.id: p.answer for p in PROBLEMS}
    schema = nprdsl.load("arith")
    for row in rows:
        assert schema.check(row["trace"]) == []
        assert row["trace"].endswith(f"\\boxed{{{answers[row['id']]}}}")
    assert len(read_traces(str(found.output)).traces) == found.traces


def test_a_killed_run_goes_on_without_trying_again(tmp_path: Path) -> None:
    whole = sampled(tmp_path)
    rows, journal = whole.output.read_text("utf-8"), tmp_path / "traces.trials.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    kept = b"".join(lines[:4])
    journal.write_bytes(kept + lines[4][:10])
    whole.output.unlink()
    again = sampled(tmp_path)
    assert again == whole
    assert again.output.read_text("utf-8") == rows
    assert journal.read_bytes().startswith(kept)
    assert sorted(journal.read_bytes().splitlines()) == sorted(b"".join(lines).splitlines())


def test_the_settings_of_sampling_reach_the_engine(tmp_path: Path) -> None:
    """With next to nothing of the distribution left, what is sampled is the likeliest."""
    found = sampled(tmp_path, top_p=0.01, trials=1)
    rows = [json.loads(line) for line in found.output.read_text("utf-8").splitlines()]
    engine = LocalEngine.from_pretrained("arith")
    likeliest = engine.generate(
        nprdsl.load("arith"), [row["prompt"] for row in rows], chat=True,
        sampling=Sampling(temperature=0), limits=Limits(max_tokens=400),
    )  # fmt: skip
    assert rows and [row["trace"] for row in rows] == [result.text for result in likeliest]


def test_trials_of_other_settings_are_kept(tmp_path: Path) -> None:
    sampled(tmp_path, trials=1)
    with pytest.raises(RunError, match="`trials` was 1 and is 2"):
        sampled(tmp_path, trials=2)


def test_the_command_tells_what_came_of_it(tmp_path: Path) -> None:
    result = invoke("sample", "--config", config(tmp_path, trials=1))
    assert result.exit_code == 0
    assert "no problem: " in result.stderr
    told = {line[:24].strip(): line[24:].strip() for line in result.stdout.splitlines()}
    assert told["problems"] == "6"
    assert int(told["not kept: wrong"]) >= 1
    assert told["written to"] == str(tmp_path / "traces.jsonl")
