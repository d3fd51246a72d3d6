"""The curriculum as commands of `nprdsl`, each with the files that it needs, and how they are run.

Several run at once, each in processes of its own with one thread: small models gain nothing from a
second thread, so processes fill the cores. A task begins when what it needs is there and counts as
done when its result is, so that a curriculum that was killed goes on where it was. Every command
can be run by hand as well.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final

from nprdsl.trainers.evaluate.samples import Mode

SCHEMA: Final = "arith"
SUITE: Final = "arith-test"
LONGER: Final = "arith-long"
SAMPLES: Final = 2  # of each problem
_TOKENS: Final = 1400  # of a trace; more than it takes, as branches share what is left evenly
_LONGER_TOKENS: Final = 1900
# Of one sequence each, batches that go in step read no more of the log than they need.
_AT_ONCE: Final = {Mode.PARALLEL: 1000, Mode.NATIVE: 1000, Mode.FREE: 512}
MODES: Final[Mapping[Mode, tuple[str, ...]]] = {
    Mode.NATIVE: ("--native",),
    Mode.PARALLEL: (),
    Mode.FREE: ("--free",),
}

_PAUSE: Final = 0.5  # seconds between two looks
_SHOWN: Final = 15  # last lines of a task that failed
_LAUNCHER: Final = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


@dataclass(frozen=True, slots=True)
class StageModel:
    """One row of the table: a model, what it is, and how it decodes where nothing else is said."""

    name: str
    title: str
    mode: Mode


STAGES: Final = (
    StageModel("base", "base: knows the task in part", Mode.FREE),
    StageModel("zero", "stage 1: NPR-Zero (DAPO)", Mode.FREE),
    StageModel("beta", "stage 2: NPR-Beta (parallel SFT)", Mode.PARALLEL),
    StageModel("beta-long", "parallel SFT for as long as stages 2 and 3", Mode.PARALLEL),
    StageModel("npr", "stage 3: NPR (PAPO)", Mode.PARALLEL),
    StageModel("control", "stage 3 with random rewards", Mode.PARALLEL),
    StageModel("sr-beta", "sequential SFT, same traces", Mode.FREE),
    StageModel("sr-beta-long", "sequential SFT for as long as with RL", Mode.FREE),
    StageModel("sr", "sequential RL after it", Mode.FREE),
)


@dataclass(frozen=True, slots=True)
class Task:
    """Arguments of `nprdsl`. `result` is there when it is done; it waits for `needs`. So many
    `processes` share its work, with so many `threads` each."""

    name: str
    arguments: tuple[str, ...]
    result: Path
    needs: tuple[Path, ...]
    processes: int = 1
    threads: int = 1


@dataclass(frozen=True, slots=True)
class CurriculumFolder:
    """The folder of one training seed, and that of the configurations."""

    path: Path
    configs: Path
    seed: int = 0

    @property
    def beginner(self) -> Path:
        return self.path / "init"

    @property
    def corpus(self) -> Path:
        return self.path / "corpus.jsonl"

    @property
    def problems(self) -> Path:
        return self.path / "problems.jsonl"

    @property
    def traces(self) -> Path:
        return self.path / "traces.jsonl"

    def model(self, name: str) -> Path:
        return self.path / name / "model"

    def metrics(self, name: str) -> Path:
        return self.path / name / "metrics.jsonl"

    def evaluation(self, name: str, mode: Mode) -> Path:
        return self.path / "evaluations" / f"{name}-{mode}.json"

    def longer(self, name: str) -> Path:
        return self.path / "evaluations" / f"{name}-{LONGER}.json"

    def speed(self, name: str) -> Path:
        return self.path / "evaluations" / f"{name}-speed.json"


def tasks(folder: CurriculumFolder) -> tuple[Task, ...]:
    """All commands of one training seed. Earlier ones go first where there is a choice: what others
    wait for."""
    corpus, problems, traces = folder.corpus, folder.problems, folder.traces
    begin, base, zero = folder.beginner, folder.model("base"), folder.model("zero")
    beta, sr_beta = folder.model("beta"), folder.model("sr-beta")
    training = (
        replace(_train(folder, "sft", "base", begin, corpus), processes=2),  # nothing else can run
        _train(folder, "zero", "zero", base, problems),
        _sample(folder, zero),
        _train(folder, "sft", "beta", base, traces),
        _train(folder, "sft", "sr-beta", base, traces),
        _train(folder, "papo", "npr", beta, problems),
        _train(folder, "papo", "sr", sr_beta, problems),
        _train(folder, "papo", "control", beta, problems),
        _train(folder, "sft", "beta-long", base, traces),
        _train(folder, "sft", "sr-beta-long", base, traces),
    )
    return (*training, *_evaluations(folder))


def speed(folder: CurriculumFolder) -> Task:
    """Tokens each second against one branch after another; nothing else may run beside it."""
    model = folder.model("npr")
    arguments = (
        "eval", "--suite", SUITE, "--limit", "20", "--baseline", "--concurrency", "1",
        *_asked(model), "--max-tokens", str(_TOKENS), "--out", str(folder.speed("npr")),
    )  # fmt: skip
    return Task(_named(folder, "npr: speed"), arguments, folder.speed("npr"), (model,))


def _train(folder: CurriculumFolder, stage: str, name: str, model: Path, data: Path) -> Task:
    changes: dict[str, Path | int] = {
        "run.output": folder.path / name,
        "model.path": model,
        "data.source": data,
        "run.seed": folder.seed,
    }
    config = _config(folder, name, changes)
    return Task(_named(folder, name), ("train", stage, *config), folder.model(name), (model, data))


def _sample(folder: CurriculumFolder, model: Path) -> Task:
    changes: dict[str, Path | int] = {
        "output": folder.traces,
        "model.path": model,
        "data.source": folder.problems,
        "seed": folder.seed,
    }
    arguments = ("sample", *_config(folder, "sample", changes))
    return Task(_named(folder, "sample"), arguments, folder.traces, (model, folder.problems))


def _config(
    folder: CurriculumFolder, name: str, changes: Mapping[str, Path | int]
) -> Iterator[str]:
    yield from ("--config", str(folder.configs / f"{name}.toml"), "--json")
    for key, value in changes.items():
        yield from ("--set", f"{key}={value}")


def _named(folder: CurriculumFolder, task: str) -> str:
    return f"seed {folder.seed}, {task}"


def _evaluations(folder: CurriculumFolder) -> Iterator[Task]:
    """Every stage in every mode, and on more parts than were trained."""
    at_once = ("--samples", str(SAMPLES), "--max-tokens", str(_TOKENS))
    for stage in STAGES:
        for mode in sorted(MODES, key=lambda mode: mode is not stage.mode):
            out = folder.evaluation(stage.name, mode)
            yield _evaluation(folder, stage.name, SUITE, mode, at_once, out)
    for stage in STAGES:
        settings = ("--max-tokens", str(_LONGER_TOKENS))
        out = folder.longer(stage.name)
        yield _evaluation(folder, stage.name, LONGER, stage.mode, settings, out)


def _evaluation(
    folder: CurriculumFolder, name: str, suite: str, mode: Mode, settings: Sequence[str], out: Path
) -> Task:
    model = folder.model(name)
    arguments = (
        "eval", "--suite", suite, *settings, *_asked(model), "--seed", str(folder.seed),
        "--concurrency", str(_AT_ONCE[mode]), "--max-kv-tokens", "800000", "--out", str(out),
        "--json", *MODES[mode],
    )  # fmt: skip
    return Task(_named(folder, f"{name}: {suite}, {mode}"), arguments, out, (model,))


def _asked(model: Path) -> tuple[str, ...]:
    """The whole distribution, as the models are trained."""
    sampling = ("--temperature", "1", "--top-p", "1")
    return ("--schema", SCHEMA, "--model", str(model), "--dtype", "fp32", "--chat", *sampling)


# -- running ---------------------------------------------------------------------------------------


class TaskError(RuntimeError):
    """A task failed, or can never begin."""


@dataclass(frozen=True, slots=True)
class _TaskProcess:
    task: Task
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    since: float


def exit_code(work: Callable[[], None], *mistakes: type[Exception]) -> int:
    """Does the work of a recipe's command; its exit code, and a message for what ended it.
    `mistakes` are those of whoever gave the command."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no task is left running
    try:
        work()
    except mistakes as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except TaskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


