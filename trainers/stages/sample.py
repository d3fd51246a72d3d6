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
from typing import Final

import nprdsl
from nprdsl.machine.budget import Limits
from nprdsl.runtime.engine import Engine
from nprdsl.runtime.local.engine import LocalEngine
from nprdsl.runtime.sampling import Sampling
from nprdsl.runtime.sglang.client.engine import SGLangEngine
from nprdsl.schema import Schema
from nprdsl.trace.journal import JournalError, JsonLines, write_json_lines
from nprdsl.trainers.config.stages import LOCAL, SampleConfig
from nprdsl.trainers.data.problems import Problem
from nprdsl.trainers.rollout.episodes import seed_of
from nprdsl.trainers.rollout.rollout import Purpose, Rollout, rollouts
from nprdsl.trainers.run.directory import RunError, differences
from nprdsl.trainers.run.session import Watch, unwatched
from nprdsl.trainers.stages.data import section_problems

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
    problems, rejected = section_problems(config.data)
    output, total = Path(config.output), len(problems)
    trials = _Trials(problems, config, restart=restart)
    if trials.open:
        engine = _engine(config)
        for number in range(config.trials):
            todo = [p for p in trials.open if len(trials.of[p.id]) == number]
            for begin in range(0, len(todo), config.concurrency):
                chunk = todo[begin : begin + config.concurrency]
                for trial in _try(engine, schema, config, chunk, number):
                    trials.add(trial)
                watch(total - len(trials.open), total, {"traces": float(len(trials.kept))})
    _write(output, problems, trials.kept, config.language)
    every = [trial for own in trials.of.values() for trial in own]
    solved = {trial.id for trial in trials.kept}
    return Sampled(
        output=output,
        problems=total,
        traces=len(trials.kept),
        trials=len(every),
        unsolved=tuple(p.id for p in problems if p.id not in solved),
        why=Counter(trial.why for trial in every if trial.why),
        rejected=tuple(map(str, rejected)),
    )


class _Trials:
    """All trials by problem, those of earlier runs included; new ones go to the file beside the
    output, whose first line has the settings."""

    def __init__(self, problems: Sequence[Problem], config: SampleConfig, *, restart: bool) -> None:
        self.of: dict[str, list[Trial]] = {problem.id: [] for problem in problems}
        self._problems = problems
        self._config = config
        output = Path(config.output)
        path = output.with_name(output.name.removesuffix(".jsonl") + _TRIALS)
        if restart:
            path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._journal = JsonLines(path, start=b'{"', other=_OTHER)
        except JournalError as error:
            raise RunError(str(error)) from error
        settings = config.model_dump(mode="json", by_alias=True, exclude={"output", "concurrency"})
        records = [json.loads(line) for _, line in self._journal.lines()]
        if not records:
            self._journal.write(settings)
        elif differing := differences(records[0], settings):
            raise RunError(
                f"`{path}` was made with other settings ({'; '.join(differing)}): name another "
                "output, go back to its settings, or begin anew with --restart"
            )
        for record in records[1:]:
            trial = Trial(**record)
            self.of[trial.id].append(trial)

    @property
    def kept(self) -> list[Trial]:
        """The trials whose trace is kept, in the order of the problems."""
        return [trial for p in self._problems for trial in self.of[p.id] if trial.trace]

    @property
    def open(self) -> list[Problem]:
        """The problems that still want traces."""
        return [p for p in self._problems if self._is_open(self.of[p.id])]

    def add(self, trial: Trial) -> None:
        """Writes a new trial down."""
        self._journal.write(asdict(trial))
        self.of[trial.id].append(trial)

    def _is_open(self, trials: Sequence[Trial]) -> bool:
        kept = sum(bool(trial.trace) for trial in trials)
        return len(trials) < self._config.trials and kept < self._config.keep


def _try(
    engine: Engine, schema: Schema, config: SampleConfig, problems: Sequence[Problem], number: int
) -> Iterator[Trial]:
    """Trial `number` of each problem, in order; one that failed is a trial too."""
    finished = rollouts(
        engine,
        schema,
        [problem.prompt for problem in problems],
        1,
        mode=config.mode,
        seeds=[seed_of(config.seed, number, problem.id) for problem in problems],
        sampling=Sampling(temperature=config.temperature, top_p=config.top_p),
        purpose=Purpose.IMITATE,
        limits=Limits(max_tokens=config.max_tokens),
        chat=config.prompt.chat,
        instructions=config.prompt.instructions,
    )
    by_problem = {rollout.group: rollout for rollout in finished}
    for group, problem in enumerate(problems):
        rollout = by_problem.get(group)
        why = "failed" if rollout is None else _why_not(rollout, problem)
        trace = "" if rollout is None or why else rollout.text
        yield Trial(problem.id, number, trace, why)


def _why_not(rollout: Rollout, problem: Problem) -> str:
    """Why a trace is not kept, "" where it is."""
    if rollout.violations:
        return rollout.violations[0].code.value
    if rollout.graph is None:
        return "too long"
    right = problem.is_answered_by(rollout.text, marked=rollout.answer)
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
