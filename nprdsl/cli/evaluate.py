"""`nprdsl eval`: suites of problems to a model, and what came of it; or results side by side.

Suites, pictures and files are checked before the model is loaded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Unpack

import click
from click.core import ParameterSource

from nprdsl.cli.evalfile import check_out
from nprdsl.cli.evalrun import EvalOptions, evaluated, prepared
from nprdsl.cli.evaltables import figures_table, pair_table, show
from nprdsl.cli.failures import Command, ExitCode, Failure, told
from nprdsl.cli.models import check_model_options
from nprdsl.cli.settings import Decorator, generation_options

if TYPE_CHECKING:
    from nprdsl.trainers.evaluate.reports import EvaluationReport
    from nprdsl.trainers.evaluate.suites import Suite

_PUBLISHED: Final[Mapping[str, float]] = {"temperature": 1.0, "top_p": 0.7}
_SHOWN: Final = {"temperature": "1", "top_p": "0.7", "top_k": "off", "min_p": "off"}
_CONSTRAINED: Final = (
    "baseline",
    "parallel",
    "branch_tokens",
    "rule_tokens",
    "depth",
    "branches",
    "blocks",
    "spawn",
    "join",
    "per_rule",
)
_option = click.option


class _Given(EvalOptions):
    """The values of all options of `nprdsl eval`."""

    results: tuple[str, ...]
    suite: tuple[str, ...]
    split: str
    subset: str
    prompt_field: str
    answer_field: str
    id_field: str
    limit: int | None
    compare: bool
    plot: str | None
    as_json: bool


def _reading(name: str, about: str) -> Decorator:
    return _option(name, default="auto", show_default=True, help=about)


@click.command("eval", cls=Command, short_help="Evaluate a model on suites of problems.")
@click.argument("results", nargs=-1, metavar="[RESULTS]...")
@_option("--suite", multiple=True, metavar="NAME[=PATH]", help="Suites; commas between several.")
@_reading("--split", "The split of a dataset that --suite names.")
@_reading("--subset", "The subset of a dataset that --suite names.")
@_reading("--prompt-field", "Where the prompt stands in rows that --suite names.")
@_reading("--answer-field", "Where the answer stands in rows that --suite names.")
@_reading("--id-field", "Where the id stands in rows that --suite names.")
@_option("--limit", type=click.IntRange(1), help="The first problems of each suite only.")
@_option("--samples", type=click.IntRange(1), default=1, show_default=True, help="Of each problem.")
@_option(
    "--concurrency",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Requests at once; 1 measures the time to an answer alone.",
)
@_option("--baseline", is_flag=True, help="The same with one branch after another, interleaved.")
@_option("--free", is_flag=True, help="Without the schema's constraint, one token after another.")
@_option(
    "--answer",
    type=click.Choice(["last-number", "boxed"]),
    default="last-number",
    show_default=True,
    help="What counts where nothing is boxed: the last number, or nothing.",
)
@_option("--compare", is_flag=True, help="Compare RESULTS: the first with each other.")
@_option("--out", metavar="FILE.json", help="Settings, figures, samples; the same command goes on.")
@_option("--plot", metavar="FILE.png|FILE.svg", help="A picture of the figures.")
@_option("--json", "as_json", is_flag=True, help="One JSON object, without the samples.")
@generation_options(_SHOWN)
def evaluate(**given: Unpack[_Given]) -> None:
    """Put the problems of suites to a model, several samples each, and grade the answers.

    Suites that ship: aime25, amc23, hmmt25, math500, arith and arith-long. Others are NAME=PATH, a
    file (JSONL, JSON, parquet) or a dataset of the hub.

    `nprdsl eval --compare A.json B.json` tells what differs, and whether it is more than noise.
    """
    _check_usage(given)
    with _requirements():
        if given["compare"]:
            _compare(given)
            return
        suites = _suites(given)
        _check_plot(given["plot"])
    if given["out"] is not None:
        check_out(given["out"])
    for name, value in _PUBLISHED.items():
        if given[name] is None:  # type: ignore[literal-required]
            given[name] = value  # type: ignore[literal-required]
    report = evaluated(prepared(given, suites), given["out"])
    _tell(report, given)
    if any(suite.figures.failed for suite in report.suites.values()):
        sys.exit(ExitCode.BAD)


def _check_usage(given: _Given) -> None:
    if given["compare"]:
        if given["suite"] or given["out"] is not None:
            raise click.UsageError("--compare reads RESULTS; it takes no --suite and no --out")
        if len(given["results"]) < 2:
            raise click.UsageError("--compare needs two RESULTS or more, as --out wrote them")
        return
    if given["results"]:
        raise click.UsageError("RESULTS are for --compare; problems are named by --suite")
    if not given["suite"]:
        raise click.UsageError("give a --suite, such as arith, or --compare and RESULTS")
    if given["baseline"] and not given["parallel"]:
        raise click.UsageError("--baseline adds what --no-parallel gives; give one of them")
    if given["free"]:
        _check_free()
    if given["samples"] > 1 and given["temperature"] == 0 and not given["per_rule"]:
        raise click.UsageError(
            f"at temperature 0 all {given['samples']} samples of a problem are the same; give "
            "--samples 1, or a --temperature above 0"
        )
    if given["seed"] < 0:
        raise click.UsageError(f"--seed must be 0 or more, not {given['seed']}")
    check_model_options(given)


def _check_free() -> None:
    """What only the schema's constraint gives a meaning is refused."""
    context = click.get_current_context()
    for name in _CONSTRAINED:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            option = "no-parallel" if name == "parallel" else name.replace("_", "-")
            raise click.UsageError(f"--{option} is of the schema's constraint; --free has none")


