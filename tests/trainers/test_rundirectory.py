"""A run goes on from what a kill at any time leaves; nothing else is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nprdsl.trainers.run.directory import RunDirectory, RunError

SETTINGS = {"run": {"seed": 1, "output": "x"}, "batch": 8}


def test_a_run_goes_on_with_its_own_settings_only(tmp_path: Path) -> None:
    path = tmp_path / "run"
    RunDirectory.open(path, SETTINGS)
    RunDirectory.open(path, SETTINGS)
    other = {"run": {"seed": 2, "output": "x"}, "batch": 8, "epochs": 2}
    with pytest.raises(
        RunError, match=r"`run.seed` was 1 and is 2; `epochs` was None and is 2\): name another"
    ):
        RunDirectory.open(path, other)
    (path / "metrics.jsonl").write_text("{}\n")
    RunDirectory.open(path, other, restart=True)
    assert [f.name for f in path.iterdir()] == ["settings.json"]


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for restart in (False, True):
        with pytest.raises(RunError, match="holds something that is no run"):
            RunDirectory.open(tmp_path, SETTINGS, restart=restart)
    with pytest.raises(RunError, match="is a file"):
        RunDirectory.open(tmp_path / "thesis.txt", SETTINGS, restart=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_only_whole_checkpoints_count(tmp_path: Path) -> None:
    run = RunDirectory.open(tmp_path / "run", SETTINGS)
    assert run.latest() is None
    for step in (9, 10, 100):
        (run.unfinished(step) / "weights").write_text(str(step))
        run.finish(step, keep=2)
    (run.unfinished(200) / "weights").write_text("half of it")
    assert run.latest() == (100, run.path / "checkpoints" / "step-000100")
    assert (run.latest() or (0, Path()))[1].joinpath("weights").read_text() == "100"
    kept = sorted(f.name for f in (run.path / "checkpoints").iterdir())
    assert kept == ["step-000010", "step-000100", "step-000200.unfinished"]
    assert not list(run.unfinished(200).iterdir())  # written anew


def test_a_model_is_there_when_it_is_whole(tmp_path: Path) -> None:
    run = RunDirectory.open(tmp_path / "run", SETTINGS)
    (run.unfinished("model") / "config.json").write_text("{}")
    assert not run.complete
    run.finish("model")
    assert run.complete and (run.model / "config.json").exists()


def test_metrics_behind_a_checkpoint_are_cut_off(tmp_path: Path) -> None:
    run = RunDirectory.open(tmp_path / "run", SETTINGS)
    assert run.metrics() == []
    for step in range(1, 5):
        run.log(step, {"loss": 1 / step})
        run.keep_rollouts(step, [{"text": "a"}, {"text": "b"}])
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # a kill
    assert [line["step"] for line in run.metrics()] == [1, 2, 3, 4]
    run.forget_after(2)
    assert run.metrics() == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]
    kept = (run.path / "rollouts.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in kept] == [1, 1, 2, 2]
    run.log(3, {"loss": 0.3})
    assert run.metrics()[-1] == {"step": 3, "loss": 0.3}
