"""Tasks run when what they need is there, and are not run twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nprdsl.trainers.curriculum.recipe import Task, TaskError, run_tasks


def picture(folder: Path, name: str, *needs: str, schema: str = "npr") -> Task:
    """A command whose result is a file."""
    result = folder / f"{name}.svg"
    arguments = ("show", schema, "--mermaid", "--svg", str(result))
    return Task(name, arguments, result, tuple(folder / f"{need}.svg" for need in needs))


def test_what_is_needed_goes_first(tmp_path: Path) -> None:
    told: list[str] = []
    tasks = [picture(tmp_path, "b", "a"), picture(tmp_path, "c", "b"), picture(tmp_path, "a")]
    run_tasks(tasks, tmp_path / "logs", 2, told.append)
    assert [line[0] for line in told] == ["a", "b", "c"]
    assert all(task.result.exists() for task in tasks)


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "a.svg").write_text("kept", encoding="utf-8")
    run_tasks([picture(tmp_path, "a"), picture(tmp_path, "b")], tmp_path, 2, told.append)
    assert [line[0] for line in told] == ["b"]
    assert (tmp_path / "a.svg").read_text(encoding="utf-8") == "kept"


@pytest.mark.parametrize(("workers", "processes"), [(1, 1), (2, 2)])
def test_a_task_may_have_several_processes(tmp_path: Path, workers: int, processes: int) -> None:
    told: list[str] = []
    alone = picture(tmp_path, "a")
    shared = replace(picture(tmp_path, "b"), processes=2)
    run_tasks([shared, alone], tmp_path / "logs", workers, told.append)
    assert [line[0] for line in told] == ["b", "a"]  # it took all workers that there are
    said = [(tmp_path / "logs" / f"{name}.log").read_text("utf-8") for name in "ba"]
    assert said[1] and said[0].count(said[1].splitlines()[0]) == processes


def test_a_failure_says_what_the_command_said(tmp_path: Path) -> None:
    task = picture(tmp_path, "bad", schema="nothing")
    with pytest.raises(TaskError, match="`bad` failed with exit code 2") as found:
        run_tasks([task], tmp_path / "logs", 1, print)
    assert "error: `nothing` is no schema that ships with the package" in str(found.value)
    assert "nprdsl show nothing" in str(found.value)


def test_what_can_never_begin_is_told(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"`b` needs .*a\.svg"):
        run_tasks([picture(tmp_path, "b", "a")], tmp_path / "logs", 1, print)
