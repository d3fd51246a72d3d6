"""`nprdsl check`: places, rows of JSONL, exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nprdsl.cli.failures import ExitCode
from tests.cli.commands import invoke

LEGAL = (
    "<guideline><plan>1:37*42</plan><plan>2:85*19</plan></guideline>"
    "<step>1:=1554</step><step>2:=1615</step><takeaway>=3169</takeaway>\\boxed{3169}"
)
ILLEGAL = LEGAL.replace("<step>2", "<step>3").replace("=3169</takeaway>", "</takeaway>")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str) -> str:
    Path(name).write_text(text, encoding="utf-8", newline="")
    return name


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_legal_files(end: str) -> None:
    result = invoke("check", write("a.txt", LEGAL + end), "--schema", "arith")
    assert (result.exit_code, result.output) == (0, "1 trace: legal\n")


def test_violations_have_places_lines_and_carets(golden: Callable[[str, str], None]) -> None:
    files = [write("good.txt", LEGAL), write("bad.txt", ILLEGAL + "\n")]
    result = invoke("check", *files, "--schema", "arith")
    assert result.exit_code == ExitCode.BAD
    golden("cli/check.txt", result.output)


def test_rows_of_jsonl(golden: Callable[[str, str], None]) -> None:
    rows = [{"text": LEGAL}, {"text": ILLEGAL}]
    file = write("rows.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    result = invoke("check", file, "--schema", "arith")
    assert result.exit_code == ExitCode.BAD
    golden("cli/check_jsonl.txt", result.output)


def test_another_field_of_any_file() -> None:
    file = write("rows.txt", json.dumps({"trace": LEGAL}) + "\n")
    assert invoke("check", file, "--schema", "arith", "--jsonl-field", "trace").exit_code == 0


def test_stdin() -> None:
    result = invoke("check", "-", "--schema", "arith", stdin=ILLEGAL)
    assert result.exit_code == ExitCode.BAD
    assert "--> stdin:1:" in result.output


def test_json() -> None:
    files = [write("good.txt", LEGAL), write("bad.txt", ILLEGAL)]
    result = invoke("check", *files, "--schema", "arith", "--json")
    good, bad = json.loads(result.stdout)
    assert result.exit_code == ExitCode.BAD
    assert (good["legal"], good["violations"]) == (True, [])
    assert [v["code"] for v in bad["violations"]] == ["label-mismatch", "empty-text"]


def test_limits_on_structure() -> None:
    file = write("a.txt", LEGAL)
    result = invoke("check", file, "--schema", "arith", "--branches", 1)
    assert result.exit_code == ExitCode.BAD
    assert "error[too-many]" in result.output


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.txt", None, "cannot read `missing.txt`: No such file or directory"),
        ("binary.txt", b"ok \xff\xfe", "byte 0xff at offset 3 is not UTF-8"),
        ("nul.txt", b"a\0b", "it has a NUL at offset 1"),
        ("no.jsonl", b"<plan>\n", "no.jsonl:1: the row is not JSON"),
        ("list.jsonl", b"[1]\n", "list.jsonl:1: the row is not a JSON object"),
        ("field.jsonl", b'{"t": "x"}\n', "field `text` is not among t"),
        ("number.jsonl", b'{"text": 3}\n', "field `text` is not a text"),
    ],
)
def test_what_cannot_be_read_is_2(name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    result = invoke("check", name, write("bad.txt", ILLEGAL), "--schema", "arith")
    assert result.exit_code == ExitCode.USAGE
    assert said in result.stderr and result.stderr.count("\n") == 1
    assert "1 trace: 1 illegal" in result.stdout


def test_rows_that_cannot_be_read_stop_no_others() -> None:
    rows = [json.dumps({"text": LEGAL}), "{", "[" * 100_000, json.dumps({"text": ILLEGAL})]
    result = invoke("check", write("rows.jsonl", "\n".join(rows)), "--schema", "arith")
    assert result.exit_code == ExitCode.USAGE
    assert "2 traces: 1 illegal" in result.stdout
    assert "rows.jsonl:2: " in result.stderr and "rows.jsonl:3: " in result.stderr


def test_of_many_rows_that_cannot_be_read_five_are_told() -> None:
    result = invoke("check", write("rows.jsonl", '{"t": "x"}\n' * 40), "--schema", "arith")
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr.count("rows.jsonl:") == 5
    assert result.stderr.endswith("error: 35 more cannot be read\n")


def test_half_a_surrogate_pair_in_a_row_is_shown() -> None:
    row = json.dumps({"text": LEGAL.replace("<takeaway>=", "<takeaway>\ud800</step>")})
    result = invoke("check", write("rows.jsonl", row), "--schema", "arith")
    assert result.exit_code == ExitCode.BAD


def test_a_schema_is_no_trace() -> None:
    file = write("my.lark", 'start: "<a>" TEXT "</a>"\n%declare TEXT\n')
    result = invoke("check", file)
    assert result.exit_code == ExitCode.USAGE
    assert "`my.lark` is a schema, no trace: `nprdsl show my.lark` checks it" in result.output


def test_a_folder_is_no_trace(tmp_path: Path) -> None:
    result = invoke("check", tmp_path)
    assert result.exit_code == ExitCode.USAGE
    assert "Is a directory" in result.stderr


def test_a_very_deep_trace_is_no_traceback() -> None:
    nested = "<Parallel><Goal><Outline>1: a</Outline></Goal><Path>1: "
    deep = nested * (sys.getrecursionlimit() + 100)
    result = invoke("check", write("deep.txt", deep), "--schema", "multiverse")
    assert result.exit_code == ExitCode.BAD


def test_no_files_is_a_usage_error() -> None:
    assert invoke("check").exit_code == ExitCode.USAGE


def test_types_of_terminals() -> None:
    write("types.json", json.dumps({"VERDICT": ["yes", "no"], "DECISION": "close|reply"}))
    trace = (
        "<guideline>\n<plan>1: is it?</plan>\n</guideline>\n<step>\n1: VERDICT\n</step>\n"
        "<takeaway>\nclose\n</takeaway>\n"
    )
    good, bad = trace.replace("VERDICT", "yes"), trace.replace("VERDICT", "maybe")
    options = ("--schema", "triage", "--terminals", "types.json")
    assert invoke("check", write("good.txt", good), *options).exit_code == 0
    result = invoke("check", write("bad.txt", bad), *options)
    assert "error[bad-value]" in result.output


def test_types_from_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    write("cli_terminal_types.py", "TYPES = {'VERDICT': 'yes|no', 'DECISION': 'close'}\nN = 3\n")
    result = invoke("show", "triage", "--terminals", "cli_terminal_types:TYPES")
    assert result.exit_code == 0 and "yes|no" in result.output


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("types", "give MODULE:NAME or a .json file"),
        ("nowhere_at_all:TYPES", "cannot import `nowhere_at_all`"),
        ("json:TYPES", "has no `TYPES`"),
        ("json:dumps", "must map terminals to types"),
        ("none.json", "cannot read `none.json`"),
        ("list.json", "must be an object"),
        ("number.json", "a type is a regex, a JSON schema or a list"),
        ("wrong.json", "error[bad-terminal-type]"),
    ],
)
def test_bad_types(given: str, said: str) -> None:
    write("list.json", "[]")
    write("number.json", '{"VERDICT": 3}')
    write("wrong.json", '{"VERDICT": "(", "DECISION": "a"}')
    result = invoke("check", write("a.txt", LEGAL), "--schema", "triage", "--terminals", given)
    assert result.exit_code == ExitCode.USAGE
    assert said in result.stderr
