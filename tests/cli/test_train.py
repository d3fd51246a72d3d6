"""`nprdsl train` and `nprdsl sample`: figures in the end, and clear errors before the beginning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import distributed

from nprdsl.cli.failures import ExitCode
from tests.cli.commands import invoke
from tests.trainers.stages.tiny import Tiny, make


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make(tmp_path_factory.mktemp("tiny"))


def test_a_stage_tells_its_last_figures_and_its_model(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config("sft", tmp_path / "run", epochs=1)
    result = invoke("train", "sft", "--config", config, "--set", "batch=5")
    assert (result.exit_code, result.stderr) == (0, "")
    told = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert told["model"] == str(tmp_path / "run" / "model")
    assert 0 < float(told["loss"]) < 10
    again = invoke("train", "sft", "--config", config, "--set", "batch=5", "--json")
    assert json.loads(again.stdout) == {"model": told["model"], "metrics": {}}


def test_the_end_of_a_run_leaves_the_group_of_its_processes(tiny: Tiny, tmp_path: Path) -> None:
    """Its threads abort a process now and then that ends with them."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        config = tiny.config("sft", tmp_path / "run", epochs=1)
        assert invoke("train", "sft", "--config", config).exit_code == 0
        assert not distributed.is_initialized()
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def test_bad_rows_are_told(tiny: Tiny, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"id": "a"}\n' + tiny.traces.read_text(), encoding="utf-8")
    config = tiny.config("sft", tmp_path / "run", data__source=str(source), epochs=1)
    result = invoke("train", "sft", "--config", config)
    assert result.exit_code == 0
    assert result.stderr == f"rows not trained on: 1; {tmp_path / 'run' / 'rejected.jsonl'}\n"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"bacth": 4}, "`bacth`"),
        ({"batch": 0}, "`batch`"),
        ({"schema": "nrp"}, "no schema is named `nrp`; did you mean `npr`?"),
        ({"model__path": "/nowhere"}, "/nowhere"),
        ({"data__source": "/nowhere.jsonl"}, "/nowhere.jsonl"),
        ({"legal": False}, "needs the layout `causal`"),
    ],
)
def test_mistakes_are_told_at_once(
    tiny: Tiny, tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    result = invoke("train", "sft", "--config", tiny.config("sft", tmp_path / "run", **changes))
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr.startswith("error: ")
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run" / "model").exists()


def test_a_mismatch_is_no_mistake_of_the_user(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config("papo", tmp_path / "run", rollout__mismatch=1e-12)
    result = invoke("train", "papo", "--config", config)
    assert result.exit_code == ExitCode.BAD
    assert "mismatch" in result.stderr or "differ" in result.stderr


def test_a_folder_of_another_run_is_kept(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config("sft", tmp_path / "run", epochs=1)
    assert invoke("train", "sft", "--config", config).exit_code == 0
    result = invoke("train", "sft", "--config", config, "--set", "epochs=2")
    assert result.exit_code == ExitCode.USAGE
    assert "`epochs` was 1.0 and is 2.0" in result.stderr
    assert "--restart" in result.stderr
    restarted = invoke("train", "sft", "--config", config, "--set", "epochs=2", "--restart")
    assert restarted.exit_code == 0


def test_a_stage_that_is_none_is_refused() -> None:
    result = invoke("train", "stf", "--config", "x.toml")
    assert result.exit_code == ExitCode.USAGE
    assert "stf" in result.stderr
    missing = invoke("train", "sft", "--config", "nowhere.toml")
    assert missing.exit_code == ExitCode.USAGE
    assert "nowhere.toml" in missing.stderr


def test_a_plan_trains_nothing(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config("sft", tmp_path / "run")
    named = config.rename(tmp_path / "sft.toml")
    result = invoke("train", "--plan", named, "--gpus", "2", "--memory", "80", "--json")
    told = json.loads(result.stdout)
    assert told["fits"] and told["traces"] == 4 and told["entries"] == 4 * 512
    assert not (tmp_path / "run").exists()
    large = invoke("train", "--plan", named, "--memory", "1")
    assert "1 GiB: it does not fit, however short rows are" in large.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name the stage: zero, sft or papo"),
        (["sft"], "name --config FILE.toml"),
        (["--plan", "my.toml"], "which stage `my.toml` is for"),
        (["--plan", "sft.toml"], "cannot read `sft.toml`"),
        (["--plan", "sft.toml", "--gpus", "0"], "--gpus"),
        (["--plan", "sft.toml", "--config", "sft.toml"], "leave --config out"),
    ],
)
def test_what_train_is_not_told(arguments: list[str], told: str) -> None:
    result = invoke("train", *arguments)
    assert result.exit_code == ExitCode.USAGE and told in result.stderr
