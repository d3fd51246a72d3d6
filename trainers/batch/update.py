"""One optimizer step over a batch of training rows, the same for every stage.

A batch is cut into forwards that fit the memory, whatever traces meet in one; every loss is divided
by the sampled tokens of the whole batch, over all processes, so neither the cut nor the number of
processes changes the gradient. Accelerate carries devices, mixed precision and processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.distributed.tensor import DTensor

from nprdsl.trainers.batch.scoring import score
from nprdsl.trainers.batch.training_rows import (
    TrainingRow,
    bins,
    blank_row,
    length_groups,
    pack,
)
from nprdsl.trainers.config.stages import Attention
from nprdsl.trainers.objective.advantages import Floats
from nprdsl.trainers.run.lora import without_own_casts


@dataclass(frozen=True, slots=True, eq=False)
class LossInputs:
    """What a loss takes: float32 tensors [N] over the sampled tokens of some rows, and `tokens`,
    the number by which a mean divides. `logprobs` carries the gradient; `weights` and `old`, the
    log-probabilities at sampling, are those of the rows."""

    logprobs: torch.Tensor
    weights: torch.Tensor
    old: torch.Tensor
    tokens: int


@dataclass(frozen=True, slots=True)
class Work:
    """What was put through a model: `entries`, the sum of `squares` of the lengths of traces, and
    how many entries were `scored`."""

    entries: int = 0
    squares: int = 0
    scored: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.entries + other.entries,
            self.squares + other.squares,
            self.scored + other.scored,
        )

    @classmethod
    def of(cls, rows: Sequence[TrainingRow]) -> Work:
        lengths = [len(row) for row in rows]
        return cls(sum(lengths), sum(n * n for n in lengths), sum(row.tokens for row in rows))


@dataclass(frozen=True, slots=True, eq=False)
class UpdateResult:
    """What an optimizer step did. `logprobs` are the trainer's own before it, float64 [N] for each
    row; `loss`, `gradient_norm` (before clipping), `tokens` and `work` are over all processes."""

    loss: float
    gradient_norm: float
    tokens: int
    packed_rows: int
    logprobs: list[Floats]
    work: Work


Loss = Callable[[LossInputs], torch.Tensor]
Check = Callable[[list[Floats]], None]


def unchecked(logprobs: list[Floats]) -> None:
    """No check of the log-probabilities before a step."""


@dataclass(frozen=True, slots=True, eq=False)
class Updater:
    """Steps one model, whose parameters the optimizers share out.

    `room`: the entries that a packed row may hold. `rows`: where it is more than 1, traces are not
    packed; as many of like length share a forward, each a row of its own (dense attention only; on
    a CPU its cost, the square of the length, is what counts). `clip`: the greatest norm of the
    gradient.
    """

    accelerator: Accelerator
    model: torch.nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    room: int = 32_768
    rows: int = 1
    clip: float = 1.0
    attention: Attention = Attention.DENSE

    def step(
        self,
        batch: Sequence[TrainingRow],
        loss: Loss,
        check: Check = unchecked,
        *,
        omitted: int = 0,
    ) -> UpdateResult:
        """One optimizer step over this process's rows. `check` sees the log-probabilities of each
        row before the step, which is not made if it raises. `omitted`: sampled tokens of rows that
        belong to the batch but are left out, since their weights are all 0.

        Raises ValueError for a row that is longer than `room`, before anything is computed.
        """
        forwards = self._forwards([len(row) for row in batch])
        count, total, work = self._agreed(len(forwards), Work.of(batch), omitted)
        logprobs: list[Floats] = [np.zeros(0)] * len(batch)
        value = 0.0
        self.model.train()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        for number in range(count):
            last = number == count - 1  # with it gradients travel between processes, once
            with self.accelerator.accumulate() if last else self.accelerator.no_sync(self.model):
                if number < len(forwards):
                    value += self._backward(batch, forwards[number], loss, total, logprobs)
                else:
                    self.accelerator.backward(self._scores([blank_row()]).sum())
        check(logprobs)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        packed = sum(map(len, forwards))
        whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
        return UpdateResult(self._sum(value), float(whole or 0.0), total, packed, logprobs, work)

    def _forwards(self, lengths: Sequence[int]) -> list[list[list[int]]]:
        """Which rows of the batch are packed into which row of which forward."""
        if self.rows == 1:
            return [[indices] for indices in bins(lengths, self.room)]
        return [[[i] for i in group] for group in length_groups(lengths, self.room, self.rows)]

    def _agreed(self, forwards: int, work: Work, omitted: int) -> tuple[int, int, Work]:
        """How many forwards every process makes, and the sampled tokens and the work of all."""
        own = (forwards, omitted, work)
        every = gather_object([own]) if self.accelerator.num_processes > 1 else [own]
        whole = sum((each for _, _, each in every), Work())
        tokens = whole.scored + sum(left_out for _, left_out, _ in every)
        return max(count for count, _, _ in every), tokens, whole

    def _scores(self, rows: Sequence[TrainingRow]) -> torch.Tensor:
        model = self.accelerator.unwrap_model(self.model)
        with self.accelerator.autocast(), without_own_casts(model):
            return score(model, rows, self.attention, through=self.model)

    def _backward(
        self,
        batch: Sequence[TrainingRow],
        packed: list[list[int]],
        loss: Loss,
        total: int,
        logprobs: list[Floats],
    ) -> float:
        """Adds the gradient of one forward; writes the log-probabilities of its rows."""
        rows = [pack([batch[i] for i in indices]) for indices in packed]
        scored = self._scores(rows)
        weights = self._tensor([row.weights for row in rows])
        old = self._tensor([row.logprobs for row in rows])
        value = loss(LossInputs(scored, weights, old, total))
        # Gradients of processes are averaged: each counts as many times as there are processes.
        self.accelerator.backward(value * self.accelerator.num_processes)
        order = [i for indices in packed for i in indices]
        ends = np.cumsum([batch[i].tokens for i in order])[:-1]
        parts = np.split(scored.detach().double().cpu().numpy(), ends)
        for index, part in zip(order, parts, strict=True):
            logprobs[index] = part
        return float(value.detach())

    def _sum(self, value: float) -> float:
        """The sum over all processes."""
        local = torch.tensor(value, dtype=torch.float64, device=self.accelerator.device)
        return float(self.accelerator.reduce(local, "sum"))

    def _tensor(self, arrays: Sequence[Floats]) -> torch.Tensor:
        whole = np.concatenate(arrays).astype(np.float32)
        return torch.from_numpy(whole).to(self.accelerator.device)
