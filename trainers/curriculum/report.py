"""Writes the report of a curriculum: the table of all stages, and a picture of learning curves.

Everything is read from the files of evaluations and runs. A figure of several seeds is their mean,
with the standard deviation between them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, takewhile
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Final

from nprdsl.trainers.curriculum.recipe import (
    LONGER,
    MODES,
    SAMPLES,
    STAGES,
    SUITE,
    CurriculumFolder,
    StageModel,
)
from nprdsl.trainers.evaluate.comparing import compare
from nprdsl.trainers.evaluate.figures import Figures, figures
from nprdsl.trainers.evaluate.reports import EvaluationReport, read_report
from nprdsl.trainers.evaluate.samples import Mode

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COMPARED: Final = (("beta", "npr"), ("beta", "control"), ("sr-beta", "sr"), ("sr", "npr"))
_ROUNDS: Final = ("zero", "npr", "sr", "control")  # stages that learn from rollouts
_PARTS: Final = range(2, 13)
_MODE_NAMES: Final = {Mode.NATIVE: "native", Mode.PARALLEL: "engine", Mode.FREE: "free"}
_SIZE: Final = (10.0, 6.4)  # inches
_Column = Callable[[Figures], float]
_COLUMNS: Final[Mapping[str, tuple[_Column, str]]] = {
    f"avg@{SAMPLES} %": (lambda f: 100 * f.accuracy.value, ".1f"),
    f"best@{SAMPLES} %": (lambda f: 100 * f.best[f.samples].value, ".1f"),
    "legal %": (lambda f: 100 * f.legal_rate, ".1f"),
    "parallel %": (lambda f: 100 * f.trigger_rate.value, ".1f"),
    "tokens": (lambda f: f.tokens.value, ".0f"),
    "critical path": (lambda f: f.critical_path.value, ".0f"),
    "degree": (lambda f: f.degree.value, ".2f"),
}


def write_report(folder: CurriculumFolder, seconds: float) -> tuple[Path, Path]:
    """Writes `report.md` and `curves.svg` into the folder of the curriculum."""
    reports = {stage.name: _reports(folder, stage) for stage in STAGES}
    took = [f"All of it took {seconds / 60:.0f} minutes."]
    modes, differences = _by_mode(folder, reports), _differences(reports)
    parts = (_table(reports), modes, differences, _by_parts(folder), _speed(folder), took)
    table, picture = folder.path / "report.md", folder.path / "curves.svg"
    table.write_text("\n\n".join(map("\n".join, parts)) + "\n", encoding="utf-8")
    draw(folder, picture)
    return table, picture


def _reports(folder: CurriculumFolder, stage: StageModel) -> list[EvaluationReport]:
    """Those of all seeds that were evaluated, from 0 on; the first must be there."""
    more = (folder.evaluation(stage.name, SUITE, seed) for seed in count(1))
    files = (folder.evaluation(stage.name, SUITE, 0), *takewhile(Path.exists, more))
    return [read_report(file) for file in files]


# -- tables ----------------------------------------------------------------------------------------


def _table(reports: Mapping[str, Sequence[EvaluationReport]]) -> Iterator[str]:
    """One line a stage."""
    problems = {r.suites[SUITE].figures.problems for seeds in reports.values() for r in seeds}
    yield f"{max(problems)} held-out problems, {SAMPLES} samples of each; ± between seeds."
    yield ""
    yield "| | " + " | ".join([*_COLUMNS, "seeds"]) + " |"
    yield "|---|" + "---:|" * (len(_COLUMNS) + 1)
    for stage in STAGES:
        seeds = [report.suites[SUITE].figures for report in reports[stage.name]]
        cells = [_cell([of(one) for one in seeds], form) for of, form in _COLUMNS.values()]
        yield f"| {stage.title} | " + " | ".join([*cells, str(len(seeds))]) + " |"


def _cell(values: Sequence[float], form: str) -> str:
    mean = format(fmean(values), form)
    return f"{mean} ± {stdev(values):.2f}" if len(values) > 1 else mean


def _by_mode(
    folder: CurriculumFolder, reports: Mapping[str, Sequence[EvaluationReport]]
) -> Iterator[str]:
    """Every model in every mode: a stage has all samples in its own, in others one a problem."""
    yield (
        "| right %, legal % in brackets | " + " | ".join(map(_MODE_NAMES.__getitem__, MODES)) + " |"
    )
    yield "|---|" + "---:|" * len(MODES)
    for stage in STAGES:
        cells = []
        for mode in MODES:
            report = (
                reports[stage.name][0]
                if mode is stage.mode
                else read_report(folder.other_mode(stage.name, mode))
            )
            one = report.suites[SUITE].figures
            cells.append(f"{100 * one.accuracy.value:.1f} ({100 * one.legal_rate:.1f})")
        yield f"| `{stage.name}` | " + " | ".join(cells) + " |"


def _differences(reports: Mapping[str, Sequence[EvaluationReport]]) -> Iterator[str]:
    """Accuracy against accuracy, first seeds, the same problems drawn again."""
    yield "| accuracy | from | to | difference | 95 % interval (paired bootstrap) |"
    yield "|---|---:|---:|---:|---:|"
    for one, other in _COMPARED:
        (pair,) = compare(((one, reports[one][0]), (other, reports[other][0])))
        gap = next(d for d in pair.differences if d.figure == "accuracy")
        low, high = 100 * gap.gap.low, 100 * gap.gap.high
        cells = f"{100 * gap.first:.1f} | {100 * gap.other:.1f} | {100 * gap.gap.value:+.1f}"
        yield f"| {one} to {other} | {cells} | {low:+.1f} to {high:+.1f} |"


def _by_parts(folder: CurriculumFolder) -> Iterator[str]:
    """Flat questions by their parts, of the last stage; more than were trained are in a suite of
    their own."""
    every = [
        sample
        for suite in (SUITE, LONGER)
        for sample in read_report(folder.evaluation("npr", suite, 0)).suites[suite].samples
    ]
    yield "| parts, stage 3 | right % | tokens | critical path | degree | problems |"
    yield "|---|---:|---:|---:|---:|---:|"
    kinds = {f"{n} parts": f"flat-{n}-" for n in _PARTS}
    for title, kind in {**kinds, "dependent": "dependent-", "nested": "nested-"}.items():
        if samples := [s for s in every if s.problem.startswith(kind)]:
            f = figures(samples)
            yield (
                f"| {title} | {100 * f.accuracy.value:.1f} | {f.tokens.value:.0f} | "
                f"{f.critical_path.value:.0f} | {f.degree.value:.2f} | {f.problems} |"
            )


def _speed(folder: CurriculumFolder) -> Iterator[str]:
    together = read_report(folder.speed("npr")).suites[SUITE].figures
    baseline = together.baseline
    assert baseline is not None, "the task of the recipe asks for it"
    yield "| one request at a time, stage 3 | tokens/s | time to answer, s |"
    yield "|---|---:|---:|"
    for name, one in (("branches together", together.speed), ("one after another", baseline.speed)):
        yield f"| {name} | {one.tokens_per_s:.0f} | {one.time_to_answer_s:.2f} |"
    yield f"| speed-up | {baseline.speed_up:.2f} | {baseline.time_speed_up:.2f} |"


# -- picture ---------------------------------------------------------------------------------------


def draw(folder: CurriculumFolder, path: Path) -> None:
    """Learning curves: the losses of imitation, accuracy and legality of rollouts, degree."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "nprdsl", "font.size": 9}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        (losses, accuracy), (legal, degree) = figure.subplots(2, 2)
        for name in ("base", "beta", "sr-beta"):
            _curve(losses, folder, name, "loss", 1.0)
        for name in _ROUNDS:
            _curve(accuracy, folder, name, "rollout/accuracy", 100.0)
            _curve(legal, folder, name, "rollout/legal", 100.0)
            _curve(degree, folder, name, "rollout/degree", 1.0)
        losses.set_yscale("log")
        for axes, title in (
            (losses, "imitation: loss"),
            (accuracy, "rollouts: right, %"),
            (legal, "rollouts: legal, %"),
            (degree, "rollouts: tokens / critical path"),
        ):
            axes.set_title(title)
            axes.set_xlabel("step")
            axes.legend()
        figure.savefig(path, metadata={"Date": None})


def _curve(axes: Axes, folder: CurriculumFolder, name: str, figure: str, scale: float) -> None:
    lines = folder.metrics(name).read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, Any]] = [row for line in lines if figure in (row := json.loads(line))]
    axes.plot([row["step"] for row in rows], [scale * row[figure] for row in rows], label=name)
