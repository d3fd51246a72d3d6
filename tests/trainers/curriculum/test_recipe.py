"""The recipe is whole: every need is another's result, every command is one that `nprdsl` takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from nprdsl.trainers.config import PapoConfig, SampleConfig, SftConfig, ZeroConfig, read_config
from nprdsl.trainers.curriculum.recipe import MODES, SCHEMA, STAGES, CurriculumFolder, Task, tasks
from nprdsl.trainers.evaluate import suites
from nprdsl.trainers.evaluate.samples import Mode

PLACE = CurriculumFolder(Path("runs/curriculum"), Path("configs/arith"))
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


def test_every_stage_is_trained_and_evaluated() -> None:
    assert {task.name for task in TRAINING} == {stage.name for stage in STAGES}
    for stage in STAGES:
        for seed in range(stage.seeds):
            assert PLACE.evaluation(stage.name, "arith", seed) in {task.result for task in TASKS}
    assert {"arith", "arith-long"} <= set(suites.GENERATED)


def test_every_stage_is_evaluated_in_every_mode() -> None:
    made = {task.result: task.arguments for task in TASKS}
    for stage in STAGES:
        files = {
            mode: PLACE.evaluation(stage.name, "arith", 0)
            if mode is stage.mode
            else PLACE.other_mode(stage.name, mode)
            for mode in MODES
        }
        options = {mode: {"--native", "--free"} & set(made[file]) for mode, file in files.items()}
        assert options == {
            Mode.NATIVE: {"--native"},
            Mode.PARALLEL: set(),
            Mode.FREE: {"--free"},
        }


def test_more_seeds_are_more_evaluations_and_nothing_else() -> None:
    more = {task.result for task in tasks(PLACE, 4)} - {task.result for task in TASKS}
    assert more == {
        PLACE.evaluation(stage.name, "arith", seed)
        for stage in STAGES
        for seed in range(stage.seeds, 4)
    }


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
    read = {task.name: config_of(task).model_dump() for task in TRAINING}

    def differ(one: str, other: str) -> set[str]:
        found = set()
        for key, value in read[one].items():
            if isinstance(value, dict):
                found |= {f"{key}.{k}" for k, v in value.items() if read[other][key][k] != v}
            elif read[other][key] != value:
                found.add(key)
        return found - {"run.output"}

    assert differ("beta", "sr-beta") == {"layout"}
    assert differ("npr", "control") == {"reward"}
    assert differ("npr", "sr") == {"rollout.mode", "model.path"}
