"""Sequential arithmetic becomes the rows that training reads, by the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nprdsl
from tests.cli.commands import invoke
from tests.curate.arithmetic import arithmetic_oracle, solutions
from tests.curate.server import scripted


@pytest.mark.parametrize("name", ["arith", "npr", "multiverse"])
def test_every_part_becomes_a_branch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made, schema = solutions(40), nprdsl.load(name)
    Path("in.jsonl").write_text("".join(json.dumps(s.row) + "\n" for s in made))
    with scripted(arithmetic_oracle(made)) as server:
        options = ("--schema", name, "--endpoint", server.url, "--model", "m", "--out", "out.jsonl")
        result = invoke("curate", "in.jsonl", *options)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in Path("out.jsonl").read_text("utf-8").splitlines()]
    assert Path("out.rejected.jsonl").read_text() == ""
    assert [row["prompt"] for row in rows] == [solution.prompt for solution in made]
    for row, solution in zip(rows, made, strict=True):
        assert row["schema"] == name
        trace = schema.parse(row["trace"])
        (fork,) = trace.graph.forks
        assert len(fork.after) == len(solution.parts)
        assert row["trace"].endswith(f"\\boxed{{{solution.total}}}.")
        assert row["curated"]["distance"] == 0
