"""`nprdsl eval --budgets` and `--sweep`: the same evaluation at several values of one setting.

Each value is an evaluation of its own, with a file beside --out, so that a series that was stopped
goes on; --out itself holds the figures of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from nprdsl.cli.console import borderless_table, print_json
from nprdsl.cli.failures import as_failure
from nprdsl.cli.figures import print_table
from nprdsl.cli.generation import Generator
from nprdsl.machine.budget import Limits

if TYPE_CHECKING:
    from nprdsl.trainers.evaluate.reports import EvaluationReport
    from nprdsl.trainers.evaluate.series import Series, Varied

_TRACES_OF_A_PATH = 8  # the tokens that a trace may have, for each position of its budget


@dataclass(frozen=True, slots=True)
class PlannedPoint:
    """One evaluation of a series: the value, what to call its file, and what is set."""

    value: int
    name: str
    limits: Limits
    parallel: bool = True
    concurrency: int | None = None


Run = Callable[[PlannedPoint], "EvaluationReport"]


def budgets(values: tuple[int, ...], varied: Varied, limits: Limits) -> Iterator[PlannedPoint]:
    """At each budget the model with parallel branches, and in turn with as many tokens: both have
    the same context length."""
    from nprdsl.trainers.evaluate.series import Varied

    for value in values:
        in_turn = replace(limits, max_tokens=value, max_positions=None)
        if varied is Varied.POSITIONS:
            most = max(limits.max_tokens, value * _TRACES_OF_A_PATH)
            parallel = replace(limits, max_tokens=most, max_positions=value)
        else:
            parallel = in_turn
        yield PlannedPoint(value, f"{value}-parallel", parallel)
        yield PlannedPoint(value, f"{value}-in-turn", in_turn, parallel=False)


def concurrencies(values: tuple[int, ...], limits: Limits) -> Iterator[PlannedPoint]:
    """At each number of requests at once both ways, interleaved."""
    for value in values:
        yield PlannedPoint(value, f"{value}-at-once", limits, concurrency=value)


def check_points(points: list[PlannedPoint], generator: Generator) -> None:
    """A `Failure` where a budget leaves no legal trace."""
    for point in points:
        replace(generator, limits=point.limits).check_limits()


def file_of(out: str | None, point: PlannedPoint) -> str | None:
    """The file of one evaluation, beside that of the series."""
    if out is None:
        return None
    path = Path(out)
    return str(path.with_name(f"{path.stem}-{point.name}.json"))


def run_series(
    varied: Varied, points: list[PlannedPoint], run: Run, *, out: str | None, plot: str | None
) -> Series:
    """All evaluations, one after another; figures and picture are written when all have ended."""
    from nprdsl.trainers.evaluate.series import series, write_series
    from nprdsl.trainers.evaluate.series_plots import plot_series

    made = series(varied, [(point.value, run(point)) for point in points])
    if out is not None:
        with as_failure(OSError, about=f"cannot write `{out}`"):
            write_series(Path(out), made)
    if plot is not None:
        with as_failure(OSError, about=f"cannot write `{plot}`"):
            plot_series(made, Path(plot))
    return made


def show_series(made: Series, *, as_json: bool) -> None:
    """The rows as a table, or as JSON."""
    if as_json:
        from pydantic import TypeAdapter

        from nprdsl.trainers.evaluate.series import Series

        values: dict[str, Any] = TypeAdapter(Series).dump_python(made, mode="json")
        print_json(values)
    else:
        print_table(_table(made))


def _table(made: Series) -> Table:
    table = borderless_table()
    heads = (str(made.varied), "suite", "mode", "right", "tokens", "critical path", "branches",
             "tokens/s", "time", "speed-up", "sooner")  # fmt: skip
    for head in heads:
        table.add_column(head, justify="left" if head in ("suite", "mode") else "right")
    for row in made.rows:
        table.add_row(
            str(row.value),
            row.suite,
            row.mode.replace("_", " "),
            f"{row.accuracy.value:.1%}",
            f"{row.tokens.value:.0f}",
            f"{row.critical_path.value:.0f}",
            f"{row.branches:.1f}",
            f"{row.tokens_per_s:.0f}",
            f"{row.time_to_answer_s * 1000:.0f} ms",
            "" if row.speed_up is None else f"{row.speed_up:.2f}",
            "" if row.time_speed_up is None else f"{row.time_speed_up:.2f}",
        )
    return table
