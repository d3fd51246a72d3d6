"""Rollouts are on policy, repeat with their seed, and are compared with what the trainer finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nprdsl
from nprdsl import Limits
from nprdsl.runtime.results import Completion
from nprdsl.runtime.sampling import Sampling
from nprdsl.structure.events import EndReason
from nprdsl.trainers.batch.scoring import score
from nprdsl.trainers.evaluate.samples import Mode
from nprdsl.trainers.rollout.mismatch import Mismatch, gaps_between
from nprdsl.trainers.rollout.rollout import (
    OffPolicyError,
    Rollout,
    of_completion,
    rollouts,
)
from tests.trainers.test_scoring import engine

PROMPTS = [[65, 66], [67, 68, 69]]
LIMITS = Limits(max_tokens=200, branches=2, blocks=1)


def made(seed: int) -> list[Rollout]:
    schema = nprdsl.load("npr")
    seeds = [10 * seed, 10 * seed + 1]
    return rollouts(engine("npr"), schema, PROMPTS, 3, limits=LIMITS, seeds=seeds)


def scored(found: list[Rollout]) -> list[np.ndarray]:
    with torch.no_grad():
        model = engine("npr").model
        return [score(model, [one.row]).double().numpy() for one in found]


def test_rollouts_repeat_with_their_seed_and_differ_within_a_group() -> None:
    first, again, other = made(0), made(0), made(1)
    ids = [one.token_ids for one in first]
    assert [one.group for one in first] == [0, 0, 0, 1, 1, 1]
    assert ids == [one.token_ids for one in again]
    assert ids != [one.token_ids for one in other]
    assert len(set(ids)) == 6


def test_a_prompts_traces_do_not_depend_on_its_company() -> None:
    alone = rollouts(engine("npr"), nprdsl.load("npr"), PROMPTS[1:], 3, limits=LIMITS, seeds=[1])
    assert [one.token_ids for one in alone] == [one.token_ids for one in made(0)[3:]]
    with pytest.raises(ValueError, match="1 prompts, but 2 seeds"):
        rollouts(engine("npr"), nprdsl.load("npr"), PROMPTS[1:], 3, seeds=[1, 2])


def free(tokens: int = 60) -> list[Rollout]:
    limits = Limits(max_tokens=tokens)
    return rollouts(engine("npr"), nprdsl.load("npr"), PROMPTS, 3, mode=Mode.FREE, limits=limits)


def test_free_rollouts_are_causal_rows_with_what_they_broke() -> None:
    found = free()
    assert [one.group for one in found] == [0, 0, 0, 1, 1, 1]
    for one in found:
        assert one.graph is None and one.violations
        assert list(one.violations) == engine("npr").bind(nprdsl.load("npr")).check(one.token_ids)
        assert one.row.sampled.sum() == len(one.row.logprobs) == len(one.token_ids)
        assert (one.row.mirror == np.arange(len(one.row))).all()
    assert measured(found).tokens == sum(map(len, map(ids_of, found)))
    assert measured(found).largest < 1e-4


def ids_of(one: Rollout) -> tuple[int, ...]:
    return one.token_ids


@pytest.mark.parametrize("completed", [True, False])
def test_free_text_that_is_a_trace_has_its_graph(completed: bool) -> None:
    schema = nprdsl.load("npr")
    bound = engine("npr").bind(schema)
    ids = (*bound.encode(schema.skeleton()), bound.vocabulary.eos_id or 0)
    finish = EndReason.COMPLETED if completed else EndReason.BUDGET
    written = Completion((65,), schema.skeleton(), ids, (-1.0,) * len(ids), finish)
    one = of_completion(0, written, schema, bound)
    assert one.violations == ()
    if completed:
        assert one.graph == bound.parse((65, *ids), prompt=1).graph
    else:
        assert one.graph is None


def measured(found: list[Rollout]) -> Mismatch:
    return Mismatch.of(np.concatenate(gaps_between(found, scored(found))))


def test_rollout_and_trainer_agree() -> None:
    found = made(2)
    agreed = measured(found)
    assert 0 < agreed.mean <= agreed.largest < 1e-4
    assert agreed.tokens == sum(len(one.row.logprobs) for one in found)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (Sampling(temperature=0.7), "temperature is 0.7: what is sampled is then not the policy"),
        (Sampling(top_p=0.7), "top_p is 0.7"),
        (Sampling(avoid=("x",)), "avoid holds texts: what would copy them"),
        (Sampling(presence_penalty=0.1), "presence_penalty is 0.1"),
        (Sampling(rules={"step": {"repetition_penalty": 1.02}}), "is 1.02 for the rule `step`"),
    ],
)
def test_n5_bent_distributions_are_refused(sampling: Sampling, message: str) -> None:
    with pytest.raises(OffPolicyError, match=message):
        rollouts(engine("npr"), nprdsl.load("npr"), PROMPTS, 1, sampling=sampling, limits=LIMITS)
