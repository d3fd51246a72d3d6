"""Chains through all five steps against real HTTP, with an oracle that can be made to err."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nprdsl
from nprdsl.trainers.curate import Chain, Curated, Rejected, RejectReason, Summary
from nprdsl.trainers.curate.sentences import distance, sentences
from tests.curate.curating import Curating, chain
from tests.curate.oracle import Annotated, Oracle, math_chains, math_oracle, step_of
from tests.curate.server import Asked, Failed, Response, Said, Scripted, scripted

ROWS = math_chains()
CHAINS = [chain(row) for row in ROWS]
BY_ID = {c.id: c for c in CHAINS}
CASES = BY_ID["counting_and_probability/525"]  # three blocks, two of them nested
SIMILAR = BY_ID["intermediate_algebra/1510"]  # an edit: the second sentence says `Similarly`
SEQUENTIAL = BY_ID["number_theory/357"]
SCHEMAS = [nprdsl.load(name) for name in ("multiverse", "npr", "threadweaver", "parallel_r1")]
Spoil = Callable[[dict[str, Any]], Response]


class Erring:
    """The oracle, whose answers to one step are spoiled for the first `times`."""

    def __init__(self, step: str, spoil: Spoil, times: int) -> None:
        self._oracle, self._step, self._spoil, self._left = math_oracle(), step, spoil, times

    def __call__(self, asked: Asked) -> Response:
        said = self._oracle(asked)
        if step_of(asked) != self._step or self._left == 0:
            return said
        self._left -= 1
        assert isinstance(said, Said)
        return self._spoil(json.loads(said.text))


def says(**changes: Any) -> Spoil:
    return lambda answer: Said(json.dumps({**answer, **changes}))


def complaints(server: Scripted) -> list[str]:
    """What the model was told of its answers."""
    return [a.body["messages"][-1]["content"] for a in server.asked if len(a.body["messages"]) > 2]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)
def test_real_chains_become_legal_traces(schema: nprdsl.Schema, tmp_path: Path) -> None:
    with scripted(math_oracle()) as server:
        curating = Curating(server, tmp_path, schema)
        outcomes = curating(CHAINS)
    assert [outcome.chain for outcome in outcomes] == CHAINS
    assert server.most <= curating.in_flight
    for outcome in outcomes:
        if isinstance(outcome, Rejected):
            assert outcome.reason is RejectReason.NOTHING_PARALLEL
            continue
        assert schema.check(outcome.trace) == []
        assert outcome.distance <= 0.2
        assert outcome.degree > 1
        assert outcome.row()["answer"] == outcome.chain.extra["answer"]
    assert sum(isinstance(outcome, Curated) for outcome in outcomes) == 12


def test_every_sentence_stands_in_the_trace(tmp_path: Path) -> None:
    """But for those that the oracle rewrites, which are near the original."""
    with scripted(math_oracle()) as server:
        outcomes = Curating(server, tmp_path)(CHAINS)
    for outcome in outcomes:
        if isinstance(outcome, Curated):
            lost = [s for s in sentences(outcome.chain.thought) if s.strip() not in outcome.trace]
            assert len(lost) <= 2, outcome.chain.id
            assert bool(lost) == (outcome.distance > 0)


def test_the_row_is_that_of_training(tmp_path: Path) -> None:
    with scripted(math_oracle()) as server:
        (outcome,) = Curating(server, tmp_path)([CASES])
    assert isinstance(outcome, Curated)
    row = outcome.row()
    assert {key: type(value) for key, value in row.items()} == {
        "id": str, "prompt": str, "trace": str, "schema": str, "curated": dict, "answer": str
    }  # fmt: skip
    assert row["curated"]["blocks"] == [{"kind": "collective", "branches": 2}] * 3
    assert row["curated"]["depth"] == 2


def test_blocks_nest_only_to_the_depth_asked_for(tmp_path: Path) -> None:
    with scripted(math_oracle()) as server:
        (outcome,) = Curating(server, tmp_path, depth=1)([CASES])
    assert isinstance(outcome, Curated)
    assert (outcome.depth, outcome.branches) == (1, (2,))


def test_a_chain_without_independent_parts_is_reported(tmp_path: Path) -> None:
    with scripted(math_oracle()) as server:
        (outcome, one) = Curating(server, tmp_path)([SEQUENTIAL, Chain("1", "a", "One sentence.")])
    assert isinstance(outcome, Rejected) and isinstance(one, Rejected)
    assert (outcome.reason, outcome.step) == (RejectReason.NOTHING_PARALLEL, "group")
    assert one.faults == ("the chain of thought is one sentence",)
    assert {step_of(asked) for asked in server.asked} == {"parse", "group"}


def test_a_tag_in_the_chain_costs_nothing(tmp_path: Path) -> None:
    with scripted(math_oracle()) as server:
        (outcome,) = Curating(server, tmp_path)([Chain("1", "a", "I write <Path>. Then more.")])
    assert isinstance(outcome, Rejected)
    assert (outcome.reason, server.asked) == (RejectReason.TAG_IN_TEXT, [])
    assert outcome.faults == ("the chain of thought holds the tag `<Path>`",)


TROUBLE: list[tuple[str, Spoil, str]] = [
    ("parse", lambda _: Said("I think that"), "the reply holds no JSON object"),
    ("parse", lambda a: Said(json.dumps(a)[:60], finish="length"), "cut off before its end"),
    ("parse", lambda _: Said("", refusal="I will not"), "the model refused: I will not"),
    ("group", lambda _: Said('{"needs": [{"label": 1'), "as repaired: `needs.0.label`"),
    ("group", says(groups=[{"kind": "collective", "branches": [["1"], ["2"]]}]), "2.1 needs 1"),
    ("arrange", says(blocks=[]), "there is no block of two branches or more"),
    ("refill", lambda a: says(parts=a["parts"][:-1])(a), "the parts are"),
    (
        "refill",
        lambda a: says(parts=[*a["parts"][:-1], {**a["parts"][-1], "last": 14}])(a),
        "before it begins",
    ),
    ("write", says(blocks=[]), "once each"),
    (
        "write",
        lambda a: says(blocks=[{**block, "conclusion": "</Parallel>"} for block in a["blocks"]])(a),
        "the conclusion of block 1 holds the tag `</Parallel>`",
    ),
    ("write", says(edits=[{"sentence": 3, "words": "x" * 400}]), "away from the chain"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("step", "spoil", "told"), TROUBLE, ids=[f"{t[0]}: {t[2]}" for t in TROUBLE]
)
def test_a_bad_answer_is_asked_again_with_the_reason(
    step: str, spoil: Spoil, told: str, tmp_path: Path
) -> None:
    with scripted(Erring(step, spoil, 1)) as server:
        curating = Curating(server, tmp_path)
        (outcome,) = curating([CASES])
    assert isinstance(outcome, Curated), outcome
    (complaint,) = complaints(server)
    assert complaint.startswith("Answer 1 does not hold:\n- ") and told in complaint
    assert curating.account.of(step).again == 1
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    ("step", "spoil", "told"), TROUBLE, ids=[f"{t[0]}: {t[2]}" for t in TROUBLE]
)
def test_answers_that_stay_bad_are_reported(
    step: str, spoil: Spoil, told: str, tmp_path: Path
) -> None:
    with scripted(Erring(step, spoil, 99)) as server:
        outcome, other = Curating(server, tmp_path)([CASES, SEQUENTIAL])
    assert isinstance(outcome, Rejected) and isinstance(other, Rejected)
    assert (outcome.reason, outcome.step) == (RejectReason.STEP_FAILED, step)
    assert any(told in fault for fault in outcome.faults)
    row = outcome.row()
    assert (row["id"], row["thought"]) == (CASES.id, CASES.thought)
    assert row["rejected"]["reason"] == "step-failed"
    tries = [a for a in server.asked if step_of(a) == step and CASES.prompt in a.text]
    assert len(tries) == 3


def test_an_opening_that_leans_on_a_sibling_is_rewritten(tmp_path: Path) -> None:
    with scripted(Erring("write", says(edits=[]), 1)) as server:
        (outcome,) = Curating(server, tmp_path)([SIMILAR])
    assert isinstance(outcome, Curated)
    assert "opens branch 2 of block 1 with `Similarly`" in complaints(server)[0]
    assert "Similarly" not in outcome.trace
    assert outcome.distance == distance(SIMILAR.thought, outcome.chain.thought.replace(
        "Similarly, $\\overline{b}", "Since $|b| = |c| = |d| = 1,$ $\\overline{b}"))  # fmt: skip


def test_the_limit_of_the_distance_is_the_users(tmp_path: Path) -> None:
    with scripted(math_oracle()) as server:
        (outcome,) = Curating(server, tmp_path, limit=0.01)([SIMILAR])
    assert isinstance(outcome, Rejected)
    assert "0.01 is the limit" in outcome.faults[0]


REWRITTEN = "Case 2: Rosa sits three seats from Pierre (that is, there are $2$ seats between them)."


class Judging:
    """The oracle, which rewrites sentence 10 when it is told to, and a judge that is content with
    that, or never."""

    def __init__(self, content: str) -> None:
        self._oracle, self._content = math_oracle(), content

    def __call__(self, asked: Asked) -> Response:
        said = self._oracle(asked)
        assert isinstance(said, Said)
        if step_of(asked) == "judge":
            assert asked.body["model"] == "strict"
            leaks = [{"sentence": 10, "why": "as before"}, {"sentence": 1, "why": "in no branch"}]
            return Said(json.dumps({"leaks": [] if self._content in asked.text else leaks}))
        if step_of(asked) == "write" and "leans on a sibling" in asked.text:
            return says(edits=[{"sentence": 10, "words": REWRITTEN}])(json.loads(said.text))
        return said


def test_the_judge_sends_branches_back(tmp_path: Path) -> None:
    with scripted(Judging(REWRITTEN)) as server:
        (outcome,) = Curating(server, tmp_path, judges=("strict",))([CASES])
    assert isinstance(outcome, Curated)
    (complaint,) = complaints(server)
    assert "- sentence 10 leans on a sibling: as before\n" in complaint
    assert "in no branch" not in complaint
    assert REWRITTEN in outcome.trace
    judged = [asked for asked in server.asked if step_of(asked) == "judge"]
    assert "BRANCH 2 OF BLOCK 1\n[10] Case 2" in judged[0].text


def test_what_the_judge_never_accepts_is_reported(tmp_path: Path) -> None:
    with scripted(Judging("nothing pleases it")) as server:
        (outcome,) = Curating(server, tmp_path, judges=("strict",), attempts=2)([CASES])
    assert isinstance(outcome, Rejected)
    assert outcome.faults == ("sentence 10 leans on a sibling: as before",)


def test_an_endpoint_that_fails_one_chain_does_not_fail_the_others(tmp_path: Path) -> None:
    oracle = math_oracle()

    def script(asked: Asked) -> Response:
        failing = CASES.prompt[:40] in asked.text and step_of(asked) == "group"
        return Failed(500, "boom", {"retry-after-ms": "5"}) if failing else oracle(asked)

    with scripted(script) as server:
        outcome, other = Curating(server, tmp_path)([CASES, SIMILAR])
    assert isinstance(outcome, Rejected) and isinstance(other, Curated)
    assert (outcome.reason, outcome.step) == (RejectReason.ENDPOINT_FAILED, "group")
    assert outcome.faults == ("HTTP 500: boom",)


def test_plain_text_does_as_well_as_structured_output(tmp_path: Path) -> None:
    oracle = math_oracle()

    def script(asked: Asked) -> Response:
        if asked.form is not None:
            return Failed(400, "no response_format here")
        said = oracle(asked)
        assert isinstance(said, Said)
        return Said(f"<think>{{hm}}</think>Here:\n```json\n{said.text[:-1]},}}\n```")

    with scripted(script) as server:
        outcomes = Curating(server, tmp_path)(CHAINS)
    with scripted(math_oracle()) as server:
        structured = Curating(server, tmp_path / "structured")(CHAINS)
    assert outcomes == structured


def test_steps_that_do_not_know_the_schema_are_asked_once_for_all_schemas(tmp_path: Path) -> None:
    with scripted(math_oracle()) as server:
        for schema in SCHEMAS:
            Curating(server, tmp_path, schema)([CASES])
    steps = [step_of(asked) for asked in server.asked]
    assert {step: steps.count(step) for step in steps} == {
        "parse": 1, "group": 1, "arrange": 4, "refill": 1, "write": 4
    }  # fmt: skip


def test_a_second_run_asks_nothing(tmp_path: Path) -> None:
    with scripted(math_oracle()) as server:
        first = Curating(server, tmp_path)(CHAINS)
        asked = len(server.asked)
        assert Curating(server, tmp_path)(CHAINS) == first
    assert len(server.asked) == asked


@pytest.mark.parametrize("in_flight", [1, 4])
def test_as_many_requests_are_in_flight_as_may_be(in_flight: int, tmp_path: Path) -> None:
    """The first are answered only when all of them are there."""
    oracle, gate = math_oracle(), threading.Barrier(in_flight, timeout=30)

    def script(asked: Asked) -> Response:
        if asked.number < in_flight:
            gate.wait()
        return oracle(asked)

    with scripted(script) as server:
        Curating(server, tmp_path, in_flight=in_flight)(CHAINS[:6])
    assert server.most == in_flight


def test_the_summary_counts_everything(tmp_path: Path) -> None:
    summary = Summary()
    with scripted(math_oracle()) as server:
        for outcome in Curating(server, tmp_path)(CHAINS):
            summary.add(outcome)
    told = summary.to_dict()
    assert (told["chains"], told["curated"], told["rejected"]) == (20, 12, 8)
    assert told["reasons"] == [{"reason": "nothing-parallel", "step": "group", "chains": 8}]
    assert (told["blocks"], told["kinds"]) == (17, {"collective": 17})
    assert told["depths"] == {"1": 10, "2": 2}


def test_selective_blocks_are_counted_as_such(tmp_path: Path) -> None:
    steps = [
        {"title": "Try this", "last": 1, "needs": [], "result": "no"},
        {"title": "Try that", "last": 2, "needs": [], "result": "yes"},
        {"title": "Answer", "last": 3, "needs": ["1", "2"], "result": "4"},
    ]
    thought = "One way fails. Another way works. It is 4."
    oracle = Oracle([Annotated("Q", "4", steps, {})])

    def script(asked: Asked) -> Response:
        said = oracle(asked)
        assert isinstance(said, Said)
        return Said(said.text.replace("collective", "selective"))

    with scripted(script) as server:
        (outcome,) = Curating(server, tmp_path)([Chain("1", "Q", thought)])
    assert isinstance(outcome, Curated)
    assert outcome.row()["curated"]["blocks"] == [{"kind": "selective", "branches": 2}]
