"""`nprdsl eval`: tables, files that resume after a kill, comparisons, every wrong input."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from nprdsl.cli.failures import ExitCode
from tests.cli.commands import invoke, process, quick, started
from tests.forked import SECONDS

pytest.importorskip("torch")

SHORT = Path(__file__).parent / "short.json"  # problems of two parts, a third of the usual length
ARITH = ("eval", "--suite", f"arith={SHORT}", "--dtype", "fp32")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
FIGURES = (
    "problems",
    "avg@2",
    "best@2",
    "legal",
    "parallel",
    "completed",
    "tokens",
    "critical path",
)
FIGURES += ("degree", "tokens/s", "time to answer")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `a.json` and `b.json`: the same problems, other samples."""
    folder = tmp_path_factory.mktemp("results")
    for name, more in (("a", ()), ("b", ("--temperature", "1.8", "--max-tokens", 400))):
        out = folder / f"{name}.json"
        done = invoke(*ARITH, "--limit", 3, "--samples", 2, "--out", out, *more)
        assert done.exit_code == 0, done.output
    return folder


def read(name: str | Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(Path(name).read_text())
    return report


def rows(report: dict[str, Any], suite: str = "arith") -> list[dict[str, Any]]:
    """The samples without their times."""
    samples = report["suites"][suite]["samples"]
    return [{k: v for k, v in row.items() if k not in ("time_s", "wall_s")} for row in samples]


# -- what is told ----------------------------------------------------------------------------------


def test_a_pipe_gets_a_plain_table(tmp_path: Path) -> None:
    colours = {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "TERM": "xterm-256color"}
    more = ("--limit", 2, "--samples", 2, "--baseline", "--plot", "p.png")
    ran = quick(*ARITH, *more, cwd=tmp_path, env=colours)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == "8 of 8 samples done\n"
    assert not CONTROL.search(ran.stdout)
    baseline = ("in turn: tokens/s", "in turn: same traces", "speed-up", "speed-up to answer")
    for name in (*FIGURES, *baseline):
        assert re.search(rf"^{re.escape(name)} +\d", ran.stdout, re.MULTILINE), name
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_json() -> None:
    result = invoke(*ARITH, "--limit", 2, "--temperature", 0, "--json")
    report = json.loads(result.stdout)
    suite = report["suites"]["arith"]
    assert suite["figures"]["accuracy"]["value"] == 1.0
    assert suite["figures"]["best"].keys() == {"1"}
    assert "samples" not in suite
    settings = report["settings"]
    assert (settings["model"], settings["schema"], settings["dtype"]) == ("arith", "arith", "fp32")
    assert settings["sampling"]["temperature"] == 0 and settings["weights"]


def test_several_suites_and_rows_that_are_rejected() -> None:
    lines = [
        '{"q": "37*42+85*19?", "a": 3169}',
        '{"q": "12+13?"}',
        "x",
        '{"q": "60*23+37*42?", "a": "2934.0"}',
    ]
    Path("mine.jsonl").write_text("\n".join(lines))
    fields = ("--prompt-field", "q", "--answer-field", "a")
    more = ("--suite", "mine=mine.jsonl,arith", "--limit", 2, "--out", "r.json", *fields)
    result = invoke("eval", "--model", "arith", *more)
    assert result.exit_code == 0, result.output
    assert "mine.jsonl: 2 problems; 2 rows rejected\n  mine.jsonl:2: the answer is missing" in (
        result.stderr
    )
    report = read("r.json")
    assert list(report["suites"]) == ["mine", "arith"]
    assert [row[:12] for row in report["suites"]["mine"]["rejected"]] == [
        "mine.jsonl:2",
        "mine.jsonl:3",
    ]
    assert report["suites"]["mine"]["figures"]["accuracy"]["value"] == 1.0
    assert re.search(r"^ +mine +arith$", result.stdout, re.MULTILINE)


def test_samples_that_cannot_be_run_are_told_and_count_as_wrong() -> None:
    good, bad = (
        {"id": "good", "prompt": "37*42+85*19?", "answer": 3169},
        {"prompt": "How?", "answer": 1},
    )
    Path("mixed.json").write_text(json.dumps([good, bad]))
    command = ("eval", "--model", "arith", "--suite", "mixed=mixed.json", "--out", "r.json")
    result = invoke(*command)
    assert result.exit_code == ExitCode.BAD
    assert "error: mixed: `mixed-2`: the vocabulary has no token" in result.stderr
    assert "1 of 2 samples done; the same command again does the rest" in result.stderr
    figures = read("r.json")["suites"]["mixed"]["figures"]
    assert (figures["failed"], figures["accuracy"]["value"], figures["legal_rate"]) == (1, 0.5, 0.5)
    assert re.search(r"^failed +1$", result.stdout, re.MULTILINE)
    again = invoke(*command)
    assert "0 of 2 samples done; 1 were done before" in again.stderr
    Path("bad.json").write_text(json.dumps([bad]))
    none = invoke("eval", "--model", "arith", "--suite", "bad=bad.json")
    assert none.exit_code == ExitCode.BAD
    assert "error: bad: no sample could be run, of 1: the vocabulary has no token" in none.stderr


def test_a_model_may_write_without_the_schema() -> None:
    result = invoke(*ARITH, "--limit", 3, "--free", "--max-tokens", 100, "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0 and report["settings"]["modes"] == ["free"]
    figures = report["suites"]["arith"]["figures"]
    assert figures["degree"]["value"] == 1.0 and figures["tokens"]["value"] <= 100


# -- files -----------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    budget = ("--max-tokens", 200, "--concurrency", 2)
    command = (*ARITH, "--limit", 4, "--samples", 2, "--temperature", "1.5", *budget)
    out, lines = Path("r.json"), Path("r.rows.jsonl")
    with started(*command, "--out", out, cwd=tmp_path) as running:
        until = time.monotonic() + SECONDS
        while not lines.exists() or lines.read_bytes().count(b"\n") < 4:
            assert running.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
        running.wait(SECONDS)
    kept = lines.read_bytes()
    whole = kept[: kept.rfind(b"\n") + 1]
    count = whole.count(b"\n") - 1
    assert 3 <= count < 8 and not out.exists()
    lines.write_bytes(whole + b'{"suite": "arith", "samp')
    again = invoke(*command, "--out", out)
    assert again.exit_code == 0, again.output
    assert f"{8 - count} of 8 samples done; {count} were done before" in again.stderr
    assert not lines.exists()
    at_once = invoke(*command, "--out", "other.json")
    assert at_once.exit_code == 0
    assert rows(read(out)) == rows(read("other.json"))
    assert len(rows(read(out))) == 8


def test_an_interrupt_keeps_the_samples_and_says_so(tmp_path: Path) -> None:
    command = (*ARITH, "--samples", 100, "--concurrency", 2, "--out", "r.json")
    lines = Path("r.rows.jsonl")
    with started(*command, cwd=tmp_path) as running:
        until = time.monotonic() + SECONDS
        while not lines.exists() or lines.read_bytes().count(b"\n") < 2:
            assert running.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=SECONDS)
    assert running.returncode == ExitCode.INTERRUPTED, said.decode()
    told = [line for line in said.decode().split("\n") if line]
    assert told[-1] == "interrupted" and "the same command again does the rest" in told[-2]
    assert len(told) == 2 and lines.exists()


def test_nothing_is_run_again(results: Path) -> None:
    before = read(results / "a.json")
    result = invoke(*ARITH, "--limit", 3, "--samples", 2, "--out", results / "a.json")
    assert (result.exit_code, result.stderr) == (0, "0 of 6 samples done; 6 were done before\n")
    assert read(results / "a.json") == before
    assert re.search(r"^avg@2 ", result.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("--seed", 5), "`seed` is 0 there, 5 now"),
        (("--temperature", 0.5), "`sampling.temperature` is 1.0 there, 0.5 now"),
        (("--max-tokens", 300), "`limits.max_tokens` is 2048 there, 300 now"),
        (("--samples", 3), "`samples` is 2 there, 3 now"),
        (("--limit", 4), "`suites.arith.problems` is 3 there, 4 now"),
        (("--baseline",), '`modes` is ["parallel"] there, ["parallel", "in_turn"] now'),
        (("--no-parallel",), '`modes` is ["parallel"] there, ["in_turn"] now'),
        (("--answer", "boxed"), '`answer` is "last-number" there, "boxed" now'),
        (("--per-rule", "step.top_k=3"), "`sampling.rules.step.top_k` is not set there, 3 now"),
        (("--dtype", "bf16"), '`dtype` is "fp32" there, "bf16" now'),
        (("--no-chat",), "`chat` is true there, false now"),
    ],
)
def test_other_settings_are_refused_with_what_differs(
    results: Path, changed: tuple[object, ...], said: str
) -> None:
    out = results / "a.json"
    before = out.read_bytes()
    result = invoke(*ARITH, "--limit", 3, "--samples", 2, "--out", out, *changed)
    assert result.exit_code == ExitCode.USAGE
    assert (
        f"error: `{out}` was made with other settings: " in result.stderr and said in result.stderr
    )
    assert result.stderr.rstrip().endswith("give another --out, or the same settings")
    assert out.read_bytes() == before and result.stderr.count("\n") == 1


