"""Losses against the formulas written out by hand; nothing depends on order, cut or padding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nprdsl.trainers.config.stages import ClipSection
from nprdsl.trainers.objective.advantages import (
    batch_normalised,
    group_normalised,
    informative,
    overlong,
)
from nprdsl.trainers.objective.losses import dapo, papo, sft, token_logprobs, truncated_importance

GROUPS = [0, 0, 0, 1, 1, 1, 2, 2]
REWARDS = [1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0, -1.0]


def leaf(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


# -- advantages


def test_papo_advantages_are_equation_5() -> None:
    spread = np.std(REWARDS)
    means = [-1 / 3] * 3 + [1 / 3] * 3 + [-1.0] * 2
    wanted = [(r - m) / spread for r, m in zip(REWARDS, means, strict=True)]
    assert np.allclose(batch_normalised(REWARDS, GROUPS), wanted)


@given(st.randoms(use_true_random=False))
def test_n7_advantages_do_not_depend_on_the_order_of_samples(random) -> None:  # type: ignore[no-untyped-def]
    order = list(range(len(REWARDS)))
    random.shuffle(order)
    rewards, groups = [REWARDS[i] for i in order], [GROUPS[i] for i in order]
    for normalised in (batch_normalised, group_normalised):
        found = normalised(rewards, groups)
        wanted = normalised(REWARDS, GROUPS)[order]
        assert np.allclose(found, wanted, atol=1e-12)


def test_equal_rewards_and_lone_samples_teach_nothing() -> None:
    assert not batch_normalised([1.0, 1.0, 1.0], [0, 0, 1]).any()
    assert batch_normalised([1.0, -1.0, 1.0], [0, 1, 1])[0] == 0
    assert not group_normalised([0.1] * 3, [0, 0, 0]).any()


def test_rewards_must_be_finite_and_as_many_as_groups() -> None:
    with pytest.raises(ValueError, match="reward 1 is not finite"):
        batch_normalised([1.0, math.nan], [0, 0])
    with pytest.raises(ValueError, match="there are 2 rewards, but 1 group"):
        batch_normalised([1.0, 2.0], [0])


def test_dynamic_sampling_keeps_groups_that_differ() -> None:
    assert informative(REWARDS, GROUPS).tolist() == [True] * 6 + [False] * 2


@pytest.mark.parametrize(
    ("length", "score"), [(80, 0.0), (90, 0.0), (95, -0.5), (100, -1.0), (130, -1.0)]
)
def test_overlong_answers_cost_more_and_more(length: int, score: float) -> None:
    assert overlong(length, limit=100, buffer=10) == pytest.approx(score)


# -- losses


def test_papo_has_the_gradient_of_reinforce_and_of_the_formula() -> None:
    advantages = torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64)
    first, second = leaf([-0.1, -3.0, -0.7]), leaf([-0.1, -3.0, -0.7])
    papo(first, advantages, 3).backward()
    (-(second * advantages).sum() / 3).backward()
    assert torch.allclose(first.grad, second.grad)
    assert torch.allclose(first.grad, -advantages / 3)
    assert papo(leaf([-1.0]), torch.tensor([2.0], dtype=torch.float64), 1).item() == -2.0


def test_papo_keeps_the_gradient_of_rare_tokens() -> None:
    """A clip would cut off a tag whose probability has moved far."""
    tag = leaf([-9.0])
    papo(tag, torch.tensor([1.0], dtype=torch.float64), 1).backward()
    clipped = leaf([-9.0])
    loss, _ = dapo(clipped, torch.tensor([-12.0]), torch.tensor([1.0], dtype=torch.float64), 1)
    loss.backward()
    assert tag.grad.item() == -1.0 and clipped.grad.item() == 0.0


def by_hand(new: float, old: float, advantage: float, clip: ClipSection) -> tuple[float, float]:
    """One token's loss and its gradient with regard to the new log-probability."""
    ratio = math.exp(new - old)
    bounded = min(max(ratio, 1 - clip.low), 1 + clip.high)
    if advantage >= 0:
        return (-ratio * advantage, -ratio * advantage) if ratio <= 1 + clip.high else (
            -bounded * advantage, 0.0)  # fmt: skip
    if ratio < 1 - clip.low:
        return -bounded * advantage, 0.0
    if ratio > clip.dual:
        return -clip.dual * advantage, 0.0
    return -ratio * advantage, -ratio * advantage