@contextmanager
def _requirements() -> Iterator[None]:
    """What an extra installs is named."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise Failure(
            f"`nprdsl eval` needs {error.name}; install it with: pip install 'nprdsl[train]'"
        ) from error


def _suites(given: _Given) -> list[Suite]:
    """The suites that are named, each once; rows that are no problems are told."""
    from nprdsl.trainers.evaluate import suites

    found: dict[str, Suite] = {}
    for spec in [part.strip() for option in given["suite"] for part in option.split(",")]:
        name, named, source = spec.partition("=")
        if not name or (named and not source):
            raise click.UsageError(f"`{spec}` is no suite; give NAME or NAME=PATH")
        if name in found:
            raise click.UsageError(f"--suite names `{name}` twice")
        with told(ValueError):
            suite = _from_source(name, source, given) if named else suites.named(name)
        if suite.rejected:
            click.echo(suite.account(), err=True)
        found[name] = suite if given["limit"] is None else suite.first(given["limit"])
    return list(found.values())


def _from_source(name: str, source: str, given: _Given) -> Suite:
    from nprdsl.trainers.evaluate.suites import from_source

    return from_source(
        name,
        source,
        split=given["split"],
        subset=given["subset"],
        prompt_field=given["prompt_field"],
        answer_field=given["answer_field"],
        id_field=given["id_field"],
    )


def _check_plot(name: str | None) -> None:
    from nprdsl.trainers.evaluate.plots import check_plot

    if name is not None:
        with told(ValueError):
            check_plot(Path(name))


# -- what is told ----------------------------------------------------------------------------------


def _tell(report: EvaluationReport, given: _Given) -> None:
    from nprdsl.trainers.evaluate.reports import summary

    _plot([(str(report.settings["model"]), report)], given["plot"])
    if given["as_json"]:
        click.echo(json.dumps(summary(report), ensure_ascii=False))
    else:
        show(figures_table(report))


def _compare(given: _Given) -> None:
    """Results side by side."""
    from nprdsl.trainers.evaluate.comparing import compare
    from nprdsl.trainers.evaluate.reports import read_report

    _check_plot(given["plot"])
    with told(ValueError):
        named = [(name, read_report(Path(name))) for name in given["results"]]
        pairs = compare(named)
    _plot(named, given["plot"])
    if given["as_json"]:
        record: dict[str, Any] = {"first": named[0][0], "pairs": [asdict(pair) for pair in pairs]}
        click.echo(json.dumps(record, ensure_ascii=False))
    else:
        for pair in pairs:
            show(pair_table(named[0][0], pair))


def _plot(named: list[tuple[str, EvaluationReport]], name: str | None) -> None:
    from nprdsl.trainers.evaluate.plots import plot

    if name is not None:
        with told(OSError, about=f"cannot write `{name}`"):
            plot(named, Path(name))