def test_a_run_of_other_settings_that_is_not_complete_is_refused() -> None:
    settings = {"settings": {"samples": 7}}
    Path("r.rows.jsonl").write_text(json.dumps(settings) + "\n")
    result = invoke(*ARITH, "--limit", 1, "--out", "r.json")
    assert result.exit_code == ExitCode.USAGE
    assert "`r.rows.jsonl` was made with other settings: " in result.stderr
    assert "more differ" in result.stderr
    assert Path("r.rows.jsonl").read_text() == json.dumps(settings) + "\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("r.json", b"my notes", "`r.json` is no report of `nprdsl eval`"),
        ("r.rows.jsonl", b"my notes", "`r.rows.jsonl` is no file of an evaluation"),
        ("r.rows.jsonl", b"my notes\n", "r.rows.jsonl:1: the line is no file of an evaluation"),
        ("r.rows.jsonl", b'{"suite": "arith", "sample": {}}\n', "is no file of an evaluation"),
        ("r.rows.jsonl", b'{"s": 1}\n', "r.rows.jsonl:1: the line is no file of an evaluation"),
    ],
)
def test_files_of_others_are_left_alone(name: str, content: bytes, said: str) -> None:
    Path(name).write_bytes(content)
    result = invoke(*ARITH, "--limit", 1, "--out", "r.json")
    assert result.exit_code == ExitCode.USAGE
    assert said in result.stderr and result.stderr.count("\n") == 1
    assert Path(name).read_bytes() == content


