"""A step is the same however its batch is cut, ordered and shared out; it follows the loss."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
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
from nprdsl.trainers.rollout.rollout import MismatchError
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


PROGRAM = """
import json, sys, torch
from accelerate import Accelerator
from nprdsl.trainers.objective.losses import papo
from nprdsl.trainers.batch.update import Updater
from tests.trainers.test_scoring import engine
from tests.trainers.test_update import weighted
accelerator = Accelerator(cpu=True)
model = engine("npr").model
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
model, optimizer = accelerator.prepare(model, optimizer)
updater = Updater(accelerator, model, [optimizer], room=700, clip=1e9)
rank, ranks = accelerator.process_index, accelerator.num_processes
losses = []
for _ in range(3):
    done = updater.step(weighted()[rank::ranks], lambda b: papo(b.logprobs, b.weights, b.tokens))
    losses.append([done.loss, done.gradient_norm, done.tokens])
if rank == 0:
    print("LOSSES", json.dumps([ranks, losses]))
accelerator.end_training()
"""


def losses_of(processes: int, tmp_path: Path) -> list[list[float]]:
    program = tmp_path / "steps.py"
    program.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(processes)]
    ran = subprocess.run(
        [*command, str(program)], capture_output=True, text=True, timeout=500, check=False,
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": ".", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    lines = [line for line in ran.stdout.splitlines() if line.startswith("LOSSES")]
    assert lines, ran.stderr[-2000:]
    ranks, losses = json.loads(lines[0].removeprefix("LOSSES"))
    assert ranks == processes
    return losses  # type: ignore[no-any-return]


def test_two_processes_give_the_losses_of_one(tmp_path: Path) -> None:
    assert np.allclose(losses_of(1, tmp_path), losses_of(2, tmp_path), rtol=1e-4, atol=1e-6)
