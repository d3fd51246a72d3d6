"""`nprdsl eval`: suites of problems to a model, and what came of it; or results side by side.

Suites, pictures and files are checked before the model is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from nprdsl.cli import series
from nprdsl.cli.console import print_json, progress, tell_progress
from nprdsl.cli.failures import BadResult, ExitCode, as_failure, requiring
from nprdsl.cli.figures import figures_table, pair_table, print_table
from nprdsl.cli.generation import (
    GenerationOptions,
    Generator,
    LimitOptions,
    SamplingOptions,
    check_model_options,
    engine_errors,
    local_model,
    open_generator,
)
from nprdsl.cli.options import AT_LEAST_1, Parsed, argument, command, first_given, option
from nprdsl.cli.report_page import write_evaluation_page
from nprdsl.cli.resumed import EvaluationFile, weights_digest

if TYPE_CHECKING:
    from nprdsl.trainers.evaluate.reports import EvaluationReport, SuiteReport
    from nprdsl.trainers.evaluate.samples import Mode, Sample
    from nprdsl.trainers.evaluate.suites import Suite

# suites that a model of the package was trained for
_SUMS: Final = ("arith", "arith-long", "arith-develop", "arith-test")
_LISTED: Final = 5  # failed samples that are named one by one
_LIMITS: Final = tuple(one.name for one in fields(LimitOptions) if one.name != "max_tokens")
_CONSTRAINED: Final = ("baseline", "parallel", *_LIMITS, "join", "per_rule", "native")
_MASKED: Final = ("baseline", "parallel", "rule_tokens", "join")


def _read_counts(text: str) -> tuple[int, ...]:
    """Ascending numbers, separated by commas."""
    values = sorted({int(part) for part in text.split(",")} if _is_counts(text) else ())
    if not values or values[0] < 1:
        raise ValueError(f"`{text}` is no list of numbers, such as 128,256,512")
    return tuple(values)


def _is_counts(text: str) -> bool:
    return all(part.strip().isdecimal() for part in text.split(","))


def _read_sweep(text: str) -> tuple[int, ...]:
    name, separator, values = text.partition("=")
    if name != "concurrency" or not separator:
        raise ValueError(f"`{text}`: what can be swept is concurrency, as in concurrency=1,4,16")
    return _read_counts(values)


COUNTS: Final = Parsed("N,N,...", _read_counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """How a source that --suite names is read."""

    split: str = option("auto", "The split of a dataset that --suite names.")
    subset: str = option("auto", "The subset of a dataset that --suite names.")
    prompt_field: str = option("auto", "Where the prompt stands in rows that --suite names.")
    answer_field: str = option("auto", "Where the answer stands in rows that --suite names.")
    id_field: str = option("auto", "Where the id stands in rows that --suite names.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSampling(SamplingOptions):
    """Sampling as for the published figures: nothing is left to the model's own settings."""

    temperature: float = option(1.0, "0 is greedy [1].", show_default=False)
    top_p: float = option(0.7, "[0.7]", show_default=False)
    top_k: int = option(0, "[off]", show_default=False)
    min_p: float = option(0.0, "[off]", show_default=False)
    repetition_penalty: float = option(1.0, "[off]", show_default=False)
    frequency_penalty: float = option(0.0, "[off]", show_default=False)
    presence_penalty: float = option(0.0, "[off]", show_default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationGeneration(GenerationOptions):
    sampling: EvaluationSampling


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    results: tuple[str, ...] = argument("[RESULTS]...", default=())
    suite: tuple[str, ...] = option((), "Suites; commas between several.", metavar="NAME[=PATH]")
    source: SourceOptions
    limit: int | None = option(None, "The first problems of each suite only.", type=AT_LEAST_1)
    samples: int = option(1, "Of each problem.", type=AT_LEAST_1)
    concurrency: int = option(
        64, "Requests at once; 1 measures the time to an answer alone.", type=AT_LEAST_1
    )
    baseline: bool = option(False, "The same with one branch after another, interleaved.")
    native: bool = option(False, "Without masks: forks where the model writes the tags of one.")
    free: bool = option(False, "Without the schema's constraint, one token after another.")
    answer: Literal["last-number", "boxed"] = option(
        "last-number", "What counts where nothing is boxed: the last number, or nothing."
    )
    budgets: tuple[int, ...] | None = option(
        None, "At each of these budgets, beside as many tokens in turn.", type=COUNTS
    )
    budget_of: Literal["critical-path", "tokens"] = option(
        "critical-path", "What --budgets bounds: the positions of a trace, or its tokens."
    )
    sweep: tuple[int, ...] | None = option(
        None,
        "With so many requests at once, beside the same in turn.",
        type=Parsed("concurrency=N,N,...", _read_sweep),
    )
    compare: bool = option(False, "Compare RESULTS: the first with each other.")
    out: str | None = option(
        None, "Settings, figures, samples; the same command goes on.", metavar="FILE.json"
    )
    plot: str | None = option(None, "A picture of the figures.", metavar="FILE.png|FILE.svg")
    as_json: bool = option(False, "One JSON object, without the samples.", flag="--json")
    generation: EvaluationGeneration


@command(EvaluationOptions, "eval", short_help="Evaluate a model on suites of problems.")
def evaluate(options: EvaluationOptions) -> None:
    """Put the problems of suites to a model, several samples each, and grade the answers.

    Suites that ship: aime25, amc23, hmmt25, math500; arith, arith-long, smol,
    arith-test, smol-unseen, everyday; to choose by: arith-develop, smol-develop, everyday-develop.
    Others are NAME=PATH, a file (JSONL, JSON, parquet) or a dataset of the hub.

    `nprdsl eval --compare A.json B.json` tells what differs, and whether it is more than noise.
    """
    _check_usage(options)
    with requiring("train", user="`nprdsl eval`"):
        if options.compare:
            _compare(options)
            return
        suites = _suites(options)
        _check_plot(options.plot)
    if options.out is not None:
        EvaluationFile.check_name(options.out)
    options = replace(options, generation=_with_schema(options.generation, suites))
    generator = open_generator(options.generation)
    if not options.free:
        generator.check_limits()
    if options.budgets is not None or options.sweep is not None:
        reports = _series(options, generator, suites)
    else:
        reports = [_report(options, generator, suites)]
        _show(reports[0], options)
    if any(suite.figures.failed for report in reports for suite in report.suites.values()):
        sys.exit(ExitCode.BAD)


def _check_usage(options: EvaluationOptions) -> None:
    if options.compare:
        if options.suite or options.out is not None:
            raise click.UsageError("--compare reads RESULTS; it takes no --suite and no --out")
        if len(options.results) < 2:
            raise click.UsageError("--compare needs two RESULTS or more, as --out wrote them")
        return
    if options.results:
        raise click.UsageError("RESULTS are for --compare; problems are named by --suite")
    if not options.suite:
        raise click.UsageError("give a --suite, such as arith, or --compare and RESULTS")
    _check_series(options)
    if options.baseline and not options.generation.parallel:
        raise click.UsageError("--baseline adds what --no-parallel gives; give one of them")
    option = first_given(_CONSTRAINED) if options.free else None
    if option is not None:
        raise click.UsageError(f"{option} is of the schema's constraint; --free has none")
    option = first_given(_MASKED) if options.native else None
    if option is not None:
        raise click.UsageError(f"{option} takes masks; --native has none")
    sampling = options.generation.sampling
    if options.samples > 1 and sampling.temperature == 0 and not sampling.per_rule:
        raise click.UsageError(
            f"at temperature 0 all {options.samples} samples of a problem are the same; give "
            "--samples 1, or a --temperature above 0"
        )
    if sampling.seed < 0:
        raise click.UsageError(f"--seed must be 0 or more, not {sampling.seed}")
    check_model_options(options.generation)


def _check_series(options: EvaluationOptions) -> None:
    """What a series does by itself is not set beside it."""
    budgets, sweep = options.budgets is not None, options.sweep is not None
    if budgets and sweep:
        raise click.UsageError("--budgets and --sweep are series of their own; give one of them")
    tokens = budgets and options.budget_of == "tokens"
    for given, names, what in (
        (budgets or sweep, ("baseline", "parallel", "native", "free"), "a series runs both ways"),
        (not budgets, ("budget_of",), "it says what --budgets bounds"),
        (tokens, ("max_tokens",), "--budgets are the tokens"),
        (budgets, ("max_positions",), "--budgets bounds the positions itself"),
        (sweep, ("concurrency",), "--sweep says how many requests run at once"),
    ):
        option = first_given(names) if given else None
        if option is not None:
            raise click.UsageError(f"leave out {option}: {what}")


def _suites(options: EvaluationOptions) -> list[Suite]:
    """The suites that are named, each once; rows that are no problems are counted on stderr."""
    from nprdsl.trainers.evaluate import suites

    by_name: dict[str, Suite] = {}
    for spec in [part.strip() for specs in options.suite for part in specs.split(",")]:
        name, separator, source = spec.partition("=")
        if not name or (separator and not source):
            raise click.UsageError(f"`{spec}` is no suite; give NAME or NAME=PATH")
        if name in by_name:
            raise click.UsageError(f"--suite names `{name}` twice")
        with as_failure(ValueError):
            if separator:
                suite = suites.from_source(name, source, **asdict(options.source))
            else:
                suite = suites.named(name)
        if suite.rejected:
            click.echo(suite.account(), err=True)
        by_name[name] = suite if options.limit is None else suite.first(options.limit)
    return list(by_name.values())


def _with_schema(generation: EvaluationGeneration, suites: Sequence[Suite]) -> EvaluationGeneration:
    """Where neither schema nor model is named, suites of sums go to the model of the package that
    knows them."""
    named = (generation.schema, generation.model, generation.engine)
    if any(one is not None for one in named) or not all(s.name in _SUMS for s in suites):
        return generation
    return replace(generation, schema="arith")


# the run


def _modes(options: EvaluationOptions) -> tuple[Mode, ...]:
    from nprdsl.trainers.evaluate.samples import Mode

    if options.free:
        return (Mode.FREE,)
    if options.native:
        return (Mode.NATIVE,)
    own = Mode.PARALLEL if options.generation.parallel else Mode.IN_TURN
    return (own, Mode.IN_TURN) if options.baseline else (own,)


def _described(
    options: EvaluationOptions, generator: Generator, suites: Sequence[Suite]
) -> dict[str, Any]:
    """All that the samples depend on, as JSON values."""
    from nprdsl.runtime.bundled import model_folder
    from nprdsl.runtime.sampling import PER_RULE

    given, sampling = options.generation, generator.sampling
    is_local = given.engine is None
    model = local_model(given) if is_local else generator.model
    rules = {rule: dict(overrides) for rule, overrides in sampling.rules.items()}
    return {
        "model": model,
        "weights": weights_digest(Path(model_folder(model))) if is_local else "",
        "device": given.device if is_local else "server",
        "dtype": given.dtype if is_local else "server",
        "schema": generator.schema_name,
        "schema_digest": generator.schema.grammar.digest,
        "suites": {
            s.name: {"source": s.source, "problems": len(s.problems), "digest": s.digest}
            for s in suites
        },
        "samples": options.samples,
        "seed": sampling.seed,
        "sampling": {name: getattr(sampling, name) for name in PER_RULE} | {"rules": rules},
        "limits": asdict(generator.limits),
        "join": generator.join.quorum or "all",
        "modes": [str(mode) for mode in _modes(options)],
        "answer": options.answer,
        "concurrency": options.concurrency,
        **generator.prompting,
    }


def _report(
    options: EvaluationOptions, generator: Generator, suites: Sequence[Suite]
) -> EvaluationReport:
    """All samples, those of an earlier run included, and their figures; written to --out."""
    from nprdsl.trainers.evaluate.reports import EvaluationReport

    described = _described(options, generator, suites)
    file = None if options.out is None else EvaluationFile(options.out, described)
    problems = sum(len(suite.problems) for suite in suites)
    total = problems * options.samples * len(_modes(options))
    before = 0 if file is None else file.count
    done = 0
    reports: dict[str, SuiteReport] = {}
    try:
        with progress("samples", total, before) as advance, engine_errors():

            def keep(name: str, sample: Sample) -> None:
                nonlocal done
                if file is not None and not sample.failed:
                    file.write(name, sample)
                done += not sample.failed
                advance()

            for suite in suites:
                earlier = () if file is None else file.done.get(suite.name, ())
                reports[suite.name] = _suite_report(
                    options, generator, suite, earlier, partial(keep, suite.name)
                )
    finally:
        tell_progress("samples", total, before, done, resumable=file is not None)
    report = EvaluationReport(_version(), described, reports)
    if file is not None and options.out is not None:
        file.finish(report)
        with as_failure(OSError, about=f"cannot write the page of `{options.out}`"):
            write_evaluation_page(report, generator.schema, options.out)
    return report


def _series(
    options: EvaluationOptions, generator: Generator, suites: Sequence[Suite]
) -> list[EvaluationReport]:
    """Every evaluation of a series; what they come to is written and shown."""
    from nprdsl.trainers.evaluate.series import Varied

    if options.budgets is not None:
        varied = Varied(options.budget_of)
        points = list(series.budgets(options.budgets, varied, generator.limits))
    else:
        varied = Varied.CONCURRENCY
        points = list(series.concurrencies(options.sweep or (), generator.limits))
    series.check_points(points, generator)
    reports: list[EvaluationReport] = []

    def run(point: series.PlannedPoint) -> EvaluationReport:
        one = replace(
            options,
            out=series.file_of(options.out, point),
            concurrency=point.concurrency or options.concurrency,
            baseline=varied is Varied.CONCURRENCY,
            generation=replace(options.generation, parallel=point.parallel),
        )
        changed = replace(generator, limits=point.limits, parallel=point.parallel)
        reports.append(_report(one, changed, suites))
        return reports[-1]

    made = series.run_series(varied, points, run, out=options.out, plot=options.plot)
    series.show_series(made, as_json=options.as_json)
    return reports


def _suite_report(
    options: EvaluationOptions,
    generator: Generator,
    suite: Suite,
    earlier: Sequence[Sample],
    keep: Callable[[Sample], None],
) -> SuiteReport:
    from nprdsl.trainers.evaluate import evaluate
    from nprdsl.trainers.evaluate.reports import SuiteReport
    from nprdsl.trainers.evaluate.runner import EvaluationError, NoSampleError
    from nprdsl.trainers.grading.answers import Fallback

    no_sample = as_failure(NoSampleError, about=suite.name, kind=BadResult)
    with as_failure(EvaluationError), no_sample:
        evaluation = evaluate(
            generator.engine,
            generator.schema,
            suite.problems,
            samples=options.samples,
            sampling=generator.sampling,
            limits=generator.limits,
            join=generator.join,
            seed=generator.sampling.seed,
            fallback=Fallback.NONE if options.answer == "boxed" else Fallback.LAST_NUMBER,
            modes=_modes(options),
            concurrency=options.concurrency,
            done=earlier,
            keep=keep,
            **generator.prompting,
        )
    failed = [sample for sample in evaluation.samples if sample.failed]
    for sample in failed[:_LISTED]:
        click.echo(f"error: {suite.name}: `{sample.problem}`: {sample.error}", err=True)
    if len(failed) > _LISTED:
        click.echo(f"error: {suite.name}: {len(failed) - _LISTED} more samples failed", err=True)
    rejected = tuple(str(row) for row in suite.rejected)
    return SuiteReport(suite.source, suite.digest, rejected, evaluation.figures, evaluation.samples)


def _version() -> str:
    try:
        return version("nprdsl")
    except PackageNotFoundError:
        return "not installed"


# what is shown


def _show(report: EvaluationReport, options: EvaluationOptions) -> None:
    from nprdsl.trainers.evaluate.reports import summary

    _plot([(str(report.settings["model"]), report)], options.plot)
    if options.as_json:
        print_json(summary(report))
    else:
        print_table(figures_table(report))


def _compare(options: EvaluationOptions) -> None:
    """Results side by side."""
    from nprdsl.trainers.evaluate.comparing import compare
    from nprdsl.trainers.evaluate.reports import read_report

    _check_plot(options.plot)
    with as_failure(ValueError):
        reports = [(name, read_report(Path(name))) for name in options.results]
        pairs = compare(reports)
    _plot(reports, options.plot)
    first = reports[0][0]
    if options.as_json:
        print_json({"first": first, "pairs": [asdict(pair) for pair in pairs]})
    else:
        for pair in pairs:
            print_table(pair_table(first, pair))


def _check_plot(name: str | None) -> None:
    from nprdsl.trainers.evaluate.plots import check_plot

    if name is not None:
        with as_failure(ValueError):
            check_plot(Path(name))


def _plot(reports: list[tuple[str, EvaluationReport]], name: str | None) -> None:
    from nprdsl.trainers.evaluate.plots import plot

    if name is not None:
        with as_failure(OSError, about=f"cannot write `{name}`"):
            plot(reports, Path(name))
