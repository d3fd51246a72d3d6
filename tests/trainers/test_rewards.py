"""Rewards and their reasons: the golden table, what legal traces get, what each term adds."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

import nprdsl
from nprdsl.schema import Schema
from nprdsl.structure.violations import TraceError, ViolationCode
from nprdsl.testing import mutated, traces
from nprdsl.trainers.rewards import Reward
from nprdsl.trainers.rewards.format import (
    NPR,
    Counting,
    Penalty,
    RuleRole,
    format_reward,
    roles_of,
)
from nprdsl.trainers.rewards.presets import PRESETS, GradedTrace

GOLDEN = Path(__file__).parent / "rewards.json"
TABLE = json.loads(GOLDEN.read_text(encoding="utf-8"))
SCHEMAS = ("npr", "multiverse", "threadweaver", "parallel_r1", "arith")


def of_text(schema: Schema, text: str) -> Reward:
    return format_reward(schema.grammar, text, schema.check(text))


def test_the_table_has_sixty_texts() -> None:
    assert len(TABLE) == 60 and len({entry["text"] for entry in TABLE}) == 60


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry["case"])
def test_golden_scores(entry: dict[str, object]) -> None:
    found = of_text(nprdsl.load(str(entry["schema"])), str(entry["text"]))
    assert found.score == pytest.approx(entry["score"])
    assert [[reason.name, reason.score] for reason in found.reasons] == entry["reasons"]
    assert all(reason.why for reason in found.reasons)


@pytest.mark.parametrize("name", SCHEMAS)
def test_legal_traces_cost_nothing_and_faults_do(name: str) -> None:
    schema = nprdsl.load(name)

    @settings(max_examples=15, deadline=None)
    @given(traces(schema))
    def legal(text: str) -> None:
        assert of_text(schema, text).score == 0 and not of_text(schema, text).reasons

    @settings(max_examples=15, deadline=None)
    @given(mutated(schema))
    def faulty(mutation) -> None:  # type: ignore[no-untyped-def]
        found = of_text(schema, mutation.text)
        assert NPR.least <= found.score < 0 and found.reasons

    legal()
    faulty()


def test_roles_are_those_of_the_blocks() -> None:
    roles = roles_of(nprdsl.load("npr").grammar)
    assert roles == {
        "guideline": RuleRole.LIST,
        "plan": RuleRole.ITEM,
        "step": RuleRole.BRANCH,
        "takeaway": RuleRole.JOIN,
    }


def test_a_penalty_must_cost_something() -> None:
    with pytest.raises(ValueError, match="must be negative"):
        Penalty(ViolationCode.UNCLOSED, 0.0)
    assert Penalty(ViolationCode.UNCLOSED, -1.0).counting is Counting.ONCE


# -- whole rewards


LEGAL = (
    "<guideline>\n<plan>1: a</plan>\n<plan>2: b</plan>\n</guideline>\n<step>\n1: aaaa</step>"
    "\n<step>\n2: bbbb</step>\n<takeaway>\nab</takeaway>\n\\boxed{7}"
)
FAULTY = LEGAL.replace("<step>\n2: bbbb</step>", "")


def judged(text: str, *, right: bool) -> GradedTrace:
    schema = nprdsl.load("npr")
    try:
        return GradedTrace(schema.grammar, text, "7", right, (), schema.parse(text).graph)
    except TraceError as error:
        return GradedTrace(schema.grammar, text, "7", right, tuple(error.violations), None)


@pytest.mark.parametrize(
    ("preset", "text", "right", "score"),
    [
        ("zero", LEGAL, True, 1.0),
        ("zero", LEGAL, False, -1.0),
        ("zero", FAULTY, True, -1.0),
        ("papo", LEGAL, True, 1.0),
        ("papo", FAULTY, False, -1.0),
        ("threadweaver", LEGAL, False, 0.0),
        ("threadweaver", FAULTY, True, 0.0),
        ("parallel_r1", LEGAL, True, 1.3 + 0.6 * math.log(2)),
        ("parallel_r1", LEGAL, False, -0.7 - 0.1 * math.log(2)),
        ("parallel_r1", FAULTY, True, 0.7),
    ],
)
def test_whole_rewards(preset: str, text: str, right: bool, score: float) -> None:
    found = PRESETS[preset](judged(text, right=right))
    assert found.score == pytest.approx(score)
    assert found.score == pytest.approx(sum(reason.score for reason in found.reasons))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_trace_that_was_cut_off_after_an_answer_has_a_reward(preset: str) -> None:
    """It breaks no rule, but has no graph: the end token was not sampled."""
    cut = replace(judged(LEGAL, right=False), graph=None)
    assert PRESETS[preset](cut).score <= 0


def test_threadweaver_pays_for_what_runs_in_parallel() -> None:
    case = judged(LEGAL, right=True)
    assert case.graph is not None
    saved = 1 - case.graph.critical_path / case.graph.tokens
    assert 0 < saved < 0.2
    assert PRESETS["threadweaver"](case).score == pytest.approx(1 + 0.5 * saved)
    wide = LEGAL.replace("aaaa", "a" * 400).replace("bbbb", "b" * 400)
    assert PRESETS["threadweaver"](judged(wide, right=True)).score == pytest.approx(1.1)
