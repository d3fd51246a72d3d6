"""One evaluation from the command line: what it depends on, its progress, and its file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

import click

from nprdsl.cli.evalfile import RunFile, weights_digest
from nprdsl.cli.failures import Rejected, told
from nprdsl.cli.models import default_schema, engine_errors, open_engine, prompt_options
from nprdsl.cli.progress import progress
from nprdsl.cli.settings import Generating, Settings
from nprdsl.machine.machine import Machine

if TYPE_CHECKING:
    from nprdsl.runtime.engine import Engine
    from nprdsl.runtime.sampling import Sampling
    from nprdsl.trainers.evaluate.reports import EvaluationReport, SuiteReport
    from nprdsl.trainers.evaluate.samples import Mode, Sample
    from nprdsl.trainers.evaluate.suites import Suite

_TOLD: Final = 5  # failed samples that are told one by one


class EvalOptions(Generating):
    """The values of the options that a run depends on."""

    samples: int
    concurrency: int
    baseline: bool
    free: bool
    answer: str
    out: str | None


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that an evaluation is made of; `told` is all of it as JSON values."""

    engine: Engine
    settings: Settings
    sampling: Sampling
    chat: bool
    instructions: bool
    suites: Sequence[Suite]
    modes: tuple[Mode, ...]
    given: EvalOptions
    told: dict[str, Any]

    @property
    def total(self) -> int:
        """How many samples are wanted."""
        problems = sum(len(suite.problems) for suite in self.suites)
        return problems * self.given["samples"] * len(self.modes)


def prepared(given: EvalOptions, suites: Sequence[Suite]) -> Run:
    """The run with its engine. A `Failure` where it cannot begin."""
    from nprdsl.runtime.bundled import ARITH
    from nprdsl.trainers.evaluate.samples import Mode

    engine, settings, served = open_engine(given)
    with engine_errors():
        options = prompt_options(engine, settings)
        if not given["free"]:
            Machine(engine.bind(settings.schema), limits=settings.limits, join=settings.join)
    own = Mode.PARALLEL if settings.parallel else Mode.IN_TURN
    modes = (own, Mode.IN_TURN) if given["baseline"] else (Mode.FREE if given["free"] else own,)
    sampling = settings.resolved({})
    model = given["model"] if given["engine"] is None else served
    told = {
        "model": model or ARITH,
        "weights": weights_digest(given),
        "device": given["device"] if given["engine"] is None else "server",
        "dtype": given["dtype"] if given["engine"] is None else "server",
        "schema": given["schema"] or default_schema(model),
        "schema_digest": settings.schema.grammar.digest,
        "suites": {suite.name: _about(suite) for suite in suites},
        "samples": given["samples"],
        "seed": given["seed"],
        "sampling": _drawing(sampling),
        "limits": asdict(settings.limits),
        "join": settings.join.quorum or "all",
        "modes": [str(mode) for mode in modes],
        "answer": given["answer"],
        "concurrency": given["concurrency"],
        **options,
    }
    chat, instructions = options["chat"], options["instructions"]
    return Run(engine, settings, sampling, chat, instructions, suites, modes, given, told)


def evaluated(run: Run, out: str | None) -> EvaluationReport:
    """All samples, those of an earlier run included, and their figures; written to `out`."""
    from nprdsl.trainers.evaluate.reports import EvaluationReport

    file = None if out is None else RunFile(out, run.told)
    before = 0 if file is None else file.count
    done = before
    suites: dict[str, SuiteReport] = {}
    try:
        with progress("samples", run.total, before) as advance, engine_errors():

            def keep(name: str, sample: Sample) -> None:
                nonlocal done
                if file is not None and not sample.failed:
                    file.write(name, sample)
                done += not sample.failed
                advance()

            for suite in run.suites:
                earlier = () if file is None else file.done.get(suite.name, ())
                suites[suite.name] = _one(run, suite, earlier, partial(keep, suite.name))
    finally:
        _account(run.total, before, done, resumable=file is not None)
    report = EvaluationReport(_version(), run.told, suites)
    if file is not None:
        file.finish(report)
    return report


def _one(
    run: Run, suite: Suite, done: Sequence[Sample], keep: Callable[[Sample], None]
) -> SuiteReport:
    from nprdsl.trainers.evaluate import evaluate
    from nprdsl.trainers.evaluate.reports import SuiteReport
    from nprdsl.trainers.evaluate.runner import EvaluationError, NoSampleError
    from nprdsl.trainers.grading.answers import Fallback

    boxed = run.given["answer"] == "boxed"
    with told(EvaluationError), told(NoSampleError, about=suite.name, kind=Rejected):
        found = evaluate(
            run.engine,
            run.settings.schema,
            suite.problems,
            samples=run.given["samples"],
            sampling=run.sampling,
            limits=run.settings.limits,
            join=run.settings.join,
            seed=run.given["seed"],
            chat=run.chat,
            instructions=run.instructions,
            fallback=Fallback.NONE if boxed else Fallback.LAST_NUMBER,
            modes=run.modes,
            concurrency=run.given["concurrency"],
            done=done,
            keep=keep,
        )
    _tell_failed(suite.name, [sample for sample in found.samples if sample.failed])
    rejected = tuple(str(row) for row in suite.rejected)
    return SuiteReport(suite.source, suite.digest, rejected, found.figures, found.samples)


def _tell_failed(suite: str, failed: Sequence[Sample]) -> None:
    for sample in failed[:_TOLD]:
        click.echo(f"error: {suite}: `{sample.problem}`: {sample.error}", err=True)
    if len(failed) > _TOLD:
        click.echo(f"error: {suite}: {len(failed) - _TOLD} more samples failed", err=True)


def _account(total: int, before: int, done: int, *, resumable: bool) -> None:
    """What the run came to, on stderr, if it was interrupted too."""
    parts = [f"{done - before} of {total} samples done"]
    if before:
        parts.append(f"{before} were done before")
    if done < total and resumable:
        parts.append("the same command again does the rest")
    click.echo("; ".join(parts), err=True)


def _about(suite: Suite) -> dict[str, object]:
    return {"source": suite.source, "problems": len(suite.problems), "digest": suite.digest}


def _drawing(sampling: Sampling) -> dict[str, object]:
    """The sampling settings as JSON values; seeds are made from the run's own."""
    from nprdsl.runtime.sampling import PER_RULE

    rules = {rule: dict(overrides) for rule, overrides in sampling.rules.items()}
    values: dict[str, object] = {name: getattr(sampling, name) for name in PER_RULE}
    return values | {"rules": rules}


def _version() -> str:
    try:
        return version("nprdsl")
    except PackageNotFoundError:
        return "not installed"
