"""The figures of a mismatch, against plain formulas; what stops a step and what does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st

from nprdsl.trainers.config.stages import RolloutSection
from nprdsl.trainers.rollout.mismatch import Mismatch, MismatchError, compare

GAPS = st.lists(st.floats(-3, 3), min_size=1, max_size=50).map(np.array)
LOOSE = RolloutSection(mismatch_mean=1e9, mismatch_kl=1e9)


@given(GAPS)
def test_the_figures(gaps: np.ndarray) -> None:
    found = Mismatch.of(gaps)
    assert found.tokens == len(gaps)
    assert found.mean == pytest.approx(sum(map(abs, gaps)) / len(gaps))
    assert found.largest == max(map(abs, gaps))
    assert found.far == pytest.approx(sum(abs(gap) > 0.1 for gap in gaps) / len(gaps))
    assert found.kl == pytest.approx(np.mean([np.exp(g) - 1 - g for g in gaps]), abs=1e-9)
    assert found.kl >= 0 and found.p999 <= found.largest


def test_the_divergence_is_estimated() -> None:
    """Tokens drawn from one policy, log-probabilities of both: the mean is their divergence."""
    torch.manual_seed(1)
    sampled, trained = (torch.distributions.Categorical(logits=torch.randn(6)) for _ in range(2))
    drawn = sampled.sample((200_000,))
    gaps = trained.log_prob(drawn) - sampled.log_prob(drawn)
    exact = float(torch.distributions.kl_divergence(sampled, trained))
    assert Mismatch.of(gaps.double().numpy()).kl == pytest.approx(exact, rel=0.02)


def test_one_token_of_thousands_stops_nothing_unless_it_is_asked_for() -> None:
    gaps = [np.zeros(3000), np.zeros(3000)]
    gaps[1][7] = 2.0
    found = compare(gaps, RolloutSection(), Accelerator(cpu=True))
    assert found.largest == 2 and found.p999 == 0 and 0 < found.far < 0.001
    assert found.metrics()["mismatch/largest"] == 2
    strict = RolloutSection(mismatch=0.5)
    with pytest.raises(
        MismatchError, match=r"2 at most \(trace 1, sampled token 7\).*`rollout.mis"
    ):
        compare(gaps, strict, Accelerator(cpu=True))


@pytest.mark.parametrize(
    ("gap", "changes", "told"),
    [
        (0.2, {"mismatch_mean": 0.1}, r"`rollout.mismatch_mean` allows 0.1"),
        (-1.0, {"mismatch_kl": 0.3}, r"`rollout.mismatch_kl` allows 0.3"),
        (1.0, {"mismatch": 0.5}, r"`rollout.mismatch` allows 0.5"),
        (float("nan"), {}, "`rollout.mismatch_mean`"),
        (float("inf"), {}, "`rollout.mismatch_mean`"),
    ],
)
def test_what_stops_a_step(gap: float, changes: dict[str, float], told: str) -> None:
    section = LOOSE.model_copy(update=changes)
    with pytest.raises(MismatchError, match=told):
        compare([np.full(4, gap)], section, Accelerator(cpu=True))


def test_without_tokens_there_is_no_mismatch() -> None:
    assert compare([], RolloutSection(), Accelerator(cpu=True)) == Mismatch()
