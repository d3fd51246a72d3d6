"""`nprdsl run` as a newcomer types it: the English model of the package, and its missing base."""

from __future__ import annotations

import json
import re
import sys

import pytest

import nprdsl
from nprdsl.cli.failures import ExitCode
from nprdsl.runtime import smollm2
from nprdsl.runtime.bundled import BUNDLED, SMOL, bundled_for
from tests.cli.commands import ROOT, invoke

pytest.importorskip("torch")
pytest.importorskip("peft")

(DEMO,) = re.findall(r"^\t\t'(.*)'$", (ROOT / "Makefile").read_text("utf-8"), re.M)


@pytest.mark.skipif(smollm2.local_folder() is None, reason=f"needs the base: {smollm2.COMMAND}")
def test_the_demo_answers_an_english_question_in_three_branches() -> None:
    ran = invoke("run", DEMO, "--temperature", 0, "--json")
    assert ran.stderr.startswith("`smol` answers word problems in English")
    record = json.loads(ran.stdout)
    assert nprdsl.load("npr").check(record["text"]) == []
    assert record["text"].count("<step>") == 3
    counts = [int(number) for number in re.findall(r"\d+", DEMO)]
    total = sum(one * other for one, other in zip(counts[::2], counts[1::2], strict=True))
    assert record["answer"].endswith(f"\\boxed{{{total}}}.")
    assert record["usage"]["critical_path"] < record["usage"]["tokens"]


def test_without_its_base_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nprdsl.runtime.local.loading.local_folder", lambda: None)
    monkeypatch.setattr("nprdsl.runtime.local.loading.why_not", lambda *_, **__: "not on disk")
    result = invoke("run", DEMO)
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert "`smol` is a PEFT adapter, and its base model is missing" in result.stderr
    assert f"get it with: {smollm2.COMMAND}" in result.stderr


@pytest.mark.parametrize("name", ["peft", "platformdirs", "gguf"])
def test_without_its_extra_it_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The base is asked for first, its own command then says what is missing."""
    monkeypatch.setattr("nprdsl.runtime.local.loading.why_not", lambda *_, **__: "not on disk")
    monkeypatch.setattr(smollm2, "find_spec", lambda asked: None if asked == name else asked)
    if name == "peft":
        monkeypatch.setitem(sys.modules, name, None)
        assert smollm2.INSTALL in invoke("run", DEMO).stderr
        return
    assert f"get it with: {smollm2.COMMAND}" in invoke("run", DEMO).stderr
    assert smollm2.main() == 1
    assert f"this needs {name}; install it with: {smollm2.INSTALL}" in capsys.readouterr().err


def test_a_schema_chooses_the_model_that_knows_it() -> None:
    assert bundled_for(None) == bundled_for("npr") == bundled_for("my.lark") == SMOL
    assert [bundled_for(model.schema) for model in BUNDLED.values()] == [*BUNDLED]
