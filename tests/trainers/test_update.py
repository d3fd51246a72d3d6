"""A step is the same however its batch is cut, ordered and shared out; it follows the loss."""

from __future__ import annotations

import copy
import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from nprdsl.trainers.batch.scoring import inputs
from nprdsl.trainers.batch.training_rows import TrainingRow
from nprdsl.trainers.batch.update import Check, LossInputs, Updater, UpdateResult, unchecked
from nprdsl.trainers.config.stages import Attention
from nprdsl.trainers.objective.losses import papo, sft
from nprdsl.trainers.rollout.mismatch import MismatchError
from nprdsl.trainers.run.session import leave_group
from tests.cli.commands import ROOT, environment
from tests.forked import forked, ranks
from tests.trainers.test_scoring import engine, rollout, row_of

LARGE = 10_000


def weighted(count: int = 4) -> list[TrainingRow]:
    weights = (1.0, -0.5, 0.25, -1.5)
    return [row_of(rollout("npr", seed)).weighted(weights[seed % 4]) for seed in range(count)]


def step(
    batch: list[TrainingRow],
    room: int,
    *,
    rows: int = 1,
    check: Check = unchecked,
    omitted: int = 0,
) -> tuple[UpdateResult, list[torch.Tensor]]:
    model = copy.deepcopy(engine("npr").model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    accelerator = Accelerator(cpu=True)
    updater = Updater(accelerator, model, [optimizer], room=room, rows=rows, clip=1e9)
    done = updater.step(
        batch, lambda b: papo(b.logprobs, b.weights, b.tokens), check, omitted=omitted
    )
    return done, [p.detach().clone() for p in model.parameters()]


def test_n8_the_cut_and_the_order_of_a_batch_change_nothing() -> None:
    batch = weighted()
    longest = max(len(row) for row in batch)
    whole, first = step(batch, LARGE)
    cut, second = step(batch, longest)
    turned, third = step(batch[::-1], longest)
    beside, fourth = step(batch, longest, rows=3)
    assert whole.packed_rows == 1 and cut.packed_rows > 1
    assert whole.tokens == cut.tokens == turned.tokens == beside.tokens
    assert beside.packed_rows == cut.packed_rows
    for other in (second, third, fourth):
        for a, b in zip(first, other, strict=True):
            assert torch.allclose(a, b, atol=1e-6)
    for a, b in zip(whole.logprobs, turned.logprobs[::-1], strict=True):
        assert np.allclose(a, b, atol=1e-5)
    for a, b in zip(whole.logprobs, beside.logprobs, strict=True):
        assert np.allclose(a, b, atol=1e-5)


def test_rows_whose_weights_are_zero_may_be_left_out() -> None:
    batch = weighted()
    mute = [row.weighted(0) for row in weighted(6)[4:]]
    tokens = sum(row.tokens for row in mute)
    whole, first = step([*batch, *mute], LARGE)
    without, second = step(batch, LARGE, omitted=tokens)
    assert without.tokens == whole.tokens > step(batch, LARGE)[0].tokens
    assert without.loss == pytest.approx(whole.loss)
    for a, b in zip(first, second, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_step_that_its_check_refuses_changes_nothing() -> None:
    def refuse(logprobs: list[np.ndarray]) -> None:
        raise MismatchError(f"{len(logprobs)} rows")

    model = copy.deepcopy(engine("npr").model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    updater = Updater(Accelerator(cpu=True), model, [optimizer], room=LARGE)
    with pytest.raises(MismatchError, match="2 rows"):
        updater.step(weighted(2), lambda b: papo(b.logprobs, b.weights, b.tokens), refuse)
    for a, b in zip(model.parameters(), engine("npr").model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_rows_beside_each_other_need_dense_masks() -> None:
    with pytest.raises(ValueError, match="2 rows in one forward need dense masks, not SEGMENTS"):
        inputs(weighted(2), engine("npr").model, Attention.SEGMENTS)


def test_a_step_gives_the_logprobs_of_the_rollout() -> None:
    done, _ = step(weighted(), LARGE)
    for seed, found in enumerate(done.logprobs):
        drawn = [p for p in rollout("npr", seed).logprobs if p is not None]
        assert np.abs(found - np.array(drawn)).max() < 1e-4


def test_imitation_makes_traces_likelier() -> None:
    model = copy.deepcopy(engine("npr").model)
    batch = [row.weighted(1) for row in weighted(2)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    updater = Updater(Accelerator(cpu=True), model, [optimizer], room=LARGE)

    def loss(made: LossInputs) -> torch.Tensor:
        return sft(made.logprobs, made.tokens)

    values = [updater.step(batch, loss).loss for _ in range(8)]
    assert values[-1] < values[0] - 0.2


def test_forced_tokens_carry_no_loss() -> None:
    done, _ = step(weighted(1), LARGE)
    assert done.tokens == sum(p is not None for p in rollout("npr", 0).logprobs)


def test_weights_must_fit_the_sampled_tokens() -> None:
    with pytest.raises(
        ValueError, match=r"`weights` has the shape \(3,\); the row has \d+ sampled"
    ):
        replace(weighted(1)[0], weights=np.ones(3))


def losses(batch: list[TrainingRow], file: Path) -> None:
    """Three steps of this process, with the others if there are any; the first writes `file`."""
    accelerator = Accelerator(cpu=True)
    model = copy.deepcopy(engine("npr").model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model, optimizer = accelerator.prepare(model, optimizer)
    updater = Updater(accelerator, model, [optimizer], room=700, clip=1e9)
    rank, ranks = accelerator.process_index, accelerator.num_processes
    made = []
    for _ in range(3):
        done = updater.step(batch[rank::ranks], lambda b: papo(b.logprobs, b.weights, b.tokens))
        made.append([done.loss, done.gradient_norm, done.tokens])
    if rank == 0:
        file.write_text(json.dumps([ranks, made]), encoding="utf-8")
    leave_group()


def test_two_processes_give_the_losses_of_one(tmp_path: Path) -> None:
    alone, shared = tmp_path / "alone.json", tmp_path / "shared.json"
    batch = weighted()
    losses(batch, alone)
    with ExitStack() as running:
        every = [
            running.enter_context(forked(losses, batch, shared, cwd=ROOT, env=environment(env)))
            for env in ranks(2)
        ]
        for one in every:
            assert one.wait() == 0, one.communicate()[1].decode()
    (one, first), (two, second) = (json.loads(file.read_text()) for file in (alone, shared))
    assert (one, two) == (1, 2)
    assert np.allclose(first, second, rtol=1e-4, atol=1e-6)
