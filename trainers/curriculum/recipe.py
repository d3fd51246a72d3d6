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
SUITE: Final = "arith"
LONGER: Final = "arith-long"
SAMPLES: Final = 8
_TOKENS: Final = 1400  # of a trace; more than it takes, as branches share what is left evenly
_LONGER_TOKENS: Final = 1900
# Of one sequence each, batches that go in step read no more of the log than they need.
_AT_ONCE: Final = {Mode.PARALLEL: SAMPLES * 500, Mode.NATIVE: SAMPLES * 500, Mode.FREE: 512}
MODES: Final[Mapping[Mode, tuple[str, ...]]] = {
    Mode.NATIVE: ("--native",),
    Mode.PARALLEL: (),
    Mode.FREE: ("--free",),
}

_PAUSE: Final = 0.5  # seconds between two looks
_SHOWN: Final = 15  # last lines of a task that failed
_ENVIRONMENT: Final = {
    "GOMP_SPINCOUNT": "0",
    "OMP_WAIT_POLICY": "passive",
    "HF_HUB_OFFLINE": "1",
}
_LAUNCHER: Final = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


@dataclass(frozen=True, slots=True)
class StageModel:
    """One row of the table: a model, what it is, how it decodes, how often it is evaluated at
    least."""

    name: str
    title: str
    mode: Mode
    seeds: int = 1
    longer: bool = False


STAGES: Final = (
    StageModel("base", "base: knows the task in part", Mode.FREE),
    StageModel("zero", "stage 1: NPR-Zero (DAPO)", Mode.FREE),
    StageModel("beta", "stage 2: NPR-Beta (parallel SFT)", Mode.PARALLEL, seeds=3, longer=True),
    StageModel("npr", "stage 3: NPR (PAPO)", Mode.PARALLEL, seeds=3, longer=True),
    StageModel("sr-beta", "sequential SFT, same traces", Mode.FREE),
    StageModel("sr", "sequential RL after it", Mode.FREE, longer=True),
    StageModel("control", "stage 3 with random rewards", Mode.PARALLEL),
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
    """The folder of the curriculum, and that of its configurations."""

    path: Path
    configs: Path

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

    def evaluation(self, name: str, suite: str, seed: int) -> Path:
        return self.path / "evaluations" / f"{name}-{suite}-{seed}.json"

    def other_mode(self, name: str, mode: Mode) -> Path:
        return self.path / "evaluations" / f"{name}-{mode}.json"

    def speed(self, name: str) -> Path:
        return self.path / "evaluations" / f"{name}-speed.json"


def tasks(folder: CurriculumFolder, seeds: int = 1) -> tuple[Task, ...]:
    """All commands, every stage evaluated with `seeds` seeds at least. Earlier ones go first where
    there is a choice: what others wait for."""
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
    )
    return (*training, *_evaluations(folder, seeds))


def speed(folder: CurriculumFolder) -> Task:
    """Tokens each second against one branch after another; nothing else may run beside it."""
    model = folder.model("npr")
    arguments = (
        "eval", "--suite", SUITE, "--limit", "20", "--baseline", "--concurrency", "1",
        *_asked(model), "--max-tokens", str(_TOKENS), "--out", str(folder.speed("npr")),
    )  # fmt: skip
    return Task("npr: speed", arguments, folder.speed("npr"), (model,))


def _train(folder: CurriculumFolder, stage: str, name: str, model: Path, data: Path) -> Task:
    config = folder.configs / f"{name}.toml"
    changes = {"run.output": folder.path / name, "model.path": model, "data.source": data}
    arguments = ("train", stage, *_config(config, changes))
    return Task(name, arguments, folder.model(name), (model, data))


def _sample(folder: CurriculumFolder, model: Path) -> Task:
    config = folder.configs / "sample.toml"
    changes = {"output": folder.traces, "model.path": model, "data.source": folder.problems}
    needs = (model, folder.problems)
    return Task("sample", ("sample", *_config(config, changes)), folder.traces, needs)


def _config(config: Path, changes: dict[str, Path]) -> Iterator[str]:
    yield from ("--config", str(config), "--json")
    for key, value in changes.items():
        yield from ("--set", f"{key}={value}")


def _evaluations(folder: CurriculumFolder, seeds: int) -> Iterator[Task]:
    """First seeds of all models first; last, one sample in each mode that is not the stage's."""
    for seed in range(max(seeds, *(stage.seeds for stage in STAGES))):
        for stage in STAGES:
            if seed < max(seeds, stage.seeds):
                yield _evaluation(folder, stage, SUITE, seed)
            if seed == 0 and stage.longer:
                yield _evaluation(folder, stage, LONGER, seed)
    for stage in STAGES:
        for mode in MODES:
            if mode is not stage.mode:
                yield _other_mode(folder, stage.name, mode)


def _evaluation(folder: CurriculumFolder, stage: StageModel, suite: str, seed: int) -> Task:
    model, out = folder.model(stage.name), folder.evaluation(stage.name, suite, seed)
    samples, tokens = (1, _LONGER_TOKENS) if suite == LONGER else (SAMPLES, _TOKENS)
    settings = ("--samples", str(samples), "--seed", str(seed), "--max-tokens", str(tokens))
    arguments = _evaluated(suite, settings, stage.mode, model, out)
    return Task(f"{stage.name}: {suite}, seed {seed}", arguments, out, (model,))


def _other_mode(folder: CurriculumFolder, name: str, mode: Mode) -> Task:
    model, out = folder.model(name), folder.other_mode(name, mode)
    arguments = _evaluated(SUITE, ("--max-tokens", str(_TOKENS)), mode, model, out)
    return Task(f"{name}: {mode}", arguments, out, (model,))


def _evaluated(
    suite: str, settings: Sequence[str], mode: Mode, model: Path, out: Path
) -> tuple[str, ...]:
    return (
        "eval", "--suite", suite, *settings, *_asked(model), "--concurrency", str(_AT_ONCE[mode]),
        "--max-kv-tokens", "800000", "--out", str(out), "--json", *MODES[mode],
    )  # fmt: skip


def _asked(model: Path) -> tuple[str, ...]:
    """The whole distribution, as the models are trained; in bf16, as the last one ships."""
    sampling = ("--temperature", "1", "--top-p", "1")
    return ("--schema", SCHEMA, "--model", str(model), "--dtype", "bf16", "--chat", *sampling)


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
        env={**os.environ, **_ENVIRONMENT, "OMP_NUM_THREADS": str(task.threads)},
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
