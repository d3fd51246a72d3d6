"""The figures of finished work: of one request, of two ways to run it, of an evaluation.

Results become rows of names and values, JSON values, or tables.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

from nprdsl.cli.console import borderless_table, clean, console, is_terminal

if TYPE_CHECKING:
    from nprdsl.machine.budget import Limits
    from nprdsl.runtime.results import Result
    from nprdsl.trainers.evaluate.bootstrap import Estimate
    from nprdsl.trainers.evaluate.comparing import Pair
    from nprdsl.trainers.evaluate.figures import Figures
    from nprdsl.trainers.evaluate.reports import EvaluationReport

_ROUNDS: Final = 3
_ENOUGH_S: Final = 20.0  # slow models are measured once
_SHARES: Final = ("accuracy", "best@", "legal", "parallel")  # figures that are shown in percent
_WIDE: Final = 10_000  # columns of a pipe: nothing is cut there


# one request


def result_figures(result: Result) -> list[tuple[str, str]]:
    """Names and values."""
    usage = result.usage
    kinds = f"{usage.sampled_tokens} sampled, {usage.forced_tokens} forced"
    return [
        *([("answer", clean(result.answer))] if result.answer else []),
        ("tokens", f"{usage.total} ({kinds}), behind a prompt of {usage.prompt_tokens}"),
        ("critical path", f"{usage.critical_path} tokens"),
        ("degree of parallelism", f"{usage.degree:.2f}"),
        ("time", f"{_seconds(usage.time_s)}, {usage.forwards} forwards"),
        ("speed", f"{usage.tokens_per_s:.0f} tokens/s"),
        ("end", str(result.finish)),
        *_shares(result.limits),
    ]


def _shares(limits: Limits) -> list[tuple[str, str]]:
    """How a budget was shared out."""
    texts = limits.text_tokens
    if texts is None:
        return []
    each = f"{texts.item} tokens an item, {texts.branch} in a branch, {texts.trunk} elsewhere"
    return [("limits", f"{limits.max_tokens} tokens; a text has {each}")]


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


# two ways to run a request


@dataclass(frozen=True, slots=True)
class Comparison:
    """Seconds and model calls of both ways; `runs` of each were measured."""

    parallel_s: float
    in_turn_s: float
    parallel_forwards: int
    in_turn_forwards: int
    runs: int
    same_trace: bool

    @property
    def speed_up(self) -> float:
        return self.in_turn_s / self.parallel_s

    def record(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        values = {**asdict(self), "speed_up": self.speed_up}
        return {n: round(v, 4) if isinstance(v, float) else v for n, v in values.items()}


def compare(
    first: Result, side_by_side: Callable[[], Result], in_turn: Callable[[], Result]
) -> Comparison:
    """Measure both ways; `first` is a run side by side that is done already.

    They take turns, after a first run of each that is not counted, so that neither has warmer
    caches; medians are compared.
    """
    fast: list[Result] = []
    slow: list[Result] = []
    if first.usage.time_s < _ENOUGH_S:
        in_turn()
    started = time.perf_counter()
    while len(fast) < _ROUNDS:
        slow.append(in_turn())
        fast.append(side_by_side())
        if time.perf_counter() - started > _ENOUGH_S:
            break
    return Comparison(
        parallel_s=median(result.usage.time_s for result in fast),
        in_turn_s=median(result.usage.time_s for result in slow),
        parallel_forwards=fast[0].usage.forwards,
        in_turn_forwards=slow[0].usage.forwards,
        runs=len(fast),
        same_trace=all(result.token_ids == first.token_ids for result in (*fast, *slow)),
    )


def comparison_figures(comparison: Comparison) -> list[tuple[str, str]]:
    """Names and values."""
    runs = "1 run" if comparison.runs == 1 else f"median of {comparison.runs} runs"
    same = "the same trace" if comparison.same_trace else "another trace"
    fast, slow = _seconds(comparison.parallel_s), _seconds(comparison.in_turn_s)
    return [
        ("in parallel", f"{fast}, {comparison.parallel_forwards} forwards ({runs})"),
        ("one after another", f"{slow}, {comparison.in_turn_forwards} forwards ({runs})"),
        ("speed-up", f"{comparison.speed_up:.2f} x ({same})"),
    ]


# evaluations


def print_table(table: Table) -> None:
    """Print it, and an empty line."""
    out = console()
    if not is_terminal(sys.stdout):
        out.width = _WIDE
    out.print(table)
    out.print()


def figures_table(report: EvaluationReport) -> Table:
    """All figures of all suites."""
    table = _table("", *report.suites)
    for row in figure_rows(report):
        table.add_row(*row)
    return table


def figure_rows(report: EvaluationReport) -> Iterator[tuple[str, ...]]:
    """The name of each figure, and its value for every suite, empty where a suite has none."""
    columns = [_suite_figures(suite.figures) for suite in report.suites.values()]
    for name in dict.fromkeys(name for column in columns for name in column):
        yield (name, *(column.get(name, "") for column in columns))


def pair_table(first: str, pair: Pair) -> Table:
    """What differs between two results on a suite."""
    left = [f"{pair.only_first} only in {first}"] * bool(pair.only_first)
    left += [f"{pair.only_other} only in {pair.name}"] * bool(pair.only_other)
    problems = f"{pair.problems} problems in both" + "".join(f", {part}" for part in left)
    table = _table(pair.suite, first, pair.name, "difference", "95 % interval", "")
    table.caption = f"{problems}; * is more than noise"
    table.caption_justify = "left"
    for one in pair.differences:
        scale = 100.0 if one.figure.startswith(_SHARES) else 1.0
        digits = 1 if one.figure.startswith((*_SHARES, "tokens", "critical")) else 3
        gap = one.gap
        table.add_row(
            one.figure + (" %" if scale == 100.0 else " s" if "time" in one.figure else ""),
            f"{scale * one.first:.{digits}f}",
            f"{scale * one.other:.{digits}f}",
            f"{scale * gap.value:+.{digits}f}",
            f"{scale * gap.low:+.{digits}f} to {scale * gap.high:+.{digits}f}",
            "*" if gap.differs else "",
        )
    return table


def _suite_figures(figures: Figures) -> dict[str, str]:
    """Names and values."""
    k, base, speed = figures.samples, figures.baseline, figures.speed
    rows = {
        "problems": f"{figures.problems}",
        f"avg@{k}": _share(figures.accuracy),
        **{f"best@{n}": _share(value) for n, value in figures.best.items() if n > 1},
        "legal": f"{100 * figures.legal_rate:.1f} %",
        "parallel": _share(figures.trigger_rate),
        "completed": f"{100 * figures.completed_rate:.1f} %",
        **({"failed": f"{figures.failed}"} if figures.failed else {}),
        "tokens": f"{figures.tokens.value:.1f}",
        "critical path": f"{figures.critical_path.value:.1f}",
        "degree": f"{figures.degree.value:.2f}",
        "tokens/s": f"{speed.tokens_per_s:.0f}",
        "time to answer": f"{speed.time_to_answer_s:.2f} s",
    }
    if base is not None:
        rows |= {
            "in turn: tokens/s": f"{base.speed.tokens_per_s:.0f}",
            "in turn: time to answer": f"{base.speed.time_to_answer_s:.2f} s",
            "in turn: same traces": f"{100 * base.same_traces:.1f} %",
            "speed-up": f"{base.speed_up:.2f} x",
            "speed-up to answer": f"{base.time_speed_up:.2f} x",
        }
    return rows


def _share(estimate: Estimate) -> str:
    low, high = 100 * estimate.low, 100 * estimate.high
    return f"{100 * estimate.value:.1f} % ({low:.1f} to {high:.1f})"


def _table(*columns: str) -> Table:
    table = borderless_table()
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    return table
