"""`python -m nprdsl.trainers.curriculum`: all stages, all evaluations, table and picture."""

from __future__ import annotations

import argparse
import json
import os
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import nprdsl
from nprdsl.trace.journal import write_json_lines
from nprdsl.trainers.curriculum.arithmetic import (
    TRAINED,
    development,
    held_out,
    problems,
    reported,
    write_corpus,
)
from nprdsl.trainers.curriculum.recipe import (
    SCHEMA,
    STAGES,
    CurriculumFolder,
    exit_code,
    run_tasks,
    speed,
    tasks,
)
from nprdsl.trainers.curriculum.report import write_report
from nprdsl.trainers.curriculum.small_model import publish, write_beginner
from nprdsl.trainers.run.directory import RunDirectory, RunError

DOCUMENTS: Final = 9_000  # that the base model reads
PROBLEMS: Final = 4_000  # for reinforcement learning and rejection sampling
CONFIGS: Final = (*(stage.name for stage in STAGES), "sample")
_TIME: Final = "seconds.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the curriculum; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m nprdsl.trainers.curriculum",
        description=__doc__,
        allow_abbrev=False,  # `--seed 3` would be three seeds
    )
    parser.add_argument("--out", type=Path, default=Path("runs/curriculum"), help="its folder")
    parser.add_argument("--configs", type=Path, default=Path("configs/arith"))
    parser.add_argument(
        "--seeds", type=int, default=1, help="of weights, texts, problems and runs: 0, 1, …"
    )
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 1)))
    parser.add_argument("--restart", action="store_true", help="begin anew; what was made is lost")
    parser.add_argument(
        "--publish", type=Path, metavar="FOLDER", help="write the trained model there, in bf16"
    )
    given = parser.parse_args(arguments)
    if not given.configs.is_dir():
        parser.error(
            f"there is no folder `{given.configs}`; run this in a clone, or give --configs"
        )
    lacking = sorted(
        {f"{name}.toml" for name in CONFIGS if not (given.configs / f"{name}.toml").exists()}
    )
    if lacking:
        parser.error(
            f"`{given.configs}` lacks {', '.join(lacking)}; configs/arith of a clone has them"
        )
    for option, number in (("--seeds", given.seeds), ("--workers", given.workers)):
        if number < 1:
            parser.error(f"{option} must be at least 1, not {number}")
    folders = [
        CurriculumFolder(given.out / f"seed-{seed}", given.configs, seed)
        for seed in range(given.seeds)
    ]

    def work() -> None:
        _run(given.out, folders, given.workers, restart=given.restart)
        if given.publish is not None:
            publish(folders[0].model("npr"), given.publish)

    return exit_code(work, RunError, tomllib.TOMLDecodeError, OSError)


def _run(out: Path, folders: Sequence[CurriculumFolder], workers: int, *, restart: bool) -> None:
    for folder in folders:
        RunDirectory.open(folder.path, _settings(folder), restart=restart)
        prepare(folder)
    logs = out / "logs"
    with _timed(out / _TIME):
        run_tasks([task for folder in folders for task in tasks(folder)], logs, workers, _print)
        run_tasks([speed(folders[0])], logs, 1, _print)
    seconds = json.loads((out / _TIME).read_text(encoding="utf-8"))
    for file in write_report(out, folders, seconds):
        _print(f"written: {file}")


def _settings(folder: CurriculumFolder) -> dict[str, Any]:
    """What the folder depends on: with other configurations, what is there would not be what they
    make."""
    configs = {f.stem: tomllib.loads(f.read_text("utf-8")) for f in folder.configs.glob("*.toml")}
    return {"seed": folder.seed, "configs": configs}


@contextmanager
def _timed(file: Path) -> Iterator[None]:
    """Adds the seconds of this run to those of the runs before it."""
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else 0.0
    since = time.perf_counter()
    try:
        yield
    finally:
        file.write_text(json.dumps(before + time.perf_counter() - since), encoding="utf-8")


def prepare(folder: CurriculumFolder) -> None:
    """The beginner, its corpus and the problems, where they are missing."""
    if not folder.problems.exists():
        unseen = (*held_out(), *development(), *reported())
        made = problems(PROBLEMS, 7 + folder.seed, unseen, TRAINED)
        rows = ({"id": p.id, "prompt": p.prompt, "answer": p.answer} for p in made)
        write_json_lines(folder.problems, rows)
    if not folder.corpus.exists():
        write_corpus(folder.corpus, DOCUMENTS, 1 + folder.seed)
    if not folder.beginner.exists():
        unfinished = folder.beginner.with_name(".init.tmp")
        write_beginner(unfinished, nprdsl.load(SCHEMA).tags, folder.seed)
        unfinished.replace(folder.beginner)


def _print(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {message}", flush=True)
