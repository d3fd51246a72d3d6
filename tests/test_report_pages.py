"""Report pages of evaluations and of training runs: what stands in them, and which samples."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from pathlib import Path

import pytest

pytest.importorskip("torch")

import nprdsl
from nprdsl.cli.report_page import evaluation_view, write_evaluation_page
from nprdsl.studio import pages
from nprdsl.studio.reports import SHOWN, curves, samples
from nprdsl.trainers.run.directory import RunDirectory
from nprdsl.trainers.run.report_page import run_report, write_run_report
from tests.cli.test_check import LEGAL
from tests.trainers.evaluate.made import failed, report, sample

ARITH = nprdsl.load("arith")


def test_the_best_and_the_worst_of_an_evaluation() -> None:
    """A sample without a text is none to look at; one that is no trace shows its faults."""
    made = [
        *(replace(sample(f"p{n}", tokens=100 + n, right=n > 1), text=LEGAL) for n in range(9)),
        replace(sample("bad", right=False, legal=False), text="<step>"),
        failed(sample("gone")),
    ]
    view = evaluation_view(report(made), ARITH)
    assert [row[0] for row in view.tables[0].rows][:2] == ["problems", "avg@1"]
    assert view.title == "m, arith" and view.tables[0].columns == ("", "made")
    shown = [(one.best, one.trace.title) for one in view.samples]
    assert shown[:SHOWN] == [(True, f"made, p{n}") for n in (8, 7, 6)]
    assert shown[SHOWN:] == [(False, "made, bad"), (False, "made, p0"), (False, "made, p1")]
    assert view.samples[SHOWN].trace.violations and "wrong, not legal" in view.samples[SHOWN].note


def test_few_samples_are_shown_once() -> None:
    told = [(str(n), "", LEGAL) for n in range(SHOWN + 1)]
    assert [one.trace.title for one in samples(ARITH, told)] == ["0", "1", "2", "3"]
    assert samples(ARITH, []) == ()


def test_curves_of_what_was_measured_more_than_once() -> None:
    found = curves(
        [
            {"step": 1, "a": 2.0},
            {"step": 2, "a": 3.0, "b": 1.0},
            {"step": 4, "a": 1.0},
            {"step": 5, "a": nan},
        ]
    )
    assert [(one.title, one.points) for one in found] == [("a", ((1, 2), (2, 3), (4, 1)))]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory.open(tmp_path / "run", {})
    for step in (1, 2):
        directory.log(step, {"loss": 1 / step})
        told = {"problem": "p", "right": True, "finish": "completed", "text": LEGAL}
        directory.keep_rollouts(step, [{**told, "reward": step}])
    return directory


def test_a_run_has_its_last_figures_its_curves_and_its_rollouts(run: RunDirectory) -> None:
    view = run_report(run, ARITH)
    assert view.tables[0].rows == (("step", "2"), ("loss", "0.5"))
    assert [curve.title for curve in view.curves] == ["loss"]
    assert [(s.trace.title, s.note) for s in view.samples] == [
        ("step 2, p", "reward 2, right, completed"),
        ("step 1, p", "reward 1, right, completed"),
    ]


def test_pages_are_written_where_they_are_built(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise pages.StudioNotBuiltError("not built")

    def write() -> list[bool]:
        write_run_report(run, ARITH)
        write_evaluation_page(report([sample()]), ARITH, str(tmp_path / "r.json"))
        return [file.exists() for file in (run.path / "report.html", tmp_path / "r.html")]

    monkeypatch.setattr(pages, "static_file", missing)
    assert write() == [False, False]
    monkeypatch.setattr(pages, "static_file", {"viewer.css": "", "viewer.js": ""}.__getitem__)
    assert write() == [True, True]
    with (run.path / "report.html").open() as one, (tmp_path / "r.html").open() as other:
        monkeypatch.setattr(pages, "static_file", lambda name: "new")
        assert write() == [True, True]
        assert "new" not in one.read() + other.read()  # who reads a page goes on in the old one
