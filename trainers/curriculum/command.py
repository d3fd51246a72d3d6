"""The command of the curriculum: all stages, all evaluations, table and picture."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import nprdsl
from nprdsl.journal import write_json_lines
from nprdsl.trainers.curriculum.arithmetic import TRAINED, held_out, problems
from nprdsl.trainers.curriculum.beginner import write_beginner
from nprdsl.trainers.curriculum.corpus import write_corpus
from nprdsl.trainers.curriculum.publishing import publish
from nprdsl.trainers.curriculum.recipe import SCHEMA, Place, speed, tasks
from nprdsl.trainers.curriculum.report import write_report
from nprdsl.trainers.curriculum.running import TaskError, run_tasks
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
    place = Place(given.out, given.configs)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no task is left running
    try:
        _run(place, given.seed, given.seeds, given.workers, restart=given.restart)
        if given.publish is not None:
            publish(place.model("npr"), given.publish)
    except (RunError, tomllib.TOMLDecodeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except TaskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


def _run(place: Place, seed: int, seeds: int, workers: int, *, restart: bool) -> None:
    RunDirectory.open(place.folder, _settings(place, seed), restart=restart)
    prepare(place, seed)
    logs = place.folder / "logs"
    with _timed(place.folder / _TIME):
        run_tasks(tasks(place, seeds), logs, workers, _tell)
        run_tasks([speed(place)], logs, 1, _tell)
    seconds = json.loads((place.folder / _TIME).read_text(encoding="utf-8"))
    for file in write_report(place, seconds):
        _tell(f"written: {file}")


def _settings(place: Place, seed: int) -> dict[str, Any]:
    """What the folder depends on: with another seed, or other configurations, what is there would
    not be what they make."""
    configs = {f.stem: tomllib.loads(f.read_text("utf-8")) for f in place.configs.glob("*.toml")}
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


def prepare(place: Place, seed: int) -> None:
    """The beginner, its corpus and the problems, where they are missing."""
    if not place.problems.exists():
        found = problems(PROBLEMS, 7 + seed, held_out(), TRAINED)
        rows = ({"id": p.id, "prompt": p.prompt, "answer": p.answer} for p in found)
        write_json_lines(place.problems, rows)
    if not place.corpus.exists():
        write_corpus(place.corpus, DOCUMENTS, 1 + seed)
    if not place.beginner.exists():
        made = place.beginner.with_name(".init.tmp")
        write_beginner(made, nprdsl.load(SCHEMA).tags, seed)
        made.replace(place.beginner)


def _tell(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {message}", flush=True)
