"""The same tokens, log-probabilities and positions as the local engine, for the same model."""

from __future__ import annotations

import numpy as np
import pytest

import nprdsl
from nprdsl.machine.budget import Limits
from nprdsl.runtime import LocalEngine, Result, Sampling
from nprdsl.runtime.sglang.protocol import ForkRequest
from nprdsl.structure.events import EndReason
from tests.sglang.cases import nesting
from tests.sglang.server import Answer, Server

TOLERANCE = 1e-3
BATCH = 16
GREEDY = Sampling(temperature=0.0)
LIMITS = {  # items are short, so that lists are long
    "npr": Limits(max_tokens=220, branches=4, blocks=2, rule_tokens={"plan": 8}),
    "multiverse": Limits(max_tokens=260, depth=2, branches=3, rule_tokens={"outline": 6}),
    "parallel_r1": Limits(max_tokens=200, branches=4, spawn=3),
    "threadweaver": Limits(max_tokens=200, branches=4, rule_tokens={"outline": 8}),
}
PROMPTS = [f"{word} {i}?" for i in range(4) for word in ("What", "Why is it", "Sum", "Tell me")]
FORKING = "Tell me 0?"  # a trace of `npr` has several branches behind it
assert FORKING in PROMPTS


def assert_same(answer: Answer, result: Result) -> None:
    final = answer.final
    assert final.error == "" == result.error
    assert tuple(final.ids) == result.token_ids
    assert answer.ids == final.ids
    assert final.finish is result.finish
    assert final.sampled == [logprob is not None for logprob in final.logprobs]
    for ours, theirs in zip(final.logprobs, result.logprobs, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert ours == pytest.approx(theirs, abs=TOLERANCE)


def assert_placed(answer: Answer, result: Result) -> None:
    """Every token was fed at its position in the layout; only last ones are fed never."""
    assert result.layout is not None
    units, first = np.unique(result.layout.token, return_index=True)  # not the copies of `reread`
    assert units.tolist() == list(range(len(units)))
    wanted = result.layout.position[first][len(result.prompt_ids) :].tolist()
    fed = answer.final.positions
    pairs = list(zip(fed, wanted, strict=True))
    assert [(i, pair) for i, pair in enumerate(pairs) if pair[0] not in (None, pair[1])] == []
    assert fed.count(None) <= len(fed) // 2
    assert fed[0] is not None


def compare(
    server: Server, local: LocalEngine, schema: nprdsl.Schema, prompts: list[str], **options: object
) -> list[Result]:
    results = local.generate(schema, prompts, **options)  # type: ignore[call-overload]
    request = ForkRequest.of(schema, **options).model_copy(update={"positions": True})  # type: ignore[arg-type]
    answers = server.generate([r.prompt_ids for r in results], [request] * len(prompts))
    for answer, result in zip(answers, results, strict=True):
        assert_same(answer, result)
        assert_placed(answer, result)
    return list(results)


@pytest.mark.parametrize("name", LIMITS)
def test_greedy_answers_are_equal(server: Server, local: LocalEngine, name: str) -> None:
    schema = nprdsl.load(name)
    options = {"limits": LIMITS[name], "sampling": GREEDY}
    results = compare(server, local, schema, PROMPTS[:BATCH], **options)
    deepest = max(results, key=nesting)
    assert nesting(deepest) == (2 if name == "multiverse" else 1)
    compare(server, local, schema, [PROMPTS[results.index(deepest)]], **options)


@pytest.mark.parametrize("name", LIMITS)
def test_seeded_answers_are_equal(server: Server, local: LocalEngine, name: str) -> None:
    sampling = Sampling(temperature=0.9, top_p=0.95, top_k=40, min_p=0.01, seed=18)
    options = {"limits": LIMITS[name], "sampling": sampling}
    results = compare(server, local, nprdsl.load(name), PROMPTS[:8], **options)
    assert {r.finish for r in results} <= {EndReason.COMPLETED, EndReason.BUDGET}
    assert any(map(nesting, results)), "nothing ran beside anything"
