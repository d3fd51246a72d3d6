"""Processes that hold different numbers of rows make the step of one process, and none waits."""

from __future__ import annotations

import json
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from nprdsl.trainers.batch.output_head import _MAPS
from nprdsl.trainers.batch.training_rows import TrainingRow, causal_row
from nprdsl.trainers.batch.update import Loss, Updater
from nprdsl.trainers.objective.head_logprobs import UNBENT
from nprdsl.trainers.objective.losses import dapo, papo, sft
from nprdsl.trainers.run.session import leave_group, settle_group
from tests.cli.commands import ROOT, environment
from tests.forked import forked, ranks

LOSSES: dict[str, Loss] = {
    "sft": lambda b: sft(b.logprobs, b.tokens),
    "zero": lambda b: dapo(b.logprobs, b.old, b.weights, b.tokens)[0],
    "papo": lambda b: papo(b.logprobs, b.weights, b.tokens),
}
CONFIG = Qwen3Config(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=8, tie_word_embeddings=True,
)  # fmt: skip
Parts = list[list[TrainingRow]]  # of every process


def rows(count: int) -> list[TrainingRow]:
    """Of different lengths and weights, sampled a little off policy."""
    rng = np.random.default_rng(7)
    made = []
    for number in range(count):
        ids = rng.integers(0, 64, 12 + 2 * number).tolist()
        row = causal_row(ids[:4], ids[4:]).weighted((1.0, -0.5, 0.25, -1.5)[number % 4])
        made.append(row.with_logprobs([-4.0] * row.tokens))
    return made


def updater(accelerator: Accelerator, wrapping: str, room: int) -> Updater:
    """Of the same small model: sharded, replicated, or as it is."""
    torch.manual_seed(3)
    model = Qwen3ForCausalLM(CONFIG)
    wrapped: torch.nn.Module = model
    if wrapping == "fsdp2":
        mesh = init_device_mesh("cpu", (accelerator.num_processes,))
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    elif wrapping == "ddp":
        wrapped = accelerator.prepare(model)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    return Updater(accelerator, wrapped, [optimizer], room=room, clip=1e9)


def first_weights(model: torch.nn.Module) -> list[float]:
    """Some of the first matrix, whole on every process."""
    weights = next(iter(model.parameters())).detach()
    whole = weights.full_tensor() if isinstance(weights, DTensor) else weights
    return [float(value) for value in whole.flatten()[::97]]


def steps(parts: Parts, room: int, wrappings: list[str], file: Path) -> None:
    """A step for every wrapping and loss; the first process writes what they gave."""
    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    made = {}
    for wrapping in wrappings:
        for name, loss in LOSSES.items():
            one = updater(accelerator, wrapping, room)
            done = one.step(parts[rank], loss)
            made[f"{wrapping} {name}"] = [
                done.loss, done.gradient_norm, done.tokens, *first_weights(one.model),
            ]  # fmt: skip
            assert _MAPS[accelerator.unwrap_model(one.model)] == UNBENT, "logits were made"
            settle_group()
    if rank == 0:
        file.write_text(json.dumps(made), encoding="utf-8")
    leave_group()


@pytest.mark.parametrize("counts", [(1, 4), (0, 1, 3)])
def test_ranks_with_different_numbers_of_rows(counts: tuple[int, ...], tmp_path: Path) -> None:
    batch = rows(sum(counts))
    room = max(map(len, batch))
    ends = np.cumsum((0, *counts))
    parts = [batch[a:b] for a, b in pairwise(ends.tolist())]
    alone, shared = tmp_path / "alone.json", tmp_path / "shared.json"
    steps([batch], room, ["none"], alone)
    arguments = (parts, room, ["ddp", "fsdp2"], shared)
    with ExitStack() as running:
        every = [
            running.enter_context(forked(steps, *arguments, cwd=ROOT, env=environment(env)))
            for env in ranks(len(counts))
        ]
        for one in every:
            assert one.wait() == 0, one.communicate()[1].decode()
    wanted, found = (json.loads(file.read_text()) for file in (alone, shared))
    assert len(found) == 2 * len(LOSSES)
    for case, values in found.items():
        loss = case.split()[1]
        assert np.allclose(values, wanted[f"none {loss}"], rtol=1e-4, atol=1e-5), case
