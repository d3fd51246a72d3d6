"""`nprdsl run PROMPT`: the bundled model, plain text, JSON, a terminal, every bad input."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
from pathlib import Path

import pytest

import nprdsl
from nprdsl.cli.failures import ExitCode
from tests.cli.commands import ROOT, invoke, quick, started
from tests.forked import SECONDS

pytest.importorskip("torch")

RUN = ("run", "--model", "arith")
ARITH = ROOT / "nprdsl" / "runtime" / "models" / "arith"
PROMPT = "37*42+85*19?"
ANSWER = r"\boxed{3169}"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_pipe_gets_the_trace_and_the_figures_without_control_codes(tmp_path: Path) -> None:
    colours = {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "TERM": "xterm-256color"}
    ran = quick(*RUN, PROMPT, cwd=tmp_path, env=colours)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert not CONTROL.search(ran.stdout)
    trace, _, rest = ran.stdout.partition("\n\n")
    assert nprdsl.load("arith").check(trace) == []
    for name in ("answer", "tokens", "critical path", "degree of parallelism", "time", "speed"):
        assert re.search(rf"^{name} +\S", rest, re.MULTILINE), name
    assert ANSWER in rest


def test_a_terminal_sees_the_branches_side_by_side(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    env = {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    terminal = os.ttyname(theirs)
    with started(*RUN, PROMPT, cwd=tmp_path, env=env, terminal=terminal) as running:
        shown = _read_all(ours, theirs)
        assert running.wait() == 0, shown
    assert "\x1b[2K" in shown  # a frame was drawn over another
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert re.search(r"╭─ step 1 ✓ ─+╮╭─ step 2 ✓ ─+╮", plain)
    assert ANSWER in plain
    assert shown.rstrip().endswith("completed") or "\x1b[?25h" in shown  # the cursor is back


def _read_all(terminal: int, other_end: int) -> str:
    assert select.select([terminal], [], [], SECONDS)[0], "nothing was shown"
    parts = [os.read(terminal, 65536)]
    os.close(other_end)  # now that the command has it open
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux says EIO when the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode()


def test_json_has_the_likeliest_tokens_where_they_are_asked_for() -> None:
    record = json.loads(invoke(*RUN, PROMPT, "--json", "--alternatives", 2).stdout)
    kept = [len(likeliest) for likeliest in record["alternatives"]]
    assert kept == [0 if logprob is None else 2 for logprob in record["logprobs"]]
    told = invoke(*RUN, PROMPT, "--json", "--alternatives", 99)
    assert told.exit_code == ExitCode.USAGE
    assert "`alternatives` is 99, it must be 0 to 20" in told.output


def test_json_is_one_object_and_nothing_else() -> None:
    result = invoke(*RUN, PROMPT, "--json", "--stats")
    record = json.loads(result.stdout)
    assert (record["answer"], record["finish"]) == (ANSWER, "completed")
    assert nprdsl.load("arith").check(record["text"]) == []
    assert len(record["token_ids"]) == record["usage"]["tokens"] == len(record["logprobs"])
    assert record["usage"]["degree"] > 1 and record["graph"]["max_width"] == 2
    comparison = record["comparison"]
    assert comparison["same_trace"] and comparison["speed_up"] > 0
    assert comparison["parallel_forwards"] < comparison["in_turn_forwards"]


def test_one_branch_after_another_gives_the_same_trace() -> None:
    both = [json.loads(invoke(*RUN, PROMPT, "--json", f"--{way}").stdout) for way in WAYS]
    assert both[0]["text"] == both[1]["text"]
    assert both[0]["usage"]["forwards"] < both[1]["usage"]["forwards"]


WAYS = ("parallel", "no-parallel")


def test_stats_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nprdsl.cli.figures._ROUNDS", 1)
    output = invoke(*RUN, PROMPT, "--stats").output
    assert re.search(r"^speed-up +\d+\.\d\d x \(the same trace\)$", output, re.MULTILINE)


def test_sampling_follows_the_seed() -> None:
    options = ("--temperature", 3, "--max-tokens", 80, "--json", "--per-rule", "plan.top-k=3")
    texts = [json.loads(invoke(*RUN, PROMPT, *options, "--seed", s).stdout) for s in (1, 1, 2)]
    assert texts[0]["text"] == texts[1]["text"] != texts[2]["text"]
    assert all(nprdsl.load("arith").check(record["text"]) == [] for record in texts)


def test_a_budget_ends_the_trace_legally() -> None:
    record = json.loads(invoke(*RUN, PROMPT, "--max-tokens", 60, "--json").stdout)
    assert record["finish"] == "budget" and record["usage"]["tokens"] <= 60
    assert nprdsl.load("arith").check(record["text"]) == []


def test_another_model_is_run_with_npr_unless_told() -> None:
    shutil.copytree(ARITH, "copy")
    options = ("--model", "./copy", "--max-tokens", 60, "--json")
    text = json.loads(invoke("run", PROMPT, *options).stdout)["text"]
    assert nprdsl.load("npr").check(text) == []
    told = json.loads(invoke("run", PROMPT, *options[:2], "--schema", "arith", "--json").stdout)
    assert told["answer"] == ANSWER


def test_a_model_of_the_package_by_its_name() -> None:
    assert json.loads(invoke(*RUN, PROMPT, "--json").stdout)["answer"] == ANSWER


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give a PROMPT"),
        (("",), "the PROMPT is empty"),
        (("x", "--file", "prompts.txt"), "not both"),
        (("x", "--out", "o.jsonl"), "--out is for the results of --file"),
        (("--file", "prompts.txt", "--stats"), "--stats is for one PROMPT"),
        (("x", "--bogus"), "No such option"),
        (("x", "--temperature", "-1"), "`temperature` is -1.0"),
        (("x", "--temperature", "warm"), "not a valid float"),
        (("x", "--top-p", "1.5"), "`top_p` is 1.5"),
        (("x", "--per-rule", "step"), "is not RULE.SETTING=VALUE"),
        (("x", "--per-rule", "step.top_p=much"), "`much`"),
        (("x", "--per-rule", "stepp.top_p=1"), "did you mean `step`?"),
        (("x", "--per-rule", "step.topp=1"), "did you mean `top_p`?"),
        (("x", "--rule-tokens", "step"), "is not RULE=N"),
        (("x", "--rule-tokens", "step=9", "--rule-tokens", "step=8"), "names a rule twice"),
        (("x", "--max-tokens", "0"), "max_tokens must be at least 1"),
        (("x", "--join", "0"), "`0` is not all, first or a number"),
        (("x", "--join", "some"), "`some` is not all, first or a number"),
        (("x", "--schema", "nprr"), "did you mean `npr`?"),
        (("x", "--schema", "none.lark"), "no schema file at `none.lark`"),
        (("x", "--schema", "bad.lark"), "error[undefined-rule]"),
        (("--file", "none.txt"), "cannot read `none.txt`"),
        (("--file", "binary.txt"), "is not UTF-8"),
        (("--file", "empty.txt"), "holds no prompt"),
        (("--file", "bad.jsonl"), "bad.jsonl:2: the row is not JSON"),
        (("--file", "field.jsonl"), "field `prompt` is not among q; name it with --field"),
        (("--file", "kind.jsonl"), "is neither a text nor chat messages"),
    ],
)
def test_what_is_refused_before_the_model_is_loaded(arguments: tuple[str, ...], said: str) -> None:
    Path("prompts.txt").write_text("1+1?\n")
    Path("binary.txt").write_bytes(b"\xff\xfe")
    Path("empty.txt").write_text("\n \n")
    Path("bad.jsonl").write_text('{"prompt": "x"}\nx\n')
    Path("field.jsonl").write_text('{"q": "x"}\n')
    Path("kind.jsonl").write_text('{"prompt": 3}\n')
    Path("bad.lark").write_text('start: "<a>" nope "</a>"\n')
    _refused(arguments, said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--max-tokens", "3"), "allow at least 16"),
        (("--rule-tokens", "stepp=9"), "`stepp`, which is no rule"),
        (("--max-kv-tokens", "10"), "10"),
        (("--schema", "multiverse"), "error[unspellable-tag]"),
        (("--model", "./none"), "no model at `./none`"),
        (("--model", ""), "--model is empty"),
        (("--model", "file"), "no model at `file`: give the folder that this file is in"),
        (("--model", "wordless"), "`wordless`: the folder has no tokenizer.json"),
        (("--model", "none/such"), "cannot load the model `none/such`"),
        (("--model", "empty"), "the folder has no config.json"),
        (("--model", "bare"), "cannot load the model `bare`"),
        (("--model", "cut"), "cannot load the model `cut`"),
        (("--model", "garbled"), "garbled"),
        (("--device", "gpu"), "`gpu` is no device"),
        (("--dtype", "int3"), "`int3` is no dtype"),
    ],
)
def test_what_the_model_refuses(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Path("empty").mkdir()
    Path("bare").mkdir()
    Path("bare/config.json").write_text('{"model_type": "qwen3"}')
    shutil.copytree(ARITH, "cut")
    weights = Path("cut/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    shutil.copytree(ARITH, "garbled")
    Path("garbled/config.json").write_text("{")
    shutil.copytree(ARITH, "wordless")
    Path("wordless/tokenizer.json").unlink()
    Path("file").touch()
    _refused((PROMPT, *arguments), said)


def test_a_prompt_that_the_vocabulary_cannot_spell() -> None:
    said = (
        "`arith` answers sums of products such as `37*42+85*19?`, and nothing else: the vocabulary"
    )
    _refused(("How many are 3 and 4?", "--model", "arith"), said)


def _refused(arguments: tuple[str, ...], said: str) -> None:
    result = invoke(*RUN, *arguments)
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert said in result.stderr
    assert "Traceback" not in result.stderr
