"""Draws follow the filtered distribution, log-probabilities the raw one, rows only themselves."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from nprdsl.machine.actions import DropAction, FeedAction, ForkAction, JoinAction
from nprdsl.masks.logit_masks import LogitMasks
from nprdsl.runtime.drawing.draws import branch_key, uniform
from nprdsl.runtime.drawing.penalty_counts import Histories, Seen
from nprdsl.runtime.drawing.sampler import Draw, Sampler
from nprdsl.runtime.sampling import Sampling
from nprdsl.tokens.bitmask import unpack
from tests.runtime.scripted import pack, random_masks

CPU = torch.device("cpu")


def reference(logits: np.ndarray, draw: Draw) -> np.ndarray:
    """The filtered distribution of one row, written plainly in numpy."""
    how = draw.settings
    work = logits.astype(np.float64)
    for i, count in zip(*draw.history, strict=True) if draw.history is not None else ():
        work[i] *= 1 / how.repetition_penalty if work[i] > 0 else how.repetition_penalty
        work[i] -= how.frequency_penalty * count + how.presence_penalty
    bits = np.unpackbits(draw.mask.view(np.uint8), bitorder="little")[: len(work)]
    work[bits == 0] = -np.inf
    others = np.isin(np.arange(len(work)), draw.banned, invert=True)
    if np.isfinite(work[others]).any():
        work[~others] = -np.inf
    if how.temperature == 0:
        return np.eye(len(work))[work.argmax()]
    work /= how.temperature
    if how.top_k:
        work[work < np.sort(work)[-min(how.top_k, len(work))]] = -np.inf
    for keep in (_top_p, _min_p):
        work[~keep(_softmax(work), how)] = -np.inf
    return _softmax(work)


def _softmax(work: np.ndarray) -> np.ndarray:
    e = np.exp(work - work.max())
    return e / e.sum()


def _top_p(probs: np.ndarray, how: Sampling) -> np.ndarray:
    order = np.argsort(-probs, kind="stable")
    before = np.cumsum(probs[order]) - probs[order]
    keep = np.zeros(len(probs), bool)
    keep[order[before < how.top_p]] = True
    return keep


def _min_p(probs: np.ndarray, how: Sampling) -> np.ndarray:
    return probs >= how.min_p * probs.max()


SETTINGS = [
    Sampling(temperature=0.0),
    Sampling(),
    Sampling(temperature=0.6),
    Sampling(top_k=3),
    Sampling(top_p=0.7),
    Sampling(min_p=0.2, temperature=1.5),
    Sampling(top_k=6, top_p=0.9, min_p=0.05, temperature=0.8, repetition_penalty=1.4),
    Sampling(repetition_penalty=0.8),
    Sampling(frequency_penalty=0.7),
    Sampling(presence_penalty=-1.5),
    Sampling(repetition_penalty=1.2, frequency_penalty=0.3, presence_penalty=0.9, top_k=7),
]


def random_draws(rng: random.Random, width: int, rows: int) -> list[Draw]:
    masks = random_masks(rng, width)
    ids = np.array(rng.sample(range(width), 4))
    history = Seen(ids, np.array([rng.randint(1, 5) for _ in ids]))
    banned = tuple(rng.sample(range(width + 9), width // 2))
    return [
        Draw(
            rng.choice(masks),
            rng.choice(SETTINGS),
            rng.random(),
            rng.choice([None, history]),
            rng.choice([(), banned]),
        )
        for _ in range(rows)
    ]


@pytest.mark.parametrize("width", [20, 64, 100])
def test_inverse_transform(width: int) -> None:
    """Every row's token is where its uniform number falls in the plain reference's distribution."""
    rng = random.Random(width)
    torch.manual_seed(width)
    sampler = Sampler(width, CPU)
    for _ in range(30):
        draws = random_draws(rng, width, 6)
        logits = torch.randn(6, width) * 3
        before = logits.clone()
        tokens, logprobs, _ = sampler(logits, draws)
        assert torch.equal(logits, before)
        raw = logits.double().log_softmax(-1)
        for i, (token, logprob) in enumerate(zip(tokens, logprobs, strict=True)):
            mass = reference(logits[i].numpy(), draws[i]).cumsum()
            below = mass[token - 1] if token else 0.0
            assert below - 1e-5 <= draws[i].uniform * mass[-1] <= mass[token] + 1e-5
            assert logprob == pytest.approx(float(raw[i, token]), abs=1e-5)


def test_a_row_depends_on_itself_only() -> None:
    rng = random.Random(0)
    draws = random_draws(rng, 50, 12)
    logits = torch.randn(12, 50)
    together = Sampler(50, CPU)(logits, draws)[0]
    order = rng.sample(range(12), 12)
    shuffled = Sampler(50, CPU)(logits[order], [draws[i] for i in order])[0]
    alone = [Sampler(50, CPU)(logits[i : i + 1], [draws[i]])[0][0] for i in range(12)]
    assert together == alone
    assert shuffled == [together[i] for i in order]


@pytest.mark.parametrize(
    "how",
    [
        Sampling(temperature=1e-300),
        Sampling(temperature=100.0),
        Sampling(top_p=1e-308),
        Sampling(repetition_penalty=100.0),
        Sampling(repetition_penalty=0.01),
        Sampling(min_p=1.0),
        Sampling(top_k=10**12),
    ],
    ids=str,
)
def test_extreme_settings_draw_what_the_mask_allows(how: Sampling) -> None:
    rng, width = random.Random(1), 100
    logits = torch.randn(8, width) * 20
    history = Seen(np.arange(50), np.full(50, 9))
    draws = [Draw(rng.choice(random_masks(rng, width)), how, rng.random(), history) for _ in logits]
    tokens, logprobs, _ = Sampler(width, CPU)(logits, draws)
    assert all(unpack(draw.mask, width)[token] for draw, token in zip(draws, tokens, strict=True))
    assert all(map(math.isfinite, logprobs))


@pytest.mark.parametrize(("top_p", "kept"), [(0.5, 1), (0.51, 2), (0.75, 2), (0.76, 4)])
def test_top_p_is_reached_by_a_sum_that_equals_it(top_p: float, kept: int) -> None:
    """1/2, 1/4 and twice 1/8: what stands behind a sum of exactly `top_p` is left out."""
    probs = torch.tensor([[0.5, 0.25, 0.125, 0.125]])
    logits = probs.log()
    assert torch.equal(logits.softmax(-1), probs), "the boundary is met exactly"
    full, how = pack(range(4), 4), Sampling(top_p=top_p)
    draws = [Draw(full, how, number) for number in (*np.linspace(0.0, 0.99, 100), 1 - 2**-48)]
    tokens, _, _ = Sampler(4, CPU)(logits.expand(len(draws), 4).contiguous(), draws)
    assert set(tokens) == set(range(kept))


def test_top_p_beyond_the_likeliest_thousand() -> None:
    """A flat distribution over 3,000 tokens, of which top-p 0.9 keeps 2,700."""
    logits = torch.linspace(0.001, 0.0, 3000)[None]
    full = pack(range(3000), 3000)
    token = Sampler(3000, CPU)(logits, [Draw(full, Sampling(top_p=0.9), 1 - 2**-48)])[0][0]
    assert 2690 <= token <= 2702


def test_frequencies() -> None:
    """Many draws follow the distribution: chi-squared with 9 degrees of freedom, seeded."""
    logits = torch.randn(1, 10, generator=torch.Generator().manual_seed(3))
    full, key, count = pack(range(10), 10), branch_key(5, (1, 2)), 20_000
    draws = [Draw(full, Sampling(), uniform(key, i)) for i in range(count)]
    tokens, _, _ = Sampler(10, CPU)(logits.expand(count, 10).contiguous(), draws)
    expected = logits.softmax(-1)[0].numpy() * count
    found = np.bincount(tokens, minlength=10)
    assert ((found - expected) ** 2 / expected).sum() < 27.9  # p = 0.001


def test_uniform_numbers() -> None:
    keys = {branch_key(s, p) for s in range(20) for p in [(), (0,), (0, 0), (0, 1), (1, 0)]}
    assert len(keys) == 100
    numbers = np.array([uniform(k, i) for k in keys for i in range(50)])
    assert len(set(numbers)) == len(numbers) and numbers.min() >= 0 and numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.02


@pytest.mark.parametrize("total", [1.0, 1.0 + 2**-52, 1.5, 1e-30, 0.9999999999999999])
def test_the_greatest_number_stays_below_every_total(total: float) -> None:
    assert (1 - 2**-48) * total < total


def test_a_row_that_is_not_finite_shows() -> None:
    logits = torch.randn(2, 8)
    logits[1, 3] = torch.nan
    full = pack(range(8), 8)
    draws = [Draw(full, Sampling(), 0.5), Draw(full, Sampling(), 0.999999)]
    _, logprobs, _ = Sampler(8, CPU)(logits, draws)
    assert math.isfinite(logprobs[0]) and not math.isfinite(logprobs[1])


def test_alternatives_are_the_likeliest_of_the_model_itself() -> None:
    """Whatever the mask allows; each row has as many as it asks for, none that is impossible."""
    logits = torch.tensor(
        [[0.0, 3.0, 1.0, 2.0], [0.0, 3.0, 1.0, 2.0], [5.0, 4.0, -torch.inf, -torch.inf]]
    )
    only = pack([0], 4)
    draws = [Draw(only, Sampling(alternatives=count), 0.5) for count in (2, 0, 3)]
    tokens, _, alternatives = Sampler(4, CPU)(logits, draws)
    raw = logits.log_softmax(-1)
    assert tokens == [0, 0, 0]
    assert [[token for token, _ in row] for row in alternatives] == [[1, 3], [], [0, 1]]
    assert [p for _, p in alternatives[0]] == [float(raw[0, 1]), float(raw[0, 3])]


def test_masks_apply_to_wider_and_narrower_logits() -> None:
    """Outputs beyond the vocabulary are forbidden; ids beyond the outputs are left out."""
    mask = pack([1, 2, 39], 40)
    for width, allowed in [(70, [1, 2, 39]), (20, [1, 2])]:
        logits = torch.zeros(1, width)
        LogitMasks(width, CPU).apply(logits, [mask])
        assert torch.isfinite(logits[0]).nonzero()[:, 0].tolist() == allowed


def test_what_is_banned_is_drawn_where_the_mask_leaves_nothing_else() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]] * 3)
    greedy = Sampling(temperature=0.0)
    draws = [
        Draw(pack([0, 1, 3], 4), greedy, 0.0, banned=(0,)),
        Draw(pack([0, 1], 4), greedy, 0.0, banned=(0, 1, 9)),
        Draw(pack([2], 4), greedy, 0.0, banned=(0,)),
    ]
    tokens, logprobs, _ = Sampler(4, CPU)(logits, draws)
    assert tokens == [1, 0, 2]
    assert logprobs == pytest.approx(logits[0].log_softmax(-1)[tokens].tolist())


def test_a_mask_without_a_token_is_an_error() -> None:
    with pytest.raises(ValueError, match="allows no token"):
        LogitMasks(8, CPU).apply(torch.zeros(1, 8), [pack([], 8)])


def test_histories_count_what_a_branch_sees() -> None:
    histories = Histories()

    def counts(branch: int) -> dict[int, int]:
        seen = histories.seen(branch)
        return dict(zip(seen.ids.tolist(), seen.counts.tolist(), strict=True))

    histories.apply([FeedAction(0, (5, 6, 5)), ForkAction(0, (1, 2))])
    histories.apply(
        [FeedAction(1, (5, 7)), FeedAction(2, (7, 7, 8)), ForkAction(1, (3,)), FeedAction(3, (6,))]
    )
    assert counts(1) == {5: 3, 6: 1, 7: 1} and counts(2) == {5: 2, 6: 1, 7: 2, 8: 1}
    assert counts(3) == {5: 3, 6: 2, 7: 1}
    histories.apply([JoinAction(1, (3,)), JoinAction(0, (1, 2))])
    assert counts(0) == {5: 3, 6: 2, 7: 3, 8: 1}
    histories.apply(
        [
            ForkAction(0, (4,)),
            FeedAction(4, tuple(range(100, 300))),
            DropAction(0, (4,)),
            FeedAction(0, (5,)),
        ]
    )
    assert counts(0) == {5: 4, 6: 2, 7: 3, 8: 1}
