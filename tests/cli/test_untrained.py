"""What `nprdsl run` does for a model that does not know the format, and what it says of it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import click
import pytest

pytest.importorskip("torch")

from nprdsl.cli.failures import Failure
from nprdsl.cli.generation import GenerationOptions, Generator, LimitOptions, SamplingOptions
from nprdsl.cli.untrained import UntrainedOptions, helped
from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.machine.actions import ALL
from nprdsl.prompting.examples import ExampleChoice
from nprdsl.runtime.local import LocalEngine
from nprdsl.runtime.sampling import Sampling
from nprdsl.schema import load
from tests.cli.commands import invoke
from tests.runtime.tiny_models import byte_tokenizer, model

OPTIONS = GenerationOptions(limits=LimitOptions(), sampling=SamplingOptions())
NPR = load("npr")


@cache
def generator(*, special: bool = False) -> Generator:
    tokenizer = byte_tokenizer(NPR.tags if special else ())
    return Generator(
        engine=LocalEngine(model("llama", len(tokenizer)), tokenizer),
        model="tiny",
        schema_name="npr",
        schema=NPR,
        limits=OPTIONS.limits.limits(),
        join=ALL,
        parallel=True,
        sampling=Sampling(temperature=0.0),
        prompting={"chat": False, "instructions": True},
    )


def with_limits(**limits: object) -> GenerationOptions:
    return replace(OPTIONS, limits=LimitOptions(**limits))  # type: ignore[arg-type]


def test_an_untrained_model_is_helped_and_told_so() -> None:
    made = helped(generator(), OPTIONS, UntrainedOptions())
    assert made.limits == made.engine.shared_limits(NPR)
    assert made.sampling.for_rule("plan").repetition_penalty == 1.1
    assert made.prompting["instructions"] and made.examples is ExampleChoice.OWN
    assert NPR.examples[0].question in made.sampling.avoid
    assert made.note == (
        "note: the model was not trained on `npr`: 2 worked examples stand before the prompt, "
        "its texts share 1024 tokens, repetition in them is penalised by 1.1, what the examples "
        "say is not written again (none of it with --trained)"
    )


@pytest.mark.parametrize("special", [True, False])
def test_a_trained_model_is_left_alone(special: bool) -> None:
    said = UntrainedOptions() if special else UntrainedOptions(trained=True)
    made = helped(generator(special=special), OPTIONS, said)
    assert (made.limits, made.sampling) == (generator().limits, generator().sampling)
    assert not made.prompting["instructions"] and not made.note
    assert helped(generator(special=True), OPTIONS, UntrainedOptions(trained=False)).note


def test_what_the_user_sets_is_kept() -> None:
    shared = generator().engine.shared_limits(NPR, 700)
    made = helped(generator(), with_limits(max_tokens=700, branches=5), UntrainedOptions())
    assert made.limits == replace(shared, branches=5)
    for own in (with_limits(rule_tokens=(("plan", 99),)), with_limits(branch_tokens=90)):
        one = replace(generator(), limits=own.limits.limits())
        assert helped(one, own, UntrainedOptions()).limits == own.limits.limits()
    penalty = Sampling(temperature=0.0, repetition_penalty=1.3)
    one = helped(replace(generator(), sampling=penalty), OPTIONS, UntrainedOptions())
    assert one.sampling == penalty and "penalised" not in one.note


def test_examples_of_a_file_and_none(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    row = {"question": "Why?", "trace": NPR.examples[2].trace}
    file.write_text(json.dumps(row), encoding="utf-8")
    made = helped(generator(special=True), OPTIONS, UntrainedOptions(example=str(file)))
    assert made.prompting["instructions"]
    assert [example.question for example in made.examples] == ["Why?"]  # type: ignore[union-attr]
    words = helped(generator(), OPTIONS, UntrainedOptions(example="none"))
    assert words.examples == () and "the format is described before the prompt" in words.note
    with pytest.raises(click.UsageError, match="--example is shown with the instructions"):
        off = replace(OPTIONS, instructions=False)
        helped(generator(), off, UntrainedOptions(example="none"))
    file.write_text("\n", encoding="utf-8")
    with pytest.raises(Failure, match="holds no example"):
        helped(generator(), OPTIONS, UntrainedOptions(example=str(file)))
    file.write_text(json.dumps({"question": "q", "trace": "no"}), encoding="utf-8")
    with pytest.raises(SchemaError, match=r"mine\.jsonl:1:1: the trace of the example"):
        helped(generator(), OPTIONS, UntrainedOptions(example=str(file)))


def test_the_command_tells_note_and_limits() -> None:
    ran = invoke(
        "run", "--model", "arith", "37*42+85*19?", "--no-trained", "--no-instructions", "--json"
    )
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    assert ran.stderr.startswith("note: the model was not trained on `arith`: its texts share 1024")
    assert told["limits"]["text_tokens"]["item"] == 32 and told["limits"]["max_tokens"] == 1024