@settings(max_examples=200, deadline=None)
@given(st.floats(-6, -0.01), st.floats(-6, -0.01), st.floats(-3, 3).filter(lambda a: abs(a) > 1e-3))
def test_dapo_is_the_formula(new: float, old: float, advantage: float) -> None:
    clip, value = ClipSection(), leaf([new])
    made = torch.tensor([old], dtype=torch.float64)
    loss, _ = dapo(value, made, torch.tensor([advantage], dtype=torch.float64), 1, clip)
    loss.backward()
    wanted, slope = by_hand(new, old, advantage, clip)
    assert loss.item() == pytest.approx(wanted)
    assert value.grad.item() == pytest.approx(slope, abs=1e-12)


def test_dapo_counts_what_it_clipped() -> None:
    old = torch.tensor([-1.0, -1.0, -1.0, -4.0], dtype=torch.float64)
    new = torch.tensor([-0.5, -1.0, -2.0, -0.1], dtype=torch.float64)
    _, stats = dapo(new, old, torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64), 4)
    assert stats.clipped == 0.5 and stats.dual_clipped == 0.25


@given(st.integers(1, 6), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_n8_micro_batches_add_up_in_any_cut_and_order(parts: int, random) -> None:  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(3)
    old = -torch.rand(7, generator=generator, dtype=torch.float64)
    advantages = torch.randn(7, generator=generator, dtype=torch.float64)
    order = list(range(7))
    random.shuffle(order)
    cuts = [order[i::parts] for i in range(parts)]
    for loss in (
        lambda lp, i: papo(lp[i], advantages[i], 7),
        lambda lp, i: dapo(lp[i], old[i], advantages[i], 7)[0],
        lambda lp, i: sft(lp[i], 7),
    ):
        whole, cut = leaf((old - 0.05).tolist()), leaf((old - 0.05).tolist())
        loss(whole, list(range(7))).backward()
        for part in cuts:
            loss(cut, part).backward()
        assert torch.allclose(whole.grad, cut.grad, atol=1e-12)


def test_a_batch_without_sampled_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sampled token"):
        sft(torch.zeros(0), 0)
    with pytest.raises(ValueError, match="differ in shape"):
        papo(torch.zeros(2), torch.zeros(3), 2)


def test_truncated_importance_weighs_by_the_ratio_up_to_the_cap() -> None:
    new = torch.tensor([-1.0, -1.0, -1.0]).log_softmax(0).requires_grad_()
    old = new.detach() - torch.tensor([0.5, -0.5, 3.0])
    weights = truncated_importance(new, old, 2.0)
    assert torch.allclose(weights, torch.tensor([np.exp(0.5), np.exp(-0.5), 2.0]).float())
    assert not weights.requires_grad


def test_token_logprobs_are_those_of_the_softmax() -> None:
    logits = torch.randn(5, 11)
    ids = torch.tensor([0, 3, 10, 3, 1])
    wanted = torch.log_softmax(logits, -1)[torch.arange(5), ids]
    assert torch.allclose(token_logprobs(logits, ids), wanted, atol=1e-6)


def test_chunks_of_rows_are_exact() -> None:
    torch.manual_seed(1)
    logits = (8 * torch.randn(300, 40)).requires_grad_()
    ids, upstream = torch.randint(0, 40, (300,)), torch.randn(300)
    (wanted,) = torch.autograd.grad(
        logits.log_softmax(-1)[torch.arange(300), ids] @ upstream, logits
    )
    (found,) = torch.autograd.grad(token_logprobs(logits, ids) @ upstream, logits)
    assert torch.allclose(found, wanted, atol=1e-6)
    none = token_logprobs(logits[:0], ids[:0]).sum()
    assert torch.equal(torch.autograd.grad(none, logits)[0], torch.zeros(300, 40))


def test_no_wider_copy_of_the_logits_is_kept_for_the_gradient() -> None:
    logits = torch.randn(300, 1000, dtype=torch.bfloat16, requires_grad=True)
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        token_logprobs(logits, torch.zeros(300, dtype=torch.int64))
    assert sum(kept) < 1.1 * logits.nbytes
