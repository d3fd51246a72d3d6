"""Runs the tasks of a recipe, several at once, each in processes of its own with one thread.

A task begins when what it needs is there, and counts as done when its result is: a curriculum that
was killed goes on where it was. Small models gain nothing from a second thread, so processes fill
the cores; a task that everything waits for may have several.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from nprdsl.trainers.curriculum.recipe import Task

_PAUSE: Final = 0.5  # seconds between two looks
_SHOWN: Final = 15  # last lines of a task that failed
_ENVIRONMENT: Final = {
    "OMP_NUM_THREADS": "1",
    "GOMP_SPINCOUNT": "0",
    "OMP_WAIT_POLICY": "passive",
    "HF_HUB_OFFLINE": "1",
}
_LAUNCHER: Final = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")

Tell = Callable[[str], None]


class TaskError(RuntimeError):
    """A task failed, or can never begin."""


@dataclass(frozen=True, slots=True)
class _Running:
    task: Task
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    since: float


def run_tasks(tasks: Sequence[Task], logs: Path, workers: int, tell: Tell) -> None:
    """Runs what is not done, in at most `workers` processes at once.

    What a command prints is in `logs`. Raises TaskError when a task fails; those that run beside it
    are ended then, and go on in the next run.
    """
    logs.mkdir(parents=True, exist_ok=True)
    waiting = [task for task in tasks if not task.result.exists()]
    done, running = len(tasks) - len(waiting), list[_Running]()
    try:
        while waiting or running:
            for ended in [one for one in running if one.process.poll() is not None]:
                running.remove(ended)
                taken = _checked(ended)
                done += 1
                tell(f"{ended.task.name}: done in {taken:.0f} s ({done} of {len(tasks)})")
            free = workers - sum(min(one.task.processes, workers) for one in running)
            while task := _ready(waiting, free, workers):
                waiting.remove(task)
                processes = min(task.processes, workers)
                free -= processes
                running.append(_start(task, processes, logs))
            if waiting and not running:
                missing = [str(need) for need in waiting[0].needs if not need.exists()]
                raise TaskError(f"`{waiting[0].name}` needs {', '.join(missing)}")
            time.sleep(_PAUSE)
    finally:
        for one in running:
            one.process.terminate()
            one.process.wait()
            one.log.close()


def _ready(waiting: Sequence[Task], free: int, workers: int) -> Task | None:
    """The first task that can begin in so many free processes."""
    return next(
        (
            task
            for task in waiting
            if min(task.processes, workers) <= free and all(need.exists() for need in task.needs)
        ),
        None,
    )


def _start(task: Task, processes: int, logs: Path) -> _Running:
    task.result.parent.mkdir(parents=True, exist_ok=True)
    log = (logs / f"{re.sub('[^a-z0-9-]+', '-', task.name)}.log").open("ab")
    shared = (*_LAUNCHER, str(processes)) if processes > 1 else ()
    process = subprocess.Popen(
        [sys.executable, *shared, "-m", "nprdsl", *task.arguments],
        stdout=log,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **_ENVIRONMENT},
    )
    return _Running(task, process, log, time.perf_counter())


def _checked(ended: _Running) -> float:
    """The seconds that a task took. Raises TaskError where it failed."""
    ended.log.close()
    name, log = ended.task.name, Path(ended.log.name)
    if ended.process.returncode or not ended.task.result.exists():
        last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN:]
        told = "\n".join(f"    {line}" for line in last)
        command = " ".join(["nprdsl", *ended.task.arguments])
        raise TaskError(
            f"`{name}` failed with exit code {ended.process.returncode} ({log}):\n{told}\n"
            f"the command was: {command}"
        )
    return time.perf_counter() - ended.since
