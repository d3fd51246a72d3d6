"""One optimizer step over a batch of rows, the same for every stage.

A batch is cut into packed rows that fit the memory, whatever traces meet in one; every loss is
divided by the sampled tokens of the whole batch, over all processes, so neither the cut nor the
number of processes changes the gradient. Accelerate carries devices, mixed precision and processes.
Non-goals: where rows and advantages come from, schedules, checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from nprdsl.trainers.rows import Row, bins, pack
from nprdsl.trainers.scoring import Attention, score, targets

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


class Updater:
    """Steps one model. `room`: the entries that one forward may hold. `clip`: the greatest norm of
    the gradient."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        room: int = 32_768,
        clip: float = 1.0,
        attention: Attention = Attention.DENSE,
    ) -> None:
        self.accelerator = accelerator
        self.model = model
        self.optimizer = optimizer
        self.room = room
        self.clip = clip
        self.attention = attention

    def step(self, items: Sequence[Item], loss: Loss) -> Step:
        """One optimizer step over this process's items. Raises ValueError for an item that is
        longer than `room`, before anything is computed."""
        places = bins([len(item.row) for item in items], self.room)
        total = self._sum(sum(int(item.row.sampled.sum()) for item in items))
        found: list[Floats] = [np.zeros(0)] * len(items)
        value = 0.0
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        for number, place in enumerate(places):
            with self._synchronised(last=number == len(places) - 1):
                value += self._backward([items[i] for i in place], loss, int(total), found, place)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        return Step(self._sum(value), float(norm or 0.0), int(total), len(places), found)

    def _backward(
        self, items: list[Item], loss: Loss, total: int, found: list[Floats], place: list[int]
    ) -> float:
        """Adds the gradient of one packed row; keeps the log-probabilities of its items."""
        row = pack([item.row for item in items])
        wanted = targets(row)
        with self.accelerator.autocast():
            logprobs = score(self._inner, row, wanted, self.attention, through=self.model)
        made = Batch(
            logprobs,
            self._tensor([item.weights for item in items]),
            self._tensor([_old(item) for item in items]),
            total,
        )
        value = loss(made)
        # Gradients of processes are averaged: each counts as many times as there are processes.
        self.accelerator.backward(value * self.accelerator.num_processes)
        ends = np.cumsum([len(item.weights) for item in items])[:-1]
        kept = np.split(logprobs.detach().double().cpu().numpy(), ends)
        for index, values in zip(place, kept, strict=True):
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
