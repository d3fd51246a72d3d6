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
from nprdsl.trainers.curriculum.arithmetic import TRAINED, held_out, problems, write_corpus
from nprdsl.trainers.curriculum.recipe import (
    SCHEMA,
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
_TIME: Final = "seconds.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the curriculum; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m nprdsl.trainers.curriculum", description=__doc__
    )
    parser.add_argument("--out", type=Path, default=Path("runs/curriculum"), help="its folder")
    parser.add_argument("--configs", type=Path, default=Path("configs/arith"))
    parser.add_argument("--seed", type=int, default=0, help="of weights, texts and problems")
    parser.add_argument(
        "--seeds", type=int, default=1, help="with which each stage is evaluated, at least"
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
    if given.seeds < 1:
        parser.error(f"--seeds must be at least 1, not {given.seeds}")
    folder = CurriculumFolder(given.out, given.configs)

    def work() -> None:
        _run(folder, given.seed, given.seeds, given.workers, restart=given.restart)
        if given.publish is not None:
            publish(folder.model("npr"), given.publish)

    return exit_code(work, RunError, tomllib.TOMLDecodeError, OSError)


def _run(folder: CurriculumFolder, seed: int, seeds: int, workers: int, *, restart: bool) -> None:
    RunDirectory.open(folder.path, _settings(folder, seed), restart=restart)
    prepare(folder, seed)
    logs = folder.path / "logs"
    with _timed(folder.path / _TIME):
        run_tasks(tasks(folder, seeds), logs, workers, _print)
        run_tasks([speed(folder)], logs, 1, _print)
    seconds = json.loads((folder.path / _TIME).read_text(encoding="utf-8"))
    for file in write_report(folder, seconds):
        _print(f"written: {file}")


def _settings(folder: CurriculumFolder, seed: int) -> dict[str, Any]:
    """What the folder depends on: with another seed, or other configurations, what is there would
    not be what they make."""
    configs = {f.stem: tomllib.loads(f.read_text("utf-8")) for f in folder.configs.glob("*.toml")}
    return {"seed": seed, "configs": configs}


@contextmanager
def _timed(file: Path) -> Iterator[None]:
    """Adds the seconds of this run to those of the runs before it."""
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else 0.0
    since = time.perf_counter()
    try:
        yield
    finally:
        file.write_text(json.dumps(before + time.perf_counter() - since), encoding="utf-8")


def prepare(folder: CurriculumFolder, seed: int) -> None:
    """The beginner, its corpus and the problems, where they are missing."""
    if not folder.problems.exists():
        made = problems(PROBLEMS, 7 + seed, held_out(), TRAINED)
        rows = ({"id": p.id, "prompt": p.prompt, "answer": p.answer} for p in made)
        write_json_lines(folder.problems, rows)
    if not folder.corpus.exists():
        write_corpus(folder.corpus, DOCUMENTS, 1 + seed)
    if not folder.beginner.exists():
        unfinished = folder.beginner.with_name(".init.tmp")
        write_beginner(unfinished, nprdsl.load(SCHEMA).tags, seed)
        unfinished.replace(folder.beginner)


def _print(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {message}", flush=True)
