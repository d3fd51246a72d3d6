"""Checkpoints that are written beside the next steps hold what was there when they were begun.

Runs that are killed and go on are in `stages/test_resuming.py`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch.distributed import checkpoint

from nprdsl.trainers.run.checkpoints import Checkpoints
from nprdsl.trainers.run.directory import RunError


class Trained:
    """A small model with tied weights under two optimizers, a few steps old."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        first, last = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        last.weight = first.weight
        self.model = torch.nn.Sequential(first, torch.nn.Tanh(), last)
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon([first.weight], lr=0.1),
            torch.optim.AdamW([first.bias, last.bias], lr=0.1),
        ]
        self.schedulers = [
            torch.optim.lr_scheduler.ExponentialLR(one, 0.5) for one in self.optimizers
        ]
        self.checkpoints = Checkpoints(
            Accelerator(cpu=True), self.model, self.optimizers, self.schedulers
        )

    def step(self, count: int = 1) -> list[float]:
        for _ in range(count):
            self.model(torch.randn(3, 4)).square().sum().backward()
            for optimizer, scheduler in zip(self.optimizers, self.schedulers, strict=True):
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
        return [float(v) for p in self.model.parameters() for v in p.detach().flatten()]


def test_what_is_written_is_what_was_there(tmp_path: Path) -> None:
    """Steps that come while it is written change nothing of it, and are made again from there: with
    the same rates, momenta and random numbers."""
    began: list[str] = []
    trained = Trained(1)
    trained.step(3)
    (tmp_path / "step").mkdir()
    trained.checkpoints.write(tmp_path / "step", lambda: began.append("whole"))
    wanted = trained.step(2)
    trained.checkpoints.settle()
    assert began == ["whole"]
    other = Trained(2)
    other.checkpoints.read(tmp_path / "step")
    assert other.step(2) == wanted


def test_one_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    """Half of it is gone, or another version wrote it."""
    with pytest.raises(RunError, match=r"the checkpoint `.*step-7` cannot be read"):
        Trained(1).checkpoints.read(tmp_path / "step-7")


def test_one_that_cannot_be_written_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the next one, or at the end; it never gets its name."""
    trained, began = Trained(1), list[str]()
    trained.step()
    (tmp_path / "step").mkdir()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.FileSystemWriter, "write_data", full)
    trained.checkpoints.write(tmp_path / "step", lambda: began.append("whole"))
    with pytest.raises(RunError, match=r"could not be written(?s:.*)No space left"):
        trained.checkpoints.settle()
    assert began == []
    trained.checkpoints.settle()
    shutil.rmtree(tmp_path / "step")