# -- comparisons -----------------------------------------------------------------------------------


def test_a_comparison(results: Path) -> None:
    a, b = results / "a.json", results / "b.json"
    result = invoke("eval", "--compare", a, b, "--plot", "c.svg")
    assert result.exit_code == 0, result.output
    for name in ("accuracy %", "best@2 %", "legal %", "tokens", "degree", "time to answer s"):
        assert re.search(rf"^{re.escape(name)} +[\d.]+ +[\d.]+ +[+-]", result.stdout, re.MULTILINE)
    assert "3 problems in both; * is more than noise" in result.stdout
    assert b"</svg>" in Path("c.svg").read_bytes()
    record = json.loads(invoke("eval", "--compare", a, b, a, "--json").stdout)
    assert [pair["name"] for pair in record["pairs"]] == [str(b), str(a)]
    same = record["pairs"][1]["differences"]
    assert all(one["gap"] == {"value": 0.0, "low": 0.0, "high": 0.0} for one in same)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--compare",), "--compare needs two RESULTS or more"),
        (("--compare", "a.json"), "--compare needs two RESULTS or more"),
        (("--compare", "a.json", "b.json", "--suite", "arith"), "it takes no --suite and no --out"),
        (("--compare", "a.json", "none.json"), "cannot read `none.json`: No such file"),
        (("--compare", "a.json", "notes.json"), "`notes.json` is no report of `nprdsl eval`"),
        (("--compare", "a.json", "b.json", "--plot", "x.gif"), "name it .png or .svg"),
    ],
)
def test_comparisons_that_cannot_be_made(
    results: Path, arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results)
    Path("notes.json").write_text("[]")
    refused("eval", *arguments, said=said)


