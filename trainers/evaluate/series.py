"""Evaluations that differ in one setting, as one table: budgets, or how many requests run at once.

In go reports, each with the value of the setting; out come rows of figures, a JSON file of them,
and with `nprdsl.trainers.evaluate.series_plots` a picture. Figures 7 and 8 of arXiv:2506.09991 are
of this kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import fmean
from typing import Final

from pydantic import TypeAdapter

from nprdsl.trace.journal import write_whole
from nprdsl.trainers.evaluate.bootstrap import Estimate
from nprdsl.trainers.evaluate.figures import by_problem
from nprdsl.trainers.evaluate.reports import EvaluationReport, SuiteReport
from nprdsl.trainers.evaluate.samples import Mode


class Varied(StrEnum):
    """The setting that differs."""

    POSITIONS = "critical-path"  # `Limits.max_positions`
    TOKENS = "tokens"  # `Limits.max_tokens`
    CONCURRENCY = "concurrency"


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """The figures of one suite at one value; `branches` is the mean number in a trace. The
    speed-ups are against the same requests with one branch after another, where those were run."""

    value: int
    suite: str
    mode: Mode
    problems: int
    samples: int
    accuracy: Estimate
    tokens: Estimate
    critical_path: Estimate
    branches: float
    tokens_per_s: float
    time_to_answer_s: float
    speed_up: float | None
    time_speed_up: float | None


@dataclass(frozen=True, slots=True)
class Series:
    """All rows of a setting. `by_degree` has, for each problem at the smallest value, its degree of
    parallelism and how many times sooner its answer is there than in turn."""

    varied: Varied
    rows: tuple[SeriesRow, ...]
    by_degree: tuple[tuple[float, float], ...] = ()


_ADAPTER: Final = TypeAdapter(Series)


def series(varied: Varied, reports: Sequence[tuple[int, EvaluationReport]]) -> Series:
    """The series of reports, each with its value."""
    rows = [row for value, report in reports for row in rows_of(value, report)]
    least = min(value for value, _ in reports)
    first = [report for value, report in reports if value == least]
    degrees = [pair for report in first for pair in _by_degree(report)]
    return Series(varied, tuple(rows), tuple(degrees))


def rows_of(value: int, report: EvaluationReport) -> list[SeriesRow]:
    """One row for each suite."""
    return [_row(value, name, suite, report.mode) for name, suite in report.suites.items()]


def _row(value: int, name: str, suite: SuiteReport, mode: Mode) -> SeriesRow:
    figures, own = suite.figures, [s for s in suite.of(mode) if not s.failed]
    baseline = figures.baseline
    return SeriesRow(
        value=value,
        suite=name,
        mode=mode,
        problems=figures.problems,
        samples=figures.samples,
        accuracy=figures.accuracy,
        tokens=figures.tokens,
        critical_path=figures.critical_path,
        branches=fmean(sample.branches for sample in own) if own else 0.0,
        tokens_per_s=figures.speed.tokens_per_s,
        time_to_answer_s=figures.speed.time_to_answer_s,
        speed_up=None if baseline is None else baseline.speed_up,
        time_speed_up=None if baseline is None else baseline.time_speed_up,
    )


def _by_degree(report: EvaluationReport) -> list[tuple[float, float]]:
    """For each problem run in both ways: tokens over critical path, time in turn over time."""
    pairs = []
    for suite in report.suites.values():
        turns = by_problem(suite.of(Mode.IN_TURN))
        for problem, group in by_problem(suite.of(Mode.PARALLEL)).items():
            ran = [s for s in group if not s.failed]
            other = [s for s in turns.get(problem, ()) if not s.failed]
            if ran and other:
                degree = sum(s.tokens for s in ran) / sum(s.critical_path for s in ran)
                pairs.append(
                    (degree, fmean(s.time_s for s in other) / fmean(s.time_s for s in ran))
                )
    return pairs


def write_series(path: Path, made: Series) -> None:
    """Writes the file whole, or not at all. Raises OSError."""
    write_whole(path, _ADAPTER.dump_json(made, indent=1) + b"\n")


def read_series(path: Path) -> Series:
    """Raises OSError, and ValueError for another file."""
    return _ADAPTER.validate_json(path.read_bytes())
