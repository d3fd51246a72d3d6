"""The picture of a series: accuracy over budgets, or speed-ups over how many requests run at once.

PNG or SVG, by the name of the file; needs matplotlib (extra `train`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nprdsl.trainers.evaluate.plots import check_plot
from nprdsl.trainers.evaluate.series import Series, Varied

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE: Final = (10.0, 4.2)  # inches
_BUDGETS: Final = {Varied.POSITIONS: "positions", Varied.TOKENS: "tokens"}


def plot_series(made: Series, path: Path) -> None:
    """Writes the picture. Raises PlotError, and OSError where the file cannot be written."""
    check_plot(path)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "nprdsl", "font.size": 9}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        left, right = figure.subplots(1, 2)
        if made.varied is Varied.CONCURRENCY:
            _speed_ups(left, made)
            _degrees(right, made)
        else:
            _accuracy(left, made)
            _tokens(right, made)
        stamp: dict[str, Any] = {"Date": None} if path.suffix.lower() == ".svg" else {}
        figure.savefig(path, dpi=150, metadata=stamp)


def _groups(made: Series) -> dict[str, list[int]]:
    """The rows of each line, by its name."""
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(made.rows):
        groups.setdefault(f"{row.suite}, {row.mode.replace('_', ' ')}", []).append(index)
    return groups


def _accuracy(axes: Axes, made: Series) -> None:
    for name, indices in _groups(made).items():
        rows = [made.rows[i] for i in indices]
        values, heights = [r.value for r in rows], [100 * r.accuracy.value for r in rows]
        low = [100 * (r.accuracy.value - r.accuracy.low) for r in rows]
        high = [100 * (r.accuracy.high - r.accuracy.value) for r in rows]
        axes.errorbar(values, heights, yerr=[low, high], marker="o", capsize=3, label=name)
    axes.set_xscale("log", base=2)
    axes.set_ylim(0, 105)
    axes.set_xlabel(f"budget, {_BUDGETS[made.varied]}")
    axes.set_ylabel("right answers, %")
    axes.set_title("accuracy with 95 % interval")
    axes.legend()


def _tokens(axes: Axes, made: Series) -> None:
    for name, indices in _groups(made).items():
        rows = [made.rows[i] for i in indices]
        axes.plot([r.value for r in rows], [r.tokens.value for r in rows], marker="o", label=name)
        for row in rows:
            axes.annotate(f"{row.branches:.1f}", (row.value, row.tokens.value), fontsize=7)
    axes.set_xscale("log", base=2)
    axes.set_xlabel(f"budget, {_BUDGETS[made.varied]}")
    axes.set_ylabel("tokens of a trace")
    axes.set_title("tokens written; the number is of branches")
    axes.legend()


def _speed_ups(axes: Axes, made: Series) -> None:
    for name, indices in _groups(made).items():
        rows = [made.rows[i] for i in indices if made.rows[i].speed_up is not None]
        values = [r.value for r in rows]
        speeds = [r.speed_up or 0.0 for r in rows]
        axes.plot(values, speeds, marker="o", label=f"{name}: tokens/s")
        times = [r.time_speed_up or 0.0 for r in rows]
        axes.plot(values, times, "--", marker="s", label=f"{name}: time to answer")
    axes.axhline(1.0, color="gray", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("requests at once")
    axes.set_ylabel("times as fast as in turn")
    axes.set_title("speed-up by batch")
    axes.legend()


def _degrees(axes: Axes, made: Series) -> None:
    least = min(row.value for row in made.rows)
    axes.scatter([d for d, _ in made.by_degree], [s for _, s in made.by_degree], s=12, alpha=0.6)
    longest = max([1.0, *(degree for degree, _ in made.by_degree)])
    axes.plot([1, longest], [1, longest], "--", color="gray", linewidth=1)
    axes.set_xlabel("degree of parallelism, tokens over critical path")
    axes.set_ylabel("times as soon as in turn")
    axes.set_title(f"each problem, {least} at once")
