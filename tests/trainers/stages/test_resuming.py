"""A stage that is killed at any time goes on to the same numbers."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nprdsl.trainers.config import PapoConfig, SftConfig, ZeroConfig, read_config
from nprdsl.trainers.stages.papo import train_papo
from nprdsl.trainers.stages.sft import train_sft
from nprdsl.trainers.stages.zero import train_zero
from tests.cli.commands import ROOT, started
from tests.trainers.stages.tiny import Tiny

STAGES = pytest.mark.parametrize("stage", ["sft", "zero", "papo"])
CHANGES: dict[str, dict[str, object]] = {
    "sft": {"optimizer__kind": "muon"},  # two optimizers, the states of both
    "zero": {"minibatch": 1, "refills": 2},
}
Metrics = list[dict[str, float]]


def numbers(folder: Path) -> Metrics:
    """All metrics but times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    times = ("seconds", "speed")
    return [{k: v for k, v in one.items() if not k.startswith(times)} for one in lines]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def trained(stage: str, config: Path) -> None:
    match stage:
        case "sft":
            train_sft(read_config(SftConfig, config))
        case "zero":
            train_zero(read_config(ZeroConfig, config))
        case "papo":
            train_papo(read_config(PapoConfig, config))


def killed(stage: str, config: Path, folder: Path) -> int:
    """Starts the command and kills it hard once it has made two steps; gives how many it made."""
    metrics = folder / "metrics.jsonl"
    until = time.monotonic() + 300
    with started("train", stage, "--config", config, cwd=ROOT) as running:
        while time.monotonic() < until and running.poll() is None:
            if metrics.exists() and metrics.read_text().count("\n") >= 2:
                running.send_signal(signal.SIGKILL)
                break
            time.sleep(0.005)
        _, error = running.communicate(timeout=60)
        assert running.returncode == -signal.SIGKILL, error.decode()
    return len(numbers(folder))


@STAGES
def test_a_killed_run_goes_on_to_the_same_numbers(stage: str, tiny: Tiny, tmp_path: Path) -> None:
    changes = CHANGES.get(stage, {})
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    trained(stage, tiny.config(stage, whole, **changes))
    config = tiny.config(stage, cut, **changes)
    made = killed(stage, config, cut)
    assert 2 <= made < len(numbers(whole)), "the kill came too late to show anything"
    trained(stage, config)
    assert numbers(cut) == numbers(whole)
    first, second = weights(whole), weights(cut)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@STAGES
def test_the_weights_move(stage: str, tiny: Tiny, tmp_path: Path) -> None:
    """Else the test above would show nothing."""
    trained(stage, tiny.config(stage, tmp_path / "run", **CHANGES.get(stage, {})))
    before, after = load_file(tiny.model / "model.safetensors"), weights(tmp_path / "run")
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_complete_run_is_left_as_it_is(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config("sft", tmp_path / "run")
    trained("sft", config)
    stamp = (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns
    trained("sft", config)
    assert (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns == stamp


def test_a_checkpoint_is_written_when_the_last_is_too_old(tiny: Tiny, tmp_path: Path) -> None:
    often = tiny.config("sft", tmp_path / "often", run__save_every=99, run__save_minutes=1e-9)
    seldom = tiny.config("sft", tmp_path / "seldom", run__save_every=99, run__save_minutes=99.0)
    for config in (often, seldom):
        trained("sft", config)
    assert len(list((tmp_path / "often" / "checkpoints").iterdir())) == 2  # as many as are kept
    assert not (tmp_path / "seldom" / "checkpoints").exists()