def run_tasks(tasks: Sequence[Task], logs: Path, workers: int, say: Callable[[str], None]) -> None:
    """Runs what is not done, in at most `workers` processes at once.

    What a command prints is in `logs`. Raises TaskError when a task fails; those that run beside it
    are ended then, and go on in the next run.
    """
    logs.mkdir(parents=True, exist_ok=True)
    waiting = [task for task in tasks if not task.result.exists()]
    done, running = len(tasks) - len(waiting), list[_TaskProcess]()
    try:
        while waiting or running:
            for ended in [one for one in running if one.process.poll() is not None]:
                running.remove(ended)
                taken = _checked(ended)
                done += 1
                say(f"{ended.task.name}: done in {taken:.0f} s ({done} of {len(tasks)})")
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


def _start(task: Task, processes: int, logs: Path) -> _TaskProcess:
    task.result.parent.mkdir(parents=True, exist_ok=True)
    log = (logs / f"{re.sub('[^a-z0-9-]+', '-', task.name)}.log").open("ab")
    shared = (*_LAUNCHER, str(processes)) if processes > 1 else ()
    process = subprocess.Popen(
        [sys.executable, *shared, "-m", "nprdsl", *task.arguments],
        stdout=log,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(task.threads)},
    )
    return _TaskProcess(task, process, log, time.perf_counter())


def _checked(ended: _TaskProcess) -> float:
    """The seconds that a task took. Raises TaskError where it failed."""
    ended.log.close()
    name, log = ended.task.name, Path(ended.log.name)
    if ended.process.returncode or not ended.task.result.exists():
        last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN:]
        shown = "\n".join(f"    {line}" for line in last)
        command = " ".join(["nprdsl", *ended.task.arguments])
        raise TaskError(
            f"`{name}` failed with exit code {ended.process.returncode} ({log}):\n{shown}\n"
            f"the command was: {command}"
        )
    return time.perf_counter() - ended.since
