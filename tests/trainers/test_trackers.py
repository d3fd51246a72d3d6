"""Metrics reach Accelerate's trackers; speed and disk use are arithmetic."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import accelerate.tracking as tracking
import pytest
import torch
from accelerate.utils import LoggerType
from transformers import LlamaConfig, LlamaForCausalLM

from nprdsl.trainers.batch.update import Work
from nprdsl.trainers.config import SftConfig, read_config
from nprdsl.trainers.run import trackers
from nprdsl.trainers.run.disk_use import checkpoint_bytes, disk_notice
from nprdsl.trainers.run.model_size import ModelSize
from nprdsl.trainers.run.training_speed import TrainingSpeed
from nprdsl.trainers.stages.sft import train_sft
from tests.runtime.tiny_models import SHAPE
from tests.trainers.stages.tiny import make


class Recorder(tracking.GeneralTracker):  # type: ignore[misc]
    """Keeps what it is given."""

    name = "wandb"
    requires_logging_directory = False
    told: ClassVar[list[Any]] = []

    def __init__(self, project: str, **options: Any) -> None:
        super().__init__()
        self.told.append((project, options))

    @property
    def tracker(self) -> None:
        return None

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.told.append(values)

    def log(self, values: dict[str, Any], step: int | None = None, **options: Any) -> None:
        self.told.append((step, values))

    def finish(self) -> None:
        self.told.append("finished")


def test_all_metrics_reach_a_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Recorder)
    monkeypatch.setattr(tracking, "_available_trackers", [LoggerType.WANDB])
    monkeypatch.setattr(trackers, "is_wandb_available", lambda: True)
    monkeypatch.setattr(Recorder, "told", [])
    changes = {"run__trackers": ["wandb"], "run__project": "sums", "run__peak_tflops": 1.0}
    config = make(tmp_path).config("sft", tmp_path / "run", epochs=1, **changes)
    train_sft(read_config(SftConfig, config))
    (project, options), settings, *logged, last = Recorder.told
    assert project == "sums" and options["name"] == "run" and last == "finished"
    assert settings["run.project"] == "sums" and settings["optimizer.learning_rate"] == 1e-3
    lines = [json.loads(s) for s in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [{"step": step, **values} for step, values in logged] == lines
    assert all(0 < line["speed/mfu"] == line["speed/tflops"] for line in lines)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_there_is_told(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, f"is_{name}_available", lambda: False)
    config = make(tmp_path).config("sft", tmp_path / "run", run__trackers=[name])
    with pytest.raises(ValueError, match=f"names {name}, which is not installed"):
        train_sft(read_config(SftConfig, config))
    assert not (tmp_path / "run").exists()


def model() -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, **SHAPE))


def test_speed_is_work_over_the_seconds_of_all_processes() -> None:
    size = ModelSize.of(model())
    speed = TrainingSpeed(size, 4, 2.0)
    speed.made(Work(300, 30_000, 100), 1.0)
    speed.made(Work(100, 10_000, 50), 3.0)
    found = speed.metrics()
    assert found["speed/entries"] == 400 / 16
    assert found["speed/tflops"] == pytest.approx(size.flops(400, 40_000, 150) / 16 / 1e12)
    assert found["speed/mfu"] == pytest.approx(found["speed/tflops"] / 2)
    assert speed.metrics() == {}


def test_the_size_of_a_checkpoint_is_that_of_its_files(tmp_path: Path) -> None:
    one = model()
    optimizer = torch.optim.AdamW(one.parameters())
    sum(p.sum() for p in one.parameters()).backward()
    optimizer.step()
    torch.save((one.state_dict(), optimizer.state_dict()), tmp_path / "all.pt")
    written = (tmp_path / "all.pt").stat().st_size
    assert checkpoint_bytes(one, [optimizer]) == pytest.approx(written, rel=0.2)


@pytest.mark.parametrize(
    ("size", "free", "told"),
    [
        (10**6, 10**12, ""),
        (10**9, 10**12, "checkpoints take up to 3.0 GB (3 of 1.0 GB), of 1000.0 GB that are free"),
        (10**9, 10**9, "that is not enough"),
        (10**6, 10**6, "that is not enough"),
    ],
)
def test_what_is_said_of_the_disk(
    size: int, free: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    said = disk_notice(tmp_path, size, 2)
    assert (told in said) if told else said == ""
