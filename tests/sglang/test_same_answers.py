"""The same tokens, log-probabilities and positions as the local engine, for the same model."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest

import nprdsl
from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.machine.budget import Limits
from nprdsl.runtime import LocalEngine, Result, Sampling
from nprdsl.runtime.sglang.protocol import ForkRequest
from nprdsl.structure.events import EndReason
from nprdsl.testing.schemas import random_schema
from tests.sglang.cases import CHOICES, Case, agree, all_agree, nesting, own_schema
from tests.sglang.server import Server

RANDOM = 16  # schemas
DEAREST = 150  # tokens of a shortest trace
GREEDY = Sampling(temperature=0.0)
LIMITS = {  # items are short, so that lists are long
    "npr": Limits(max_tokens=220, branches=4, blocks=2, rule_tokens={"plan": 8}),
    "multiverse": Limits(max_tokens=260, depth=2, branches=3, rule_tokens={"outline": 6}),
    "parallel_r1": Limits(max_tokens=200, branches=4, spawn=3),
    "threadweaver": Limits(max_tokens=200, branches=4, rule_tokens={"outline": 8}),
}
PROMPTS = [f"{word} {i}?" for i in range(2) for word in ("What", "Why is it", "Sum", "Tell me")]
PROMPTS.append("Sum 2?")  # a trace of `threadweaver` has branches side by side behind it
FORKING = "Tell me 0?"  # a trace of `npr` has several branches behind it
assert FORKING in PROMPTS


def compare(
    server: Server, local: LocalEngine, schema: nprdsl.Schema, prompts: list[str], **options: object
) -> list[Result]:
    results = local.generate(schema, prompts, **options)  # type: ignore[call-overload]
    request = ForkRequest.of(schema, **options).model_copy(update={"positions": True})  # type: ignore[arg-type]
    answers = server.generate([r.prompt_ids for r in results], [request] * len(prompts))
    for answer, result in zip(answers, results, strict=True):
        agree(answer, result)
        fed = answer.final.positions
        assert fed[0] is not None
        assert fed.count(None) <= len(fed) // 2, "only last tokens are never fed"
    return list(results)


@pytest.mark.parametrize("name", LIMITS)
def test_greedy_answers_are_equal(server: Server, local: LocalEngine, name: str) -> None:
    schema = nprdsl.load(name)
    options = {"limits": LIMITS[name], "sampling": GREEDY}
    results = compare(server, local, schema, PROMPTS, **options)
    deepest = max(results, key=nesting)
    assert nesting(deepest) == (2 if name == "multiverse" else 1)
    request = ForkRequest.of(schema, **options).model_copy(update={"positions": True})  # type: ignore[arg-type]
    (alone,) = server.generate([deepest.prompt_ids], [request])
    agree(alone, deepest)


@pytest.mark.parametrize("name", LIMITS)
def test_seeded_answers_are_equal(server: Server, local: LocalEngine, name: str) -> None:
    sampling = Sampling(temperature=0.9, top_p=0.95, top_k=40, min_p=0.01, seed=18, alternatives=2)
    options = {"limits": LIMITS[name], "sampling": sampling}
    results = compare(server, local, nprdsl.load(name), PROMPTS[:4], **options)
    assert {r.finish for r in results} <= {EndReason.COMPLETED, EndReason.BUDGET}
    assert any(map(nesting, results)), "nothing ran beside anything"
    assert all(result.alternatives for result in results)


def test_copies_are_avoided_alike(server: Server, local: LocalEngine) -> None:
    schema, options = nprdsl.load("npr"), {"limits": LIMITS["npr"], "sampling": GREEDY}
    (first,) = compare(server, local, schema, [FORKING], **options)
    avoiding = replace(GREEDY, avoid=(first.text,))
    (other,) = compare(server, local, schema, [FORKING], **{**options, "sampling": avoiding})
    assert other.text != first.text


@pytest.mark.parametrize("parallel", [True, False])
def test_branches_and_joins_may_begin_with_a_choice(
    server: Server, local: LocalEngine, parallel: bool
) -> None:
    """Positions too: behind the `reread` they go on behind copies of what had joined inside."""
    options: dict[str, object] = {
        "limits": Limits(max_tokens=160, branches=4),
        "sampling": Sampling(temperature=1.0, seed=4),
        "parallel": parallel,
    }
    results = compare(server, local, own_schema(CHOICES), PROMPTS[:4], **options)
    texts = [result.text for result in results]
    assert any("<step>" in text and "<plan>" in text for text in texts)


def test_answers_under_random_schemas_are_equal(server: Server, local: LocalEngine) -> None:
    """All at once; their tags are spelled, by the bytes of characters too."""
    work = []
    for number in range(RANDOM):
        drawn = random_schema(number)
        with suppress(SchemaError):
            schema = own_schema(drawn.source, f"drawn{number}")
            limits = Limits(max_tokens=1, depth=3)
            least = local.bind(schema).under(limits.bounds).minimum
            if not drawn.types and 1 < least <= DEAREST:
                limits = Limits(max_tokens=least + 40, depth=3)
                sampling = Sampling(temperature=1.0, seed=number)
                work.append(Case(schema, PROMPTS[number % len(PROMPTS)], limits, sampling))
    assert len(work) > RANDOM // 2
    all_agree(server, local, work)
