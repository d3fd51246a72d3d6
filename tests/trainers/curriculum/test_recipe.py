"""The recipe is whole: every need is another's result, every command is one that `nprdsl` takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from nprdsl.trainers.config import PapoConfig, SampleConfig, SftConfig, ZeroConfig, read_config
from nprdsl.trainers.curriculum.recipe import (
    LONGER,
    MODES,
    SCHEMA,
    STAGES,
    SUITE,
    CurriculumFolder,
    Task,
    tasks,
)
from nprdsl.trainers.evaluate import suites

PLACE = CurriculumFolder(Path("runs/curriculum/seed-0"), Path("configs/arith"))
TASKS = tasks(PLACE)
TRAINING = [task for task in TASKS if task.arguments[0] == "train"]


def config_of(task: Task) -> SftConfig | ZeroConfig | PapoConfig | SampleConfig:
    kinds = {"sft": SftConfig, "zero": ZeroConfig, "papo": PapoConfig, "sample": SampleConfig}
    stage = task.arguments[1] if task.arguments[0] == "train" else "sample"
    file = task.arguments[task.arguments.index("--config") + 1]
    changes = [b for a, b in zip(task.arguments, task.arguments[1:], strict=False) if a == "--set"]
    read = read_config(kinds[stage], Path(file), changes)
    assert isinstance(read, SftConfig | ZeroConfig | PapoConfig | SampleConfig)
    return read


def test_every_need_is_there_before() -> None:
    there = {PLACE.beginner, PLACE.corpus, PLACE.problems}
    for task in TASKS:
        assert set(task.needs) <= there, task.name
        there.add(task.result)
    assert len({task.result for task in TASKS}) == len({task.name for task in TASKS}) == len(TASKS)


def name_of(task: Task) -> str:
    return task.name.removeprefix("seed 0, ")


def test_every_stage_is_trained_and_evaluated() -> None:
    assert {name_of(task) for task in TRAINING} == {stage.name for stage in STAGES}
    made = {task.result for task in TASKS}
    assert {PLACE.longer(stage.name) for stage in STAGES} < made
    assert {SUITE, LONGER} <= set(suites.GENERATED)


def test_every_stage_is_evaluated_in_every_mode() -> None:
    made = {task.result: task.arguments for task in TASKS}
    for stage in STAGES:
        for mode in MODES:
            options = {"--native", "--free"} & set(made[PLACE.evaluation(stage.name, mode)])
            assert options == set(MODES[mode])


def test_another_seed_trains_all_of_it_with_that_seed() -> None:
    """Weights, texts and problems are drawn for it as well: `command.prepare`."""
    other = CurriculumFolder(Path("runs/curriculum/seed-1"), Path("configs/arith"), 1)
    assert len(tasks(other)) == len(TASKS)
    for task, first in zip(tasks(other), TASKS, strict=True):
        assert task.name == first.name.replace("seed 0", "seed 1")
        assert str(task.result) == str(first.result).replace("seed-0", "seed-1")
        if task.arguments[0] == "eval":
            assert task.arguments[task.arguments.index("--seed") + 1] == "1"
        else:
            read = config_of(task)
            assert (read.seed if isinstance(read, SampleConfig) else read.run.seed) == 1


@pytest.mark.parametrize(
    "task", [t for t in TASKS if t.arguments[0] != "eval"], ids=lambda t: t.name
)
def test_configurations_are_those_of_the_recipe(task: Task) -> None:
    """What the recipe sets is what the files say by themselves, so that each can be run by hand."""
    read = config_of(task)
    file = task.arguments[task.arguments.index("--config") + 1]
    assert read == read_config(type(read), Path(file), [])
    assert read.language == SCHEMA
    output = read.output if isinstance(read, SampleConfig) else read.run.output + "/model"
    assert Path(output) == task.result
    assert {Path(read.model.path), Path(read.data.source)} == set(task.needs)


def test_baselines_differ_in_one_thing() -> None:
    read = {name_of(task): config_of(task).model_dump() for task in TRAINING}

    def differ(one: str, other: str) -> set[str]:
        found = set()
        for key, value in read[one].items():
            if isinstance(value, dict):
                found |= {f"{key}.{k}" for k, v in value.items() if read[other][key][k] != v}
            elif read[other][key] != value:
                found.add(key)
        return found - {"run.output"}

    assert differ("npr", "control") == {"reward"}
    assert differ("npr", "sr") == {"rollout.mode", "model.path"}
    for short, long in (("beta", "beta-long"), ("sr-beta", "sr-beta-long")):
        assert differ(short, long) == {"epochs"}
