"""The curriculum as commands of `nprdsl`, each with what it needs before it.

Every command can be run by hand, and goes on where it was killed; a task whose result is there is
not run again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from nprdsl.trainers.evaluate.samples import Mode

SCHEMA: Final = "arith"
SUITE: Final = "arith"
LONGER: Final = "arith-long"
SAMPLES: Final = 8
_TOKENS: Final = 1400  # of a trace; more than it takes, as branches share what is left evenly
_LONGER_TOKENS: Final = 1900
# Of one sequence each, batches that go in step read no more of the log than they need.
_AT_ONCE: Final = {Mode.PARALLEL: SAMPLES * 500, Mode.FREE: 512}


@dataclass(frozen=True, slots=True)
class Stage:
    """One row of the table: a model, what it is, how it decodes, how often it is evaluated at
    least."""

    name: str
    title: str
    mode: Mode
    seeds: int = 1
    longer: bool = False


STAGES: Final = (
    Stage("base", "base: knows the task in part", Mode.FREE),
    Stage("zero", "stage 1: NPR-Zero (DAPO)", Mode.FREE),
    Stage("beta", "stage 2: NPR-Beta (parallel SFT)", Mode.PARALLEL, seeds=3, longer=True),
    Stage("npr", "stage 3: NPR (PAPO)", Mode.PARALLEL, seeds=3, longer=True),
    Stage("sr-beta", "sequential SFT, same traces", Mode.FREE),
    Stage("sr", "sequential RL after it", Mode.FREE, longer=True),
    Stage("control", "stage 3 with random rewards", Mode.PARALLEL),
)


@dataclass(frozen=True, slots=True)
class Task:
    """Arguments of `nprdsl`. `result` is there when it is done; it waits for `needs`. So many
    `processes` share its work."""

    name: str
    arguments: tuple[str, ...]
    result: Path
    needs: tuple[Path, ...]
    processes: int = 1


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of the curriculum, and that of its configurations."""

    folder: Path
    configs: Path

    @property
    def beginner(self) -> Path:
        return self.folder / "init"

    @property
    def corpus(self) -> Path:
        return self.folder / "corpus.jsonl"

    @property
    def problems(self) -> Path:
        return self.folder / "problems.jsonl"

    @property
    def traces(self) -> Path:
        return self.folder / "traces.jsonl"

    def model(self, name: str) -> Path:
        return self.folder / name / "model"

    def metrics(self, name: str) -> Path:
        return self.folder / name / "metrics.jsonl"

    def evaluation(self, name: str, suite: str, seed: int) -> Path:
        return self.folder / "evaluations" / f"{name}-{suite}-{seed}.json"

    def speed(self, name: str) -> Path:
        return self.folder / "evaluations" / f"{name}-speed.json"


def tasks(place: Place, seeds: int = 1) -> tuple[Task, ...]:
    """All commands, every stage evaluated with `seeds` seeds at least. Earlier ones go first where
    there is a choice: what others wait for."""
    corpus, problems, traces = place.corpus, place.problems, place.traces
    begin, base, zero = place.beginner, place.model("base"), place.model("zero")
    beta, sr_beta = place.model("beta"), place.model("sr-beta")
    training = (
        replace(_train(place, "sft", "base", begin, corpus), processes=2),  # nothing else can run
        _train(place, "zero", "zero", base, problems),
        _sample(place, zero),
        _train(place, "sft", "beta", base, traces),
        _train(place, "sft", "sr-beta", base, traces),
        _train(place, "papo", "npr", beta, problems),
        _train(place, "papo", "sr", sr_beta, problems),
        _train(place, "papo", "control", beta, problems),
    )
    return (*training, *_evaluations(place, seeds))


def speed(place: Place) -> Task:
    """Tokens each second against one branch after another; nothing else may run beside it."""
    model = place.model("npr")
    arguments = (
        "eval", "--suite", SUITE, "--limit", "20", "--baseline", "--concurrency", "1",
        *_asked(model), "--max-tokens", str(_TOKENS), "--out", str(place.speed("npr")),
    )  # fmt: skip
    return Task("npr: speed", arguments, place.speed("npr"), (model,))


def _train(place: Place, stage: str, name: str, model: Path, data: Path) -> Task:
    config = place.configs / f"{name}.toml"
    changes = {"run.output": place.folder / name, "model.path": model, "data.source": data}
    return Task(
        name, ("train", stage, *_config(config, changes)), place.model(name), (model, data)
    )  # fmt: skip


def _sample(place: Place, model: Path) -> Task:
    config = place.configs / "sample.toml"
    changes = {"output": place.traces, "model.path": model, "data.source": place.problems}
    needs = (model, place.problems)
    return Task("sample", ("sample", *_config(config, changes)), place.traces, needs)


def _config(config: Path, changes: dict[str, Path]) -> Iterator[str]:
    yield from ("--config", str(config), "--json")
    for key, value in changes.items():
        yield from ("--set", f"{key}={value}")


def _evaluations(place: Place, seeds: int) -> Iterator[Task]:
    """First seeds of all models first."""
    for seed in range(max(seeds, *(stage.seeds for stage in STAGES))):
        for stage in STAGES:
            if seed < max(seeds, stage.seeds):
                yield _evaluation(place, stage, SUITE, seed)
            if seed == 0 and stage.longer:
                yield _evaluation(place, stage, LONGER, seed)


def _evaluation(place: Place, stage: Stage, suite: str, seed: int) -> Task:
    model, out = place.model(stage.name), place.evaluation(stage.name, suite, seed)
    samples, tokens = (1, _LONGER_TOKENS) if suite == LONGER else (SAMPLES, _TOKENS)
    arguments = (
        "eval", "--suite", suite, "--samples", str(samples), "--seed", str(seed),
        "--max-tokens", str(tokens), *_asked(model), "--concurrency", str(_AT_ONCE[stage.mode]),
        "--max-kv-tokens", "800000", "--out", str(out), "--json",
        *(("--free",) if stage.mode is Mode.FREE else ()),
    )  # fmt: skip
    return Task(f"{stage.name}: {suite}, seed {seed}", arguments, out, (model,))


def _asked(model: Path) -> tuple[str, ...]:
    """The whole distribution, as the models are trained; in bf16, as the last one ships."""
    sampling = ("--temperature", "1", "--top-p", "1")
    return ("--schema", SCHEMA, "--model", str(model), "--dtype", "bf16", "--chat", *sampling)
