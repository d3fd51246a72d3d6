"""The recipe: its base and data are made once, its tasks are commands that `nprdsl` takes."""

from __future__ import annotations

import json
import signal
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nprdsl.runtime import smollm2
from nprdsl.runtime.adapter_settings import SETTINGS
from nprdsl.trainers.config.reading import read_config
from nprdsl.trainers.config.stages import PapoConfig, SftConfig
from nprdsl.trainers.curriculum.recipe import TaskError
from nprdsl.trainers.evaluate.suites import GENERATED, SHIPPED
from nprdsl.trainers.run.lora import WEIGHTS
from nprdsl.trainers.smol import command

CONFIGS = Path(__file__).parents[3] / "configs" / "smol"


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    base = tmp_path / "cached"
    base.mkdir()
    (base / "config.json").write_text("{}")
    monkeypatch.setattr(smollm2, "prepare", lambda tell: base)
    monkeypatch.setattr(command, "TRACES", 20)
    monkeypatch.setattr(command, "PROBLEMS", 10)
    command.prepare(tmp_path / "run")
    return tmp_path / "run"


def test_what_is_there_is_kept(out: Path) -> None:
    assert "system" not in (out / "base" / "chat_template.jinja").read_text()
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    command.prepare(out)
    assert before == {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    rows = [json.loads(line) for line in (out / "traces.jsonl").read_text().splitlines()]
    assert len(rows) == 20 and all(row["trace"].startswith("<guideline>") for row in rows)


def test_tasks_are_training_and_every_suite_in_every_mode(out: Path) -> None:
    first, *others = command.tasks(out, CONFIGS, 40, 60, 2)
    changes = [value for flag, value in pairwise(first.arguments) if flag == "--set"]
    config = read_config(SftConfig, CONFIGS / "sft.toml", changes)
    assert config.data.limit == 40 and config.model.lora is not None
    assert Path(config.model.path) == out / "base" and Path(config.run.output) == out / "sft"
    suites = {one.arguments[one.arguments.index("--suite") + 1] for one in others}
    assert suites == set(command.SUITES) <= {*GENERATED, *SHIPPED}
    for option in ("--native", "--free"):
        assert sum(option in one.arguments for one in others) == len(suites)
    assert len({one.result for one in others}) == len(others)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (smollm2.WeightsUnavailableError("no network"), 2, "error: no network"),
        (OSError(28, "No space left on device"), 2, "No space left"),
        (TaskError("sft failed"), 1, "error: sft failed"),
        (KeyboardInterrupt(), 130, "the same command goes on"),
    ],
)
def test_what_ends_the_recipe_is_told(
    error: BaseException,
    code: int,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(command, "prepare", fail)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert command.main(["--out", str(tmp_path), "--configs", str(CONFIGS)]) == code
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told in capsys.readouterr().err


def test_the_second_configuration_is_read() -> None:
    sft, papo = (
        read_config(stage, CONFIGS / f"{name}.toml")
        for stage, name in ((SftConfig, "sft"), (PapoConfig, "papo"))
    )
    assert papo.model.lora == sft.model.lora


def test_a_published_adapter_names_its_base_as_the_hub_does(tmp_path: Path) -> None:
    made = tmp_path / "model"
    made.mkdir()
    (made / SETTINGS).write_text(json.dumps({"base_model_name_or_path": "runs/base", "r": 16}))
    save_file({"a": torch.tensor([1.5])}, made / WEIGHTS)
    command.publish(made, tmp_path / "published")
    settings = json.loads((tmp_path / "published" / SETTINGS).read_text())
    assert settings == {"base_model_name_or_path": smollm2.NAME, "r": 16}
    weights = load_file(tmp_path / "published" / WEIGHTS)  # fp32 would be twice as large
    assert weights["a"].dtype == torch.bfloat16 and weights["a"].item() == 1.5


@pytest.mark.parametrize("pays", [True, False])
def test_precision_is_what_the_processor_is_quick_at(
    pays: bool, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "bf16_pays", lambda: pays)
    first, second, *_ = command.tasks(out, CONFIGS, 40, 60, 2)
    changes = [value for flag, value in pairwise(first.arguments) if flag == "--set"]
    config = read_config(SftConfig, CONFIGS / "sft.toml", changes)
    wanted = ("bf16", "bf16") if pays else ("fp32", "no")
    assert (config.model.dtype, config.run.precision) == wanted
    assert second.arguments[second.arguments.index("--dtype") + 1] == wanted[0]
