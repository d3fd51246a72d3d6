"""Tables of figures: a suite in each column, or the first result against another."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from rich.table import Table

from nprdsl.cli.console import console, is_terminal

if TYPE_CHECKING:
    from nprdsl.trainers.evaluate.bootstrap import Estimate
    from nprdsl.trainers.evaluate.comparing import Pair
    from nprdsl.trainers.evaluate.figures import Figures
    from nprdsl.trainers.evaluate.reports import EvaluationReport

_SHARES: Final = ("accuracy", "best@", "legal", "parallel")  # figures that are told in percent
_WIDE: Final = 10_000  # columns of a pipe: nothing is cut there


def show(table: Table) -> None:
    """Print it, and an empty line."""
    out = console()
    if not is_terminal(sys.stdout):
        out.width = _WIDE
    out.print(table)
    out.print()


def figures_table(report: EvaluationReport) -> Table:
    """All figures of all suites."""
    table = _table("", *report.suites)
    columns = [_rows(suite.figures) for suite in report.suites.values()]
    for name in dict.fromkeys(name for column in columns for name in column):
        table.add_row(name, *(column.get(name, "") for column in columns))
    return table


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


def _rows(figures: Figures) -> dict[str, str]:
    """Name and value of everything that is told of a suite."""
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
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    return table
