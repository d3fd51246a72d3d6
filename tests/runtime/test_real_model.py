"""A real model, SmolLM2-135M-Instruct, that never saw the format: legal, parallel, typed, exact.

Its vocabulary has none of the tags, so they are spelled in text. Slow: minutes on two cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nprdsl
from examples import own_schema, triage
from nprdsl import Limits, Schema
from nprdsl.masks.bound_schema import TagMode
from nprdsl.runtime import smollm2
from nprdsl.runtime.local import LocalEngine
from nprdsl.runtime.results import Result
from nprdsl.runtime.sampling import Sampling
from nprdsl.structure.events import EndReason
from tests.runtime.tiny_models import dense

pytestmark = pytest.mark.slow

GREEDY = Sampling(temperature=0.0)
QUESTION = (
    "A shop sells pens at 2 dollars and books at 10 dollars. I buy 3 pens and 4 books. What does "
    "it cost, and what change do I get from 50 dollars?"
)
GOAL_BOUND = """
%import .parallel (map, process, reduce)
start:     map{guideline} process{plan, step} reduce{takeaway}
guideline: "<guideline>" _NL (plan _NL)~2..3 "</guideline>"
plan:      "<plan>" LABEL ": " GOAL "</plan>"
step:      _NL "<step>" _NL LABEL ": " GOAL _NL TEXT "</step>"
takeaway:  _NL "<takeaway>" _NL TEXT "</takeaway>"
LABEL: /[1-9]/
_NL: "\\n"
%declare TEXT GOAL
"""
LIMITS = {
    "npr": Limits(max_tokens=190, blocks=1, branches=3, rule_tokens={"plan": 20, "step": 24}),
    "goal": Limits(max_tokens=190, rule_tokens={"plan": 20, "step": 40, "takeaway": 24}),
}


@pytest.fixture(scope="module")
def folder() -> Path:
    found = smollm2.local_folder()
    if found is None:
        pytest.skip(
            "SmolLM2-135M-Instruct is not here; get it with python -m nprdsl.runtime.smollm2"
        )
    return found


@pytest.fixture(scope="module")
def engine(folder: Path) -> LocalEngine:
    return LocalEngine.from_pretrained(folder, dtype="fp32")


@pytest.fixture(scope="module")
def goal(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    file = tmp_path_factory.mktemp("schemas") / "goal.lark"
    file.write_text(GOAL_BOUND, encoding="utf-8")
    return nprdsl.load(file)


def ask(engine: LocalEngine, schema: Schema, name: str, *, parallel: bool = True) -> Result:
    return engine.generate(
        schema,
        QUESTION,
        sampling=GREEDY,
        limits=LIMITS[name],
        parallel=parallel,
        chat=True,
        instructions=True,
    )


def check_budgets(schema: Schema, result: Result, limits: Limits) -> None:
    """The trace is legal; the whole and every use of a rule are within their caps."""
    assert schema.check(result.text, limits.bounds) == []
    assert result.usage.total <= limits.max_tokens
    assert result.trace is not None
    block = schema.grammar.blocks[0]
    assert block.item is not None
    items, branches = result.trace.find(block.item), result.trace.find(block.branch)
    assert len(items) == len(branches) >= 1
    for item, branch in zip(items, branches, strict=True):
        for name in block.bound:
            assert item.find(name)[0].text == branch.find(name)[0].text


def check_logprobs(engine: LocalEngine, result: Result) -> None:
    """The engine's log-probabilities are those of one dense forward over the layout."""
    trace, layout = result.trace, result.layout
    assert trace is not None and layout is not None
    ids, seen = np.array(trace.ids)[layout.token], layout.visible()
    oracle = dense(engine.model, ids.tolist(), layout.position, seen)
    compared = 0
    for entry in np.flatnonzero(layout.sampled):
        before = int(np.flatnonzero(seen[entry, :entry])[-1])
        found = result.logprobs[layout.token[entry] - trace.prompt]
        assert found is not None
        assert abs(found - float(oracle[before, ids[entry]])) <= 1e-3
        compared += 1
    assert compared == result.usage.sampled_tokens


def test_tokenizer_is_rebuilt_exactly(engine: LocalEngine) -> None:
    assert engine.tokenizer is not None
    pieces = engine.tokenizer.tokenize("It was 1945 <|im_end|>")
    assert pieces == ["It", "Ġwas", "Ġ", "1", "9", "4", "5", "Ġ", "<|im_end|>"]
    assert engine.tokenizer("It").input_ids == [engine.tokenizer.convert_tokens_to_ids("It")]
    assert engine.tokenizer.eos_token == "<|im_end|>" and engine.chats


@pytest.mark.parametrize("name", ["npr", "goal"])
def test_branches_run_in_parallel_and_exactly(name: str, engine: LocalEngine, goal: Schema) -> None:
    schema = nprdsl.load("npr") if name == "npr" else goal
    assert engine.bind(schema).mode is TagMode.TEXT
    parallel = ask(engine, schema, name)
    check_budgets(schema, parallel, LIMITS[name])
    check_logprobs(engine, parallel)
    assert parallel.usage.forwards < parallel.usage.critical_path < parallel.usage.total

    in_turn = ask(engine, schema, name, parallel=False)
    assert in_turn.token_ids == parallel.token_ids
    assert in_turn.usage.forwards > parallel.usage.forwards


def test_every_step_of_triage_is_a_verdict(engine: LocalEngine) -> None:
    schema, seeds = triage.SCHEMA, range(4)
    results = engine.generate(
        schema,
        [triage.TICKET] * len(seeds),
        sampling=[Sampling(temperature=0.8, top_p=0.95, seed=seed) for seed in seeds],
        limits=triage.LIMITS,
        chat=True,
        instructions=True,
    )
    found = [triage.triage(result) for result in results]
    for one, result in zip(found, results, strict=True):
        assert schema.check(result.text, triage.LIMITS.bounds) == []
        assert len(one.verdicts) == len(result.trace.find("step")) if result.trace else False
    assert len({repr(one.verdicts) for one in found}) > 1


def test_a_schema_of_ones_own(engine: LocalEngine) -> None:
    schema = own_schema.own_schema()
    result = engine.generate(
        schema,
        own_schema.QUESTION,
        sampling=Sampling(temperature=0.7, seed=1),
        limits=own_schema.LIMITS,
        chat=True,
        instructions=True,
    )
    assert schema.check(result.text) == []
    assert result.finish in (EndReason.COMPLETED, EndReason.BUDGET)


def test_the_command_takes_any_model(folder: Path) -> None:
    program = "from nprdsl.cli.main import main; main()"
    command = [sys.executable, "-c", program, "run", QUESTION, "--json"]
    command += ["--model", str(folder), "--schema", "npr", "--max-tokens", "90", "--blocks", "1"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert nprdsl.load("npr").check(told["text"]) == []
