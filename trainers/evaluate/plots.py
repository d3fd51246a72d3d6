"""The picture of one or several evaluations: accuracy with intervals, tokens over critical path.

PNG or SVG, by the name of the file; needs matplotlib (extra `train`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from nprdsl.trainers.evaluate.figures import by_problem
from nprdsl.trainers.evaluate.reports import EvaluationReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS: Final = (".png", ".svg")
_SIZE: Final = (10.0, 4.2)  # inches
_BARS: Final = 0.8  # of the room of a suite


class PlotError(ValueError):
    """A picture that cannot be made."""


def check_plot(path: Path) -> None:
    """Raises PlotError where `plot` could not write that file for its name or for want of
    matplotlib."""
    if path.suffix.lower() not in FORMATS:
        raise PlotError(f"`{path}` is no picture that can be made; name it .png or .svg")
    if not path.parent.is_dir():
        raise PlotError(f"cannot write `{path}`: there is no folder `{path.parent}`")
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        raise PlotError(
            f"a picture needs {error.name}; install it with: pip install 'nprdsl[train]'"
        ) from error


def plot(named: Sequence[tuple[str, EvaluationReport]], path: Path) -> None:
    """Writes the picture. Raises PlotError, and OSError where the file cannot be written."""
    check_plot(path)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "nprdsl", "font.size": 9}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        left, right = figure.subplots(1, 2)
        _accuracy(left, named)
        _lengths(right, named)
        stamp: dict[str, Any] = {"Date": None} if path.suffix.lower() == ".svg" else {}
        figure.savefig(path, dpi=150, metadata=stamp)


def _accuracy(axes: Axes, named: Sequence[tuple[str, EvaluationReport]]) -> None:
    """avg@k with its interval, and best@k as a mark above it."""
    suites = list(dict.fromkeys(suite for _, report in named for suite in report.suites))
    width = _BARS / len(named)
    for number, (name, report) in enumerate(named):
        places = [i for i, suite in enumerate(suites) if suite in report.suites]
        at = [place - _BARS / 2 + width * (number + 0.5) for place in places]
        figures = [report.suites[suites[place]].figures for place in places]
        heights = [100 * one.accuracy.value for one in figures]
        errors = [
            [100 * (one.accuracy.value - one.accuracy.low) for one in figures],
            [100 * (one.accuracy.high - one.accuracy.value) for one in figures],
        ]
        axes.bar(at, heights, width * 0.9, yerr=errors, capsize=3, label=name, color=f"C{number}")
        best = [100 * one.best[one.samples].value for one in figures]
        if any(one.samples > 1 for one in figures):
            axes.scatter(at, best, marker="_", s=80, color="black", zorder=3)
    axes.set_xticks(range(len(suites)), suites)
    axes.set_ylim(0, 105)
    axes.set_ylabel("right answers, %")
    axes.set_title("avg@k with 95 % interval; the dash is best@k")
    if len(named) > 1:
        axes.legend()


def _lengths(axes: Axes, named: Sequence[tuple[str, EvaluationReport]]) -> None:
    """Each problem by its tokens and the tokens of its longest path; equal on the dashed line."""
    longest = 1.0
    for number, (name, report) in enumerate(named):
        for place, (suite, one) in enumerate(report.suites.items()):
            groups = by_problem([s for s in one.of(report.mode) if not s.failed]).values()
            across = [fmean(s.critical_path for s in group) for group in groups]
            up = [fmean(s.tokens for s in group) for group in groups]
            longest = max([longest, *up])
            label = suite if len(named) == 1 else f"{name}: {suite}"
            color = f"C{place if len(named) == 1 else number}"
            axes.scatter(across, up, s=10, alpha=0.6, label=label, color=color)
    axes.plot([0, longest], [0, longest], "--", color="gray", linewidth=1)
    axes.set_xlabel("critical path, tokens")
    axes.set_ylabel("tokens")
    axes.set_title("tokens of a trace over those of its longest path")
    axes.legend()
