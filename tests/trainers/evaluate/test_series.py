"""Series of evaluations: rows, speed-ups by degree, files, pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nprdsl.trainers.evaluate.reports import EvaluationReport
from nprdsl.trainers.evaluate.samples import Mode
from nprdsl.trainers.evaluate.series import Series, Varied, read_series, series, write_series
from nprdsl.trainers.evaluate.series_plots import plot_series
from tests.trainers.evaluate.made import failed, report, sample


def both(time_s: float) -> EvaluationReport:
    """Two problems in both ways: in turn they take twice and three times as long."""
    own = [
        replace(sample("p0", tokens=100, critical_path=50, time_s=time_s), branches=2),
        replace(sample("p1", tokens=90, critical_path=30, time_s=time_s), branches=4),
    ]
    turns = [
        sample("p0", mode=Mode.IN_TURN, tokens=100, critical_path=50, time_s=2 * time_s),
        sample("p1", mode=Mode.IN_TURN, tokens=90, critical_path=30, time_s=3 * time_s),
    ]
    return report([*own, *turns])


def made() -> Series:
    return series(Varied.CONCURRENCY, [(4, both(2.0)), (1, both(1.0))])


def test_rows_have_the_figures_of_each_value() -> None:
    first, second = made().rows
    assert (first.value, second.value) == (4, 1)
    assert first.branches == 3.0
    assert first.time_speed_up == pytest.approx(2.5)
    assert first.speed_up is not None


def test_degrees_are_those_of_the_smallest_value() -> None:
    assert made().by_degree == ((2.0, 2.0), (3.0, 3.0))


def test_samples_that_failed_have_no_degree() -> None:
    one = both(1.0)
    suite = one.suites["made"]
    samples = (failed(suite.samples[0]), *suite.samples[1:])
    broken = replace(one, suites={"made": replace(suite, samples=samples)})
    assert series(Varied.CONCURRENCY, [(1, broken)]).by_degree == ((3.0, 3.0),)


def test_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_series(tmp_path / "s.json", made())
    assert read_series(tmp_path / "s.json") == made()


@pytest.mark.parametrize("varied", Varied)
@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_pictures(varied: Varied, ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"p{ending}"
    plot_series(replace(made(), varied=varied), file)
    assert file.read_bytes().startswith((b"\x89PNG", b"<?xml"))