# -- wrong input -----------------------------------------------------------------------------------


def refused(*arguments: object, said: str) -> None:
    """The command says that, in one message, and could not begin."""
    result = invoke(*arguments)
    assert result.exit_code == ExitCode.USAGE
    assert said in result.stderr and "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give a --suite, such as arith, or --compare"),
        (("x.json", "--suite", "arith"), "RESULTS are for --compare"),
        (("--suite", "arit"), "there is no suite `arit`; did you mean `arith`?"),
        (("--suite", "aime24"), "do not ship; name a file, or a dataset of the hub: aime24=PATH"),
        (("--suite", "aime24="), "`aime24=` is no suite; give NAME or NAME=PATH"),
        (("--suite", "arith,"), "`` is no suite"),
        (("--suite", "arith", "--suite", "arith"), "--suite names `arith` twice"),
        (("--suite", "x=none.jsonl"), "there is no file or folder `none.jsonl`"),
        (("--suite", "x=rows.json"), "no field of `rows.json` is known as the answer"),
        (("--suite", "x=rows.json", "--answer-field", "z"), "`rows.json` has no field `z`"),
        (("--suite", "arith", "--samples", "0"), "--samples"),
        (("--suite", "arith", "--limit", "0"), "--limit"),
        (("--suite", "arith", "--concurrency", "0"), "--concurrency"),
        (("--suite", "arith", "--answer", "all"), "--answer"),
        (("--suite", "arith", "--seed", "-1"), "--seed must be 0 or more, not -1"),
        (("--suite", "arith", "--temperature", "-1"), "`temperature` is -1.0, it must be 0"),
        (
            ("--suite", "arith", "--samples", "2", "--temperature", "0"),
            "all 2 samples of a problem",
        ),
        (("--suite", "arith", "--baseline", "--no-parallel"), "give one of them"),
        (("--suite", "arith", "--free", "--baseline"), "--baseline is of the schema's constraint"),
        (("--suite", "arith", "--free", "--no-parallel"), "--no-parallel is of the schema's"),
        (("--suite", "arith", "--free", "--depth", "1"), "--depth is of the schema's constraint"),
        (("--suite", "arith", "--free", "--max-tokens", "0"), "max_tokens must be at least 1"),
        (("--suite", "arith", "--free", "--native"), "--native is of the schema's constraint"),
        (("--suite", "arith", "--native", "--join", "first"), "--join takes masks"),
        (("--suite", "arith", "--native", "--rule-tokens", "step=90"), "--rule-tokens takes masks"),
        (("--suite", "arith", "--plot", "p.pdf"), "name it .png or .svg"),
        (("--suite", "arith", "--plot", "none/p.png"), "there is no folder `none`"),
        (("--suite", "arith", "--out", "r.txt"), "`r.txt` does not end in .json"),
        (("--suite", "arith", "--out", "none/r.json"), "there is no folder `none`"),
        (("--suite", "arith", "--out", "folder.json"), "it is a folder"),
        (("--suite", "arith", "--model", "none/such"), "cannot load the model `none/such`"),
        (("--suite", "arith", "--schema", "nprr"), "nprr"),
        (("--suite", "arith", "--max-tokens", "3"), "allow at least 16"),
        (("--suite", "arith", "--engine", "http://127.0.0.1:9", "--model", "x"), "--model is for"),
        (("--suite", "arith", "--engine", "http://127.0.0.1:9"), "http://127.0.0.1:9"),
    ],
)
def test_what_cannot_begin(arguments: tuple[str, ...], said: str) -> None:
    Path("rows.json").write_text('[{"prompt": "?", "y": 1}]')
    Path("folder.json").mkdir()
    refused("eval", *arguments, said=said)


