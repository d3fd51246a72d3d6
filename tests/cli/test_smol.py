"""`nprdsl run` as a newcomer types it: the English model of the package, and its missing base."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from functools import cache
from typing import cast

import pytest

import nprdsl
from nprdsl.cli.failures import ExitCode
from nprdsl.cli.generation import (
    GenerationOptions,
    Generator,
    LimitOptions,
    SamplingOptions,
    within_own_limits,
)
from nprdsl.machine.actions import ALL
from nprdsl.machine.budget import DEFAULT_LIMITS, Limits
from nprdsl.runtime import LocalEngine, smollm2
from nprdsl.runtime.bundled import BUNDLED, SMOL, bundled_for, model_folder
from nprdsl.runtime.engine import Engine
from nprdsl.runtime.sampling import Sampling
from nprdsl.trainers.smol.questions import Split, questions
from tests.cli.commands import ROOT, invoke

pytest.importorskip("torch")
pytest.importorskip("peft")

LIMITS = BUNDLED[SMOL].limits
(DEMO,) = re.findall(r"^\t\t'(.*)'$", (ROOT / "Makefile").read_text("utf-8"), re.M)


needs_the_base = pytest.mark.skipif(
    smollm2.local_folder() is None, reason=f"needs the base: {smollm2.COMMAND}"
)


_loaded = cache(LocalEngine.from_pretrained)


@pytest.fixture
def loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """To load it and look at its forwards takes longer than to answer."""
    monkeypatch.setattr(LocalEngine, "from_pretrained", _loaded)


@needs_the_base
@pytest.mark.usefixtures("loaded_once")
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


@needs_the_base
@pytest.mark.usefixtures("loaded_once")
def test_a_question_of_another_kind_does_not_fill_the_first_plan() -> None:
    """Found by asking: it wrote the answer into the plan, again and again, to the budget's end."""
    record = json.loads(invoke("run", "What is 17 + 25?", "--temperature", 0, "--json").stdout)
    assert record["finish"] == "completed"
    assert record["usage"]["tokens"] < 200
    assert record["text"].count("boxed") == 1


def test_no_text_of_its_training_comes_near_its_limits() -> None:
    words = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(model_folder(SMOL))
    texts = LIMITS.text_tokens
    assert texts is not None
    most = {"plan": texts.item, "step": texts.branch, "takeaway": texts.trunk}
    for one in questions(Split.TRAIN, 300):
        assert len(words.encode(one.trace)) < LIMITS.max_tokens
        for tag, tokens in most.items():
            written = re.findall(rf"<{tag}>(.*?)</{tag}>", one.trace, re.S)
            assert all(len(words.encode(text)) < 0.8 * tokens for text in written)


def limits_of(schema: str = "npr", model: str | None = None, **given: object) -> Limits:
    options = GenerationOptions(
        model=model,
        limits=LimitOptions(**given),  # type: ignore[arg-type]
        sampling=SamplingOptions(),
    )
    generator = Generator(
        engine=cast("Engine", None),
        model="",
        schema_name=schema,
        schema=nprdsl.load(schema),
        limits=options.limits.limits(),
        join=ALL,
        parallel=True,
        sampling=Sampling(),
        prompting={},
    )
    return within_own_limits(generator, options).limits


def test_its_limits_are_its_own_where_none_are_given() -> None:
    assert limits_of() == LIMITS == limits_of(model=SMOL)
    assert limits_of(max_tokens=2048) == replace(LIMITS, max_tokens=2048)
    assert limits_of(depth=0, max_positions=90) == replace(LIMITS, depth=0, max_positions=90)
    assert limits_of(rule_tokens=(("plan", 9),)) == Limits(rule_tokens={"plan": 9})
    assert limits_of(branch_tokens=50) == Limits(branch_tokens=50)
    assert limits_of("multiverse") == limits_of(model="elsewhere") == DEFAULT_LIMITS
    assert limits_of("arith", model="arith") == DEFAULT_LIMITS


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
