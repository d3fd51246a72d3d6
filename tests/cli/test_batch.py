"""`nprdsl run --file`: rows for many prompts, continued after a kill or an interrupt."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import nprdsl
from nprdsl.cli.failures import ExitCode
from tests.cli.commands import invoke, started
from tests.forked import SECONDS, Forked

pytest.importorskip("torch")

RUN = ("run", "--model", "arith")
PROMPTS = [f"{20 + 4 * n}*{30 + 5 * n}+{30 + 5 * n}*11?" for n in range(6)]
# two prompts at a time, so that rows come one after another
SLOWLY = ("--max-tokens", "250", "--max-kv-tokens", "600")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("\n".join(PROMPTS) + "\n")


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_row_for_every_prompt_in_order() -> None:
    result = invoke(*RUN, "--file", "prompts.txt")
    rows = records(result.stdout)
    assert result.exit_code == 0
    assert [row["index"] for row in rows] == list(range(len(PROMPTS)))
    assert [row["prompt"] for row in rows] == PROMPTS
    schema = nprdsl.load("arith")
    assert all(schema.check(row["text"]) == [] and row["answer"] for row in rows)
    assert result.stderr == f"{len(PROMPTS)} of {len(PROMPTS)} prompts done\n"


@pytest.mark.parametrize("arguments", [("-",), ("--file", "-")])
def test_prompts_on_stdin(arguments: tuple[str, ...]) -> None:
    rows = [{"prompt": "37*42+85*19?"}, {"prompt": [{"role": "user", "content": "60*23+37*42?"}]}]
    lines = "\n".join(map(json.dumps, rows))
    for given in (lines, "37*42+85*19?\n\n60*23+37*42?\n"):
        found = records(invoke(*RUN, *arguments, stdin=given).stdout)
        assert [row["answer"] for row in found] == [r"\boxed{3169}", r"\boxed{2934}"]


def test_a_killed_run_goes_on_where_it_was() -> None:
    arguments = (*RUN, "--file", "prompts.txt", "--out", "out.jsonl", *SLOWLY)
    out = Path("out.jsonl")
    with started(*arguments, cwd=Path.cwd()) as running:
        _wait_for_rows(out, 2, running)
        running.send_signal(signal.SIGKILL)
        running.wait(SECONDS)
    kept = out.read_bytes()
    whole = kept[: kept.rfind(b"\n") + 1]
    assert 2 <= whole.count(b"\n") < len(PROMPTS)
    out.write_bytes(whole + b'{"index": 9, "key": "12')
    again = invoke(*arguments)
    assert again.exit_code == 0
    assert f"{whole.count(bytes([10]))} were done before" in again.stderr
    assert out.read_bytes().startswith(whole)
    assert [row["index"] for row in records(out.read_text())] == list(range(len(PROMPTS)))
    at_once = records(invoke(*RUN, "--file", "prompts.txt", *SLOWLY[:2]).stdout)
    assert [row["text"] for row in at_once] == [row["text"] for row in records(out.read_text())]


def test_nothing_is_run_again() -> None:
    arguments = (*RUN, "--file", "prompts.txt", "--out", "out.jsonl")
    invoke(*arguments)
    before = Path("out.jsonl").read_bytes()
    result = invoke(*arguments)
    assert (result.exit_code, Path("out.jsonl").read_bytes()) == (0, before)
    assert result.stderr.startswith(f"0 of {len(PROMPTS)} prompts done; {len(PROMPTS)} were done")


def test_an_interrupt_keeps_the_rows_and_says_so() -> None:
    out = Path("out.jsonl")
    arguments = (*RUN, "--file", "prompts.txt", "--out", "out.jsonl", *SLOWLY)
    with started(*arguments, cwd=Path.cwd()) as running:
        _wait_for_rows(out, 1, running)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=SECONDS)
    assert running.returncode == ExitCode.INTERRUPTED
    lines = [line for line in said.decode().split("\n") if line]
    assert lines[-1] == "interrupted" and "the same command again does the rest" in lines[-2]
    assert len(lines) == 2
    assert records(out.read_text())


def _wait_for_rows(out: Path, rows: int, running: Forked) -> None:
    until = time.monotonic() + SECONDS
    while not out.exists() or out.read_bytes().count(b"\n") < rows:
        assert running.poll() is None and time.monotonic() < until
        time.sleep(0.01)


def test_a_prompt_that_fails_is_told_and_tried_again() -> None:
    Path("mixed.jsonl").write_text(
        '{"q": "60*23+12*11?"}\n{"q": "what is 60*23?"}\n\n{"q": "85*19+12*11?"}\n'
    )
    arguments = (*RUN, "--file", "mixed.jsonl", "--field", "q", "--out", "out.jsonl")
    result = invoke(*arguments)
    assert result.exit_code == ExitCode.BAD
    assert "error: mixed.jsonl:2: the vocabulary has no token" in result.stderr
    assert [row["index"] for row in records(Path("out.jsonl").read_text())] == [0, 2]
    again = invoke(*arguments)
    assert "0 of 3 prompts done; 2 were done before; 1 failed" in again.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"my notes", "`out.jsonl` is no file of results"),
        (b"my notes\n", "out.jsonl:1: the row is no result"),
        (b'{"index": "one"}\n', "out.jsonl:1: the row is no result"),
        (b'{"index": 0, "key": "1"}\n', "out.jsonl:1: the result is of another prompt"),
        (b'{"index": 99, "key": "1"}\n', "out.jsonl:1: the result is of another prompt"),
    ],
)
def test_files_that_are_not_of_this_run_are_left_alone(content: bytes, said: str) -> None:
    Path("out.jsonl").write_bytes(content)
    result = invoke(*RUN, "--file", "prompts.txt", "--out", "out.jsonl")
    assert result.exit_code == ExitCode.USAGE
    assert said in result.stderr
    assert Path("out.jsonl").read_bytes() == content


@pytest.mark.parametrize(
    "changed", [("--seed", "5"), ("--temperature", "0.5"), ("--max-tokens", "200"), ("--no-chat",)]
)
def test_other_settings_are_another_run(changed: tuple[str, ...]) -> None:
    Path("one.txt").write_text("60*23+12*11?\n")
    invoke(*RUN, "--file", "one.txt", "--out", "out.jsonl")
    result = invoke(*RUN, "--file", "one.txt", "--out", "out.jsonl", *changed)
    assert result.exit_code == ExitCode.USAGE
    assert "of another prompt, model or setting" in result.stderr


@pytest.mark.parametrize("out", [".", "none/such.jsonl"])
def test_a_file_that_cannot_be_written(out: str) -> None:
    result = invoke(*RUN, "--file", "prompts.txt", "--out", out)
    assert result.exit_code == ExitCode.USAGE
    assert f"cannot write `{out}`" in result.stderr


def test_an_impossible_budget_is_refused_once() -> None:
    result = invoke(*RUN, "--file", "prompts.txt", "--max-tokens", "3")
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr.count("\n") == 1 and "allow at least 16" in result.stderr
