"""Rejection sampling: right and legal traces to learn from (arXiv:2512.07461, section 2.3).

Each problem is tried up to `trials` times; the first `keep` traces with the right answer and no
violation stay. Every trial is written down beside the output at once, so that a killed run goes on
without trying anything again; the output itself is written when all is done. Problems that gave no
trace are counted and listed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import nprdsl
from nprdsl.journal import JournalError, JsonLines, write_json_lines
from nprdsl.machine.budget import Limits
from nprdsl.runtime.engine import Engine
from nprdsl.runtime.local.engine import LocalEngine
from nprdsl.runtime.sampling import Sampling
from nprdsl.runtime.sglang.client.engine import SGLangEngine
from nprdsl.schema import Schema
from nprdsl.trainers.config.sections import LOCAL
from nprdsl.trainers.config.stages import SampleConfig
from nprdsl.trainers.data.problems import Problem
from nprdsl.trainers.evaluate.samples import Mode
from nprdsl.trainers.grading.grading import is_right
from nprdsl.trainers.rollout.episodes import seed_of
from nprdsl.trainers.rollout.rollout import Purpose, Rollout, free_rollouts, rollouts
from nprdsl.trainers.run.directory import RunError, differences
from nprdsl.trainers.run.session import Watch, unwatched
from nprdsl.trainers.stages import setup

_TRIALS: Final = ".trials.jsonl"
_OTHER: Final = "no file of trials; begin anew with --restart"


@dataclass(frozen=True, slots=True)
class Trial:
    """One trace of the problem `id`; `trace` is "" unless it was kept. `why` says what is wrong
    with one that was not."""

    id: str
    number: int
    trace: str
    why: str


@dataclass(frozen=True, slots=True)
class Sampled:
    """What came of it. `unsolved` are the ids of problems without a trace; `why` counts the reasons
    of trials that were not kept; `rejected` rows of the data are no problems."""

    output: Path
    problems: int
    traces: int
    trials: int
    unsolved: tuple[str, ...]
    why: Mapping[str, int]
    rejected: tuple[str, ...]


def sample(config: SampleConfig, *, restart: bool = False, watch: Watch = unwatched) -> Sampled:
    """Samples to the end. Raises RunError for a journal of other settings, SourceError,
    ModelNotFoundError, SchemaNotFoundError, errors of the engine, and OSError."""
    schema = nprdsl.load(config.language)
    problems, bad = setup.problems(config.data)
    output = Path(config.output)
    journal = _Journal(output, config, restart=restart)
    state = _State(problems, config, journal.trials)
    total = len(problems)
    if state.open:
        engine = _engine(config)
        for number in range(config.trials):
            todo = [p for p in state.open if len(state.trials[p.id]) == number]
            for chunk in _chunks(todo, config.concurrency):
                for trial in _try(engine, schema, config, chunk, number):
                    journal.write(trial)
                    state.add(trial)
                watch(total - len(state.open), total, {"traces": float(state.traces)})
    kept = [trial for p in problems for trial in state.trials[p.id] if trial.trace]
    _write(output, problems, kept, config.language)
    every = [trial for trials in state.trials.values() for trial in trials]
    return Sampled(
        output=output,
        problems=total,
        traces=len(kept),
        trials=len(every),
        unsolved=tuple(p.id for p in problems if not state.kept(p.id)),
        why=Counter(trial.why for trial in every if trial.why),
        rejected=tuple(map(str, bad)),
    )


class _State:
    """Which problems still want traces."""

    def __init__(
        self, problems: Sequence[Problem], config: SampleConfig, trials: Sequence[Trial]
    ) -> None:
        self.trials: dict[str, list[Trial]] = {problem.id: [] for problem in problems}
        self.traces = 0
        self._problems = problems
        self._config = config
        for trial in trials:
            self.add(trial)

    @property
    def open(self) -> list[Problem]:
        return [p for p in self._problems if self._wants(p.id)]

    def kept(self, name: str) -> int:
        return sum(bool(trial.trace) for trial in self.trials[name])

    def add(self, trial: Trial) -> None:
        self.trials[trial.id].append(trial)
        self.traces += bool(trial.trace)

    def _wants(self, name: str) -> bool:
        tried = len(self.trials[name])
        return tried < self._config.trials and self.kept(name) < self._config.keep


class _Journal:
    """The file of all trials beside the output, settings first; `trials` are those of earlier
    runs."""

    def __init__(self, output: Path, config: SampleConfig, *, restart: bool) -> None:
        self.trials: list[Trial] = []
        path = output.with_name(output.name.removesuffix(".jsonl") + _TRIALS)
        settings = config.model_dump(mode="json", by_alias=True, exclude={"output", "concurrency"})
        if restart:
            path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = JsonLines(path, start=b'{"', other=_OTHER)
        except JournalError as error:
            raise RunError(str(error)) from error
        lines = [line for _, line in self._file.lines()]
        if not lines:
            self._file.write(settings)
            return
        first, *rest = lines
        if found := differences(json.loads(first), settings):
            raise RunError(
                f"`{path}` was made with other settings ({'; '.join(found)}): name another "
                "output, go back to its settings, or begin anew with --restart"
            )
        self.trials = [Trial(**json.loads(line)) for line in rest]

    def write(self, trial: Trial) -> None:
        self._file.write(asdict(trial))


def _try(
    engine: Engine, schema: Schema, config: SampleConfig, problems: Sequence[Problem], number: int
) -> Iterator[Trial]:
    """Trial `number` of each problem, in order; one that failed is a trial too."""
    found = {one.group: one for one in _rollouts(engine, schema, config, problems, number)}
    for group, problem in enumerate(problems):
        rollout = found.get(group)
        why = "failed" if rollout is None else _why_not(rollout, problem)
        text = "" if rollout is None or why else rollout.text
        yield Trial(problem.id, number, text, why)


def _rollouts(
    engine: Engine, schema: Schema, config: SampleConfig, problems: Sequence[Problem], number: int
) -> list[Rollout]:
    prompts = [problem.prompt for problem in problems]
    asked: dict[str, Any] = {
        "seeds": [seed_of(config.seed, number, problem.id) for problem in problems],
        "sampling": Sampling(temperature=config.temperature, top_p=config.top_p),
        "purpose": Purpose.IMITATE,
        "chat": config.prompt.chat,
        "instructions": config.prompt.instructions,
    }
    if config.mode is Mode.FREE:
        return free_rollouts(engine, schema, prompts, 1, max_tokens=config.max_tokens, **asked)
    return rollouts(
        engine, schema, prompts, 1, limits=Limits(max_tokens=config.max_tokens), **asked
    )


def _why_not(rollout: Rollout, problem: Problem) -> str:
    """Why a trace is not kept, "" where it is."""
    if rollout.violations:
        return rollout.violations[0].code.value
    if rollout.graph is None:
        return "too long"
    right = is_right(rollout.text, problem.answer, choices=problem.choices)
    return "" if right else "wrong"


def _engine(config: SampleConfig) -> Engine:
    section = config.engine
    if section.address != LOCAL:
        return SGLangEngine(section.address)
    return LocalEngine.from_pretrained(
        config.model.path,
        dtype=config.model.dtype,
        max_kv_tokens=section.max_kv_tokens,
        max_rows=section.max_rows,
    )


def _chunks(problems: list[Problem], size: int) -> Iterator[list[Problem]]:
    for begin in range(0, len(problems), size):
        yield problems[begin : begin + size]


def _write(output: Path, problems: Sequence[Problem], kept: Sequence[Trial], language: str) -> None:
    """Rows as `nprdsl train sft` reads them."""
    by_id = {problem.id: problem for problem in problems}
    rows = (
        {
            "id": trial.id,
            "prompt": by_id[trial.id].prompt,
            "trace": trial.trace,
            "schema": language,
            "answer": by_id[trial.id].answer,
            "trial": trial.number,
        }
        for trial in kept
    )
    write_json_lines(output, rows)
