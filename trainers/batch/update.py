"""One optimizer step over a batch of rows, the same for every stage.

A batch is cut into forwards that fit the memory, whatever traces meet in one; every loss is
divided by the sampled tokens of the whole batch, over all processes, so neither the cut nor the
number of processes changes the gradient. Accelerate carries devices, mixed precision and processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from nprdsl.trainers.batch.packed_rows import Row, alike, bins, pack
from nprdsl.trainers.batch.scoring import Attention, score, targets

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A row to train on. `weights` float64 [N]: one number for each sampled entry, in order, that
    the loss gets beside its log-probability (an advantage; ones for imitation). `old` float64 [N]:
    its log-probability when it was sampled, where the loss compares."""

    row: Row
    weights: Floats
    old: Floats | None = None

    def __post_init__(self) -> None:
        tokens = int(self.row.sampled.sum())
        for name, values in (("weights", self.weights), ("old", self.old)):
            if values is not None and values.shape != (tokens,):
                raise ValueError(
                    f"`{name}` has the shape {values.shape}; the row has {tokens} sampled tokens"
                )


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What a loss takes: tensors [N] over the sampled tokens of some rows, and `tokens`, the number
    by which a mean divides."""

    logprobs: torch.Tensor
    weights: torch.Tensor
    old: torch.Tensor
    tokens: int


Loss = Callable[[Batch], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What a step did. `logprobs` are the trainer's own before it, for each item float64 [N];
    `loss` and `gradient_norm` (before clipping) are over all processes."""

    loss: float
    gradient_norm: float
    tokens: int
    packed_rows: int
    logprobs: list[Floats]


Check = Callable[[list[Floats]], None]


def unchecked(logprobs: list[Floats]) -> None:
    """No check of the log-probabilities before a step."""


class Updater:
    """Steps one model, whose parameters the optimizers share out. `room`: the entries that a packed
    row may hold. `rows`: where it is more than 1, traces are not packed; as many of like length
    share a forward, each a row of its own (dense attention only; on a CPU its cost, the square of
    the length, is what counts). `clip`: the greatest norm of the gradient."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: torch.nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        *,
        room: int = 32_768,
        rows: int = 1,
        clip: float = 1.0,
        attention: Attention = Attention.DENSE,
    ) -> None:
        self.accelerator = accelerator
        self.model = model
        self.optimizers = optimizers
        self.room = room
        self.rows = rows
        self.clip = clip
        self.attention = attention

    def step(
        self, items: Sequence[Item], loss: Loss, check: Check = unchecked, *, silent: int = 0
    ) -> Step:
        """One optimizer step over this process's items. `check` sees the log-probabilities of each
        item before the step, which is not made if it raises. `silent`: sampled tokens of rows that
        belong to the batch but are left out, since their weights are all 0. Raises ValueError for
        an item that is longer than `room`, before anything is computed."""
        forwards = self._forwards([len(item.row) for item in items])
        total = self._sum(silent + sum(int(item.row.sampled.sum()) for item in items))
        found: list[Floats] = [np.zeros(0)] * len(items)
        value = 0.0
        self.model.train()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        for number, rows in enumerate(forwards):
            with self._synchronised(last=number == len(forwards) - 1):
                value += self._backward(items, rows, loss, int(total), found)
        check(found)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        packed = sum(map(len, forwards))
        return Step(self._sum(value), float(norm or 0.0), int(total), packed, found)

    def _forwards(self, lengths: Sequence[int]) -> list[list[list[int]]]:
        """Which items stand in which row of which forward."""
        if self.rows == 1:
            return [[place] for place in bins(lengths, self.room)]
        return [[[i] for i in group] for group in alike(lengths, self.room, self.rows)]

    def _backward(
        self,
        items: Sequence[Item],
        places: list[list[int]],
        loss: Loss,
        total: int,
        found: list[Floats],
    ) -> float:
        """Adds the gradient of some packed rows; keeps the log-probabilities of their items."""
        rows = [pack([items[i].row for i in place]) for place in places]
        order = [i for place in places for i in place]
        wanted = [targets(row) for row in rows]
        with self.accelerator.autocast():
            logprobs = score(self._inner, rows, wanted, self.attention, through=self.model)
        made = Batch(
            logprobs,
            self._tensor([items[i].weights for i in order]),
            self._tensor([_old(items[i]) for i in order]),
            total,
        )
        value = loss(made)
        # Gradients of processes are averaged: each counts as many times as there are processes.
        self.accelerator.backward(value * self.accelerator.num_processes)
        ends = np.cumsum([len(items[i].weights) for i in order])[:-1]
        kept = np.split(logprobs.detach().double().cpu().numpy(), ends)
        for index, values in zip(order, kept, strict=True):
            found[index] = values
        return float(value.detach())

    @property
    def _inner(self) -> Any:
        return self.accelerator.unwrap_model(self.model)

    def _synchronised(self, *, last: bool) -> Any:
        """Gradients travel between processes once, with the last row."""
        if last:
            return self.accelerator.accumulate()
        return self.accelerator.no_sync(self.model)

    def _sum(self, value: float) -> float:
        """The sum over all processes."""
        local = torch.tensor(value, dtype=torch.float64, device=self.accelerator.device)
        return float(self.accelerator.reduce(local, "sum"))

    def _tensor(self, arrays: Sequence[Floats]) -> torch.Tensor:
        whole = np.concatenate(arrays).astype(np.float32)
        return torch.from_numpy(whole).to(self.accelerator.device)


def _old(item: Item) -> Floats:
    return np.zeros(len(item.weights)) if item.old is None else item.old
