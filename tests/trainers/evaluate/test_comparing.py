"""Reports: written, read back, compared, drawn; what is none is refused."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nprdsl.trainers.evaluate.comparing import Pair, compare
from nprdsl.trainers.evaluate.figures import figures
from nprdsl.trainers.evaluate.plots import PlotError, check_plot, plot
from nprdsl.trainers.evaluate.reports import (
    EvaluationReport,
    ReportError,
    SuiteReport,
    read_report,
    summary,
    write_report,
)
from nprdsl.trainers.evaluate.samples import Mode
from tests.trainers.evaluate.made import failed, graded, report, sample


def gaps(pair: Pair) -> dict[str, tuple[float, float, float]]:
    return {d.figure: (d.first, d.other, d.gap.value) for d in pair.differences}


# -- files -----------------------------------------------------------------------------------------


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    samples = [
        *graded([[1, 0], [1, 1]]),
        *(replace(s, mode=Mode.IN_TURN) for s in graded([[1, 0], [1, 1]])),
    ]
    made = report(samples)
    write_report(tmp_path / "r.json", made)
    assert read_report(tmp_path / "r.json") == made
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    told = summary(made)
    assert "samples" not in told["suites"]["made"]
    assert told["suites"]["made"]["figures"]["accuracy"]["value"] == 0.75
    json.dumps(told)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("not json", "is no report of `nprdsl eval`: invalid JSON"),
        ("{}", "is no report of `nprdsl eval`: field required (at `version`)"),
        ("[1]", "is no report of `nprdsl eval`"),
        ('{"version": "0", "settings": {}, "suites": {}}', "it names no mode"),
        ('{"version": "0", "settings": {"modes": ["x"]}, "suites": {}}', "it names no mode"),
    ],
)
def test_what_is_no_report(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(ReportError) as error:
        read_report(path)
    assert str(error.value).startswith(f"`{path}` ") and said in str(error.value)


def test_a_report_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"cannot read `.*none\.json`: No such file"):
        read_report(tmp_path / "none.json")


# -- comparisons -----------------------------------------------------------------------------------


def test_differences_by_hand() -> None:
    first = [
        sample("a", 0, right=False, tokens=100, critical_path=100, time_s=2.0, forks=0),
        sample("a", 1, right=False, tokens=100, critical_path=100, time_s=2.0, forks=0),
        sample("b", 0, right=True, tokens=200, critical_path=100, time_s=4.0),
        sample("b", 1, right=False, tokens=200, critical_path=100, time_s=4.0, legal=False),
    ]
    other = [
        sample("a", 0, right=True, tokens=100, critical_path=50, time_s=1.0),
        sample("a", 1, right=False, tokens=100, critical_path=50, time_s=1.0),
        sample("b", 0, right=True, tokens=400, critical_path=200, time_s=1.0),
        sample("b", 1, right=True, tokens=400, critical_path=200, time_s=1.0),
    ]
    (pair,) = compare([("A", report(first)), ("B", report(other))])
    assert (pair.suite, pair.name, pair.problems, pair.only_first, pair.only_other) == (
        ("made", "B", 2, 0, 0)
    )
    assert gaps(pair) == {
        "accuracy": (0.25, 0.75, 0.5),
        "best@2": (0.5, 1.0, 0.5),
        "legal": (0.75, 1.0, 0.25),
        "parallel": (0.5, 1.0, 0.5),
        "tokens": (150.0, 250.0, 100.0),
        "critical path": (100.0, 125.0, 25.0),
        "degree": (1.5, 2.0, 0.5),
        "time to answer": (3.0, 1.0, -2.0),
    }


def test_only_common_problems_count() -> None:
    one = report(graded([[1], [1], [0]]))
    two = report(graded([[0], [1], [0], [1]])[1:])
    (pair,) = compare([("A", one), ("B", two)])
    assert (pair.problems, pair.only_first, pair.only_other) == (2, 1, 1)
    assert gaps(pair)["accuracy"] == (0.5, 0.5, 0.0)
    assert "best@1" not in gaps(pair)


def test_best_is_compared_at_the_smaller_number_of_samples() -> None:
    one, two = report(graded([[1, 0, 0, 0]] * 2)), report(graded([[1, 0]] * 2))
    (pair,) = compare([("A", one), ("B", two)])
    assert gaps(pair)["best@2"] == (0.5, 1.0, 0.5)


def test_failed_samples_have_no_length() -> None:
    one = report([sample("a"), failed(sample("b"))])
    (pair,) = compare([("A", one), ("B", report([sample("a"), sample("b")]))])
    assert gaps(pair)["tokens"] == (100.0, 100.0, 0.0)
    assert gaps(pair)["accuracy"] == (0.5, 1.0, 0.5)


@given(st.lists(st.lists(st.booleans(), min_size=2, max_size=2), min_size=1, max_size=8))
def test_nothing_differs_from_itself(rights: list[list[bool]]) -> None:
    one = report(graded([[int(right) for right in row] for row in rights]))
    (pair,) = compare([("A", one), ("B", one)])
    assert all(d.gap.value == 0 and not d.gap.differs for d in pair.differences)


def test_more_than_noise() -> None:
    draw = random.Random(0)
    rights = [[int(draw.random() < 0.5)] for _ in range(200)]
    better = [[1] if row == [0] and draw.random() < 0.3 else row for row in rights]
    (pair,) = compare([("A", report(graded(rights))), ("B", report(graded(better)))])
    (accuracy,) = [d for d in pair.differences if d.figure == "accuracy"]
    assert accuracy.gap.differs and 0.05 < accuracy.gap.low < accuracy.gap.high < 0.3


def test_three_reports_and_two_suites() -> None:
    one = report(graded([[1]]))
    both = replace(one, suites={**one.suites, "more": one.suites["made"]})
    pairs = compare([("A", both), ("B", one), ("C", both)])
    assert [(pair.name, pair.suite) for pair in pairs] == [
        ("B", "made"),
        ("C", "made"),
        ("C", "more"),
    ]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            report(graded([[1]]), suite="other"),
            "`A` has the suites made, `B` has other: none is in",
        ),
        (
            report([sample("elsewhere")]),
            "the suite `made` has no problem in both (`here` and `here`)",
        ),
    ],
)
def test_reports_that_cannot_be_compared(other: EvaluationReport, said: str) -> None:
    with pytest.raises(ReportError, match=re.escape(said)):
        compare([("A", report(graded([[1]]))), ("B", other)])
    with pytest.raises(ReportError, match="a comparison needs two reports or more, not 1"):
        compare([("A", other)])


# -- pictures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["p.png", "p.svg"])
def test_pictures(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    one = report(graded([[1, 0], [1, 1]]))
    suites = {
        **one.suites,
        "more": SuiteReport("x", "d", (), figures(graded([[1]])), tuple(graded([[1]]))),
    }
    plot([("A", one), ("B", replace(one, suites=suites))], tmp_path / name)
    data = (tmp_path / name).read_bytes()
    assert len(data) > 5000
    plot([("A", one), ("B", replace(one, suites=suites))], tmp_path / name)
    assert (tmp_path / name).read_bytes() == data
    if name.endswith("svg"):
        assert b"</svg>" in data
    else:
        assert data.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("p.pdf", "is no picture that can be made; name it .png or .svg"),
        ("p", "is no picture that can be made"),
        ("none/p.png", "there is no folder"),
    ],
)
def test_pictures_that_cannot_be_made(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(PlotError, match=said):
        check_plot(tmp_path / name)
