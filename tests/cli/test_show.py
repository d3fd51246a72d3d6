"""`nprdsl show`, `schemas` and `fuzz`: what they print, what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nprdsl.cli.failures import ExitCode
from nprdsl.schema import shipped
from tests.cli.commands import ROOT, invoke
from tests.cli.test_check import ILLEGAL, LEGAL

ARITH = ROOT / "nprdsl" / "runtime" / "models" / "arith"
BAD_SCHEMA = 'start: block "x"\nblock: "<a>" nope "</a>"\n'


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.txt").write_text(LEGAL + "\n")
    Path("bad.txt").write_text(ILLEGAL + "\n")
    Path("bad.lark").write_text(BAD_SCHEMA)


@pytest.mark.parametrize("name", [name for name in shipped() if name != "triage"])
def test_schemas_as_text(name: str, golden: Callable[[str, str], None]) -> None:
    result = invoke("show", name)
    text, _, automaton = result.output.partition("\nautomaton\n")
    assert result.exit_code == 0
    assert "the shortest trace takes" in automaton
    golden(f"cli/show_{name}.txt", text)


def test_automaton_over_a_tokenizer() -> None:
    size = json.loads(invoke("show", "arith", "--tokenizer", ARITH, "--json").output)["automaton"]
    assert size["vocabulary"] == 49 and size["tags"] == "special"
    assert size["minimum"] == 16 and size["rows"] > 1


def test_the_tokens_of_tags() -> None:
    """Each tag is shown with its id, or with the ids that spell it; nothing is warned of."""
    tokenizer = pytest.importorskip("tokenizers").Tokenizer.from_file(str(ARITH / "tokenizer.json"))
    tokenizer.add_tokens(["<v>", "<", ">", "v", "/"])
    tokenizer.save("some.json")
    Path("value.lark").write_text('start: "<v>" /[0-9]/ "</v>"\n')
    ids = {text: tokenizer.token_to_id(text) for text in ("<v>", "<", "/", "v", ">")}
    result = invoke("show", "value.lark", "--tokenizer", "some.json")
    spelled = f"{ids['<']} {ids['/']} {ids['v']} {ids['>']}"
    assert f"tags\n  <v>   {ids['<v>']}\n  </v>  spelled: {spelled}\n" in result.output
    assert result.stderr == ""
    record = json.loads(invoke("show", "value.lark", "--tokenizer", "some.json", "--json").output)
    assert record["tag_tokens"] == {"<v>": ids["<v>"]}
    assert record["automaton"]["tags"] == "mixed"


@pytest.mark.parametrize("model", ["arith", str(ARITH)])
def test_the_tokens_of_a_model(model: str) -> None:
    assert "  </takeaway>   10\n" in invoke("show", "arith", "--model", model).output


def test_a_schema_as_json() -> None:
    shown = json.loads(invoke("show", "npr", "--json").output)
    assert shown["forks"][0]["bound"] == ["LABEL"] and shown["forks"][0]["join"] == "reduce"


def test_a_path_of_a_schema() -> None:
    source = (ROOT / "nprdsl" / "grammars" / "parallel_r1.lark").read_text()
    Path("mine.lark").write_text(source)
    assert "block: 2..8 `path`; join by reread" in invoke("show", "mine.lark").output


@pytest.mark.parametrize("what", ["npr", "good.txt"])
def test_mermaid(what: str) -> None:
    schema = () if what == "npr" else ("--schema", "arith")
    assert "flowchart LR" in invoke("show", what, *schema, "--mermaid").output


def test_pictures_in_files() -> None:
    assert invoke("show", "npr", "--svg", "npr.svg").output == ""
    options = ("--schema", "arith", "--svg", "trace.svg", "--mask-svg", "mask.svg")
    assert invoke("show", "good.txt", *options).output == ""
    for name in ("npr.svg", "trace.svg", "mask.svg"):
        assert ElementTree.parse(name).getroot().tag.endswith("svg")


def test_a_trace_as_text(golden: Callable[[str, str], None]) -> None:
    golden("cli/show_trace.txt", invoke("show", "good.txt", "--schema", "arith").output)


def test_a_trace_in_tokens() -> None:
    options = ("--schema", "arith", "--tokenizer", str(ARITH), "--json")
    graph = json.loads(invoke("show", "good.txt", *options).output)
    assert graph["unit"] == "tokens" and graph["max_width"] == 2


def test_a_trace_on_stdin() -> None:
    assert "215 characters" not in invoke("show", "-", "--schema", "arith", stdin=LEGAL).output
    assert (
        f"{len(LEGAL)} characters" in invoke("show", "-", "--schema", "arith", stdin=LEGAL).output
    )


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nprr",), ExitCode.USAGE, "did you mean `npr`?"),
        (("none.lark",), ExitCode.USAGE, "no schema file at `none.lark`"),
        (("bad.lark",), ExitCode.BAD, "error[undefined-rule]"),
        (("bad.txt", "--schema", "arith"), ExitCode.BAD, "--> bad.txt:1:"),
        (("good.txt", "--schema", "bad.lark"), ExitCode.USAGE, "error[undefined-rule]"),
        (("npr", "--mask-svg", "m.svg"), ExitCode.USAGE, "a schema has no mask"),
        (("npr", "--svg", "no/such.svg"), ExitCode.USAGE, "cannot write `no/such.svg`"),
        (("npr", "--tokenizer", "none"), ExitCode.USAGE, "no tokenizer at `none`"),
        (("npr", "--model", "none"), ExitCode.USAGE, "cannot load the tokenizer of `none`"),
        (("npr", "--model", "a", "--tokenizer", "b"), ExitCode.USAGE, "exclude each other"),
        (("npr", "--tokenizer", "bad.lark"), ExitCode.USAGE, "is not JSON"),
        (("npr", "--tokenizer", "some.json"), ExitCode.USAGE, "is no tokenizer"),
        (("parallel_r1", "--tokenizer", str(ARITH)), ExitCode.BAD, "error[unspellable-tag]"),
    ],
)
def test_refusals(arguments: tuple[str, ...], code: ExitCode, said: str) -> None:
    Path("some.json").write_text('{"a": 1}')
    result = invoke("show", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr


def test_schemas(golden: Callable[[str, str], None]) -> None:
    golden("cli/schemas.txt", invoke("schemas").output)


def test_schemas_as_json() -> None:
    found = {entry["name"]: entry for entry in json.loads(invoke("schemas", "--json").output)}
    assert set(found) == set(shipped())
    assert found["triage"]["declares"] == ["VERDICT", "DECISION"]
    assert found["threadweaver"]["joins"] == ["reread"]


def test_fuzz() -> None:
    report = json.loads(invoke("fuzz", "arith", "--examples", 5, "--json").output)
    assert (report["examples"], report["failure"]) == (5, None)


def test_fuzz_tells_the_counterexample(monkeypatch: pytest.MonkeyPatch) -> None:
    from nprdsl import testing

    def fails(schema: object, examples: int, progress: object = None, *, start: int) -> object:
        failure = testing.FuzzFailure(testing.Property.ACCEPTED, "<a>\n\x1b[2J", "it is refused")
        return testing.FuzzReport("npr", 3, 10, {}, failure)

    monkeypatch.setattr(testing, "fuzz", fails)
    result = invoke("fuzz", "npr")
    assert result.exit_code == ExitCode.BAD
    assert "error[accepted]: it is refused\n  | <a>\n  | \ufffd[2J\n" in result.output


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("nprr",), ExitCode.USAGE),
        (("bad.lark",), ExitCode.BAD),
        (("npr", "--examples", "0"), ExitCode.USAGE),
        (("triage",), ExitCode.BAD),
    ],
)
def test_fuzz_refuses(arguments: tuple[str, ...], code: ExitCode) -> None:
    result = invoke("fuzz", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert "rror" in result.stderr