def test_what_an_extra_installs_is_named(tmp_path: Path) -> None:
    for module, arguments in (
        ("math_verify", ARITH),
        ("matplotlib", (*ARITH, "--plot", "p.png")),
        ("pyarrow", ("eval", "--suite", "x=x.parquet")),
    ):
        (tmp_path / "x.parquet").write_bytes(b"")
        missing = f"import sys; sys.modules['{module}'] = None; "
        ran = process(*arguments, cwd=tmp_path, before=missing)
        assert ran.returncode == ExitCode.USAGE, module
        assert module in ran.stderr and "pip install 'nprdsl[train]'" in ran.stderr
        assert ran.stderr.count("\n") == 1


def test_suites_and_comparisons_do_without_torch(results: Path) -> None:
    before = "import sys; sys.modules['torch'] = None; "
    ran = process("eval", "--compare", "a.json", "b.json", cwd=results, before=before)
    assert ran.returncode == 0, ran.stderr


# -- series ----------------------------------------------------------------------------------------


def test_budgets_of_the_critical_path_beside_as_many_tokens_in_turn() -> None:
    command = (*ARITH, "--limit", 2, "--temperature", 0, "--budgets", "100,40", "--out", "s.json")
    ran = invoke(*command, "--plot", "s.svg")
    assert ran.exit_code == 0, ran.output
    made = read("s.json")
    assert made["varied"] == "critical-path"
    assert [(row["value"], row["mode"]) for row in made["rows"]] == [
        (40, "parallel"), (40, "in_turn"), (100, "parallel"), (100, "in_turn"),
    ]  # fmt: skip
    for row in made["rows"]:
        bounded = "critical_path" if row["mode"] == "parallel" else "tokens"
        assert row[bounded]["value"] <= row["value"]
        assert row["branches"] >= 1
    for sample in read("s-40-parallel.json")["suites"]["arith"]["samples"]:
        assert sample["critical_path"] <= 40 < sample["tokens"]
        assert sample["legal"]
    assert Path("s.svg").read_text().startswith("<?xml")
    before = Path("s.json").read_bytes()
    again = invoke(*command)
    assert "2 of 2 samples were there" in again.stderr or again.exit_code == 0
    assert Path("s.json").read_bytes() == before  # nothing was run anew: times are the same


def test_a_sweep_of_requests_at_once() -> None:
    more = ("--limit", 2, "--temperature", 0, "--max-tokens", 80, "--json")
    made = json.loads(invoke(*ARITH, *more, "--sweep", "concurrency=1,2").stdout)
    assert [row["value"] for row in made["rows"]] == [1, 2]
    assert all(row["speed_up"] > 0 and row["time_speed_up"] > 0 for row in made["rows"])
    assert len(made["by_degree"]) == 2 and all(degree > 1 for degree, _ in made["by_degree"])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--budgets", "x"), "`x` is no list of numbers"),
        (("--budgets", "0,8"), "`0,8` is no list of numbers"),
        (("--sweep", "batch=1"), "what can be swept is concurrency"),
        (("--budgets", "64", "--sweep", "concurrency=1"), "give one of them"),
        (("--budgets", "64", "--baseline"), "leave out --baseline: a series runs both ways"),
        (("--sweep", "concurrency=1", "--concurrency", 2), "leave out --concurrency"),
        (("--budget-of", "tokens"), "leave out --budget-of: it says what --budgets bounds"),
        (("--budgets", "64", "--budget-of", "tokens", "--max-tokens", 9), "leave out --max-tokens"),
        (("--budgets", "64", "--max-positions", 9), "leave out --max-positions"),
        (("--budgets", "3,64"), "max_positions is 3; the shortest legal trace"),
    ],
)
def test_series_that_make_no_sense(options: tuple[object, ...], why: str) -> None:
    ran = invoke(*ARITH, *options)
    assert ran.exit_code == ExitCode.USAGE, ran.output
    assert why in ran.stderr
