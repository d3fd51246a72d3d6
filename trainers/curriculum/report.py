"""Writes the report of a curriculum: the tables of all stages, and a picture of learning curves.

Everything is read from the files of evaluations and runs. A figure of several training seeds is
their mean, with the standard deviation between them; what of a table was not evaluated is missing
there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Final

from nprdsl.trainers.curriculum.recipe import (
    LONGER,
    MODES,
    STAGES,
    SUITE,
    CurriculumFolder,
    StageModel,
)
from nprdsl.trainers.evaluate.comparing import Difference, compare
from nprdsl.trainers.evaluate.figures import Figures
from nprdsl.trainers.evaluate.reports import read_report
from nprdsl.trainers.evaluate.samples import Mode, Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COMPARED: Final = (
    ("beta", "npr"), ("beta", "beta-long"), ("beta-long", "npr"), ("beta", "control"),
    ("sr-beta", "sr"), ("sr-beta-long", "sr"), ("sr", "npr"),
)  # fmt: skip
_BASE: Final = "base"
_ROUNDS: Final = ("zero", "npr", "sr", "control")  # stages that learn from rollouts
_PARTS: Final = range(2, 13)
_BY_PARTS: Final = ("beta", "beta-long", "npr", "sr")
_MODE_NAMES: Final = {Mode.NATIVE: "native", Mode.PARALLEL: "engine", Mode.FREE: "free"}
_SIZE: Final = (10.0, 6.4)  # inches
_Folders = Sequence[CurriculumFolder]
_Column = Callable[[Figures], float]
_COLUMNS: Final[Mapping[str, tuple[_Column, str]]] = {
    "right %": (lambda f: 100 * f.accuracy.value, ".1f"),
    "best of the samples %": (lambda f: 100 * f.best[f.samples].value, ".1f"),
    "legal %": (lambda f: 100 * f.legal_rate, ".1f"),
    "parallel %": (lambda f: 100 * f.trigger_rate.value, ".1f"),
    "tokens": (lambda f: f.tokens.value, ".0f"),
    "critical path": (lambda f: f.critical_path.value, ".0f"),
    "degree": (lambda f: f.degree.value, ".2f"),
}


def write_report(out: Path, folders: _Folders, seconds: float) -> tuple[Path, Path]:
    """Writes `report.md` and `curves.svg` into the folder of the curriculum, of all its seeds."""
    took = [f"All of it took {seconds / 60:.0f} minutes."]
    parts = (
        _by_mode(folders), _own_mode(folders), _differences(folders), _by_parts(folders),
        _speed(folders[0]), took,
    )  # fmt: skip
    table, picture = out / "report.md", out / "curves.svg"
    table.write_text("\n\n".join(map("\n".join, parts)) + "\n", encoding="utf-8")
    draw(folders[0], picture)
    return table, picture


# -- tables ----------------------------------------------------------------------------------------


def _by_mode(folders: _Folders) -> Iterator[str]:
    """Every model in every mode, and what it gains over the base in the mode of its stage."""
    base = {mode: _accuracy(folders, _BASE, mode) for mode in MODES}
    names = " | ".join(_MODE_NAMES[mode] for mode in MODES)
    yield f"| right %, legal % in brackets | {names} | over the base | seeds |"
    yield "|---|" + "---:|" * (len(MODES) + 2)
    for stage in STAGES:
        cells = []
        for mode in MODES:
            found = _figures(folders, stage.name, mode)
            right, legal = ([_COLUMNS[c][0](f) for f in found] for c in ("right %", "legal %"))
            cells.append(f"{_cell(right, '.1f')} ({fmean(legal):.1f})" if found else "")
        own = _accuracy(folders, stage.name, stage.mode)
        gains = [one - before for one, before in zip(own, base[stage.mode], strict=False)]
        cells.append(_cell(gains, "+.1f") if stage.name != _BASE else "")
        yield f"| {stage.title} | " + " | ".join([*cells, str(len(own))]) + " |"


def _own_mode(folders: _Folders) -> Iterator[str]:
    """All figures of every stage, in its own mode."""
    yield "| | mode | " + " | ".join(_COLUMNS) + " |"
    yield "|---|---|" + "---:|" * len(_COLUMNS)
    for stage in STAGES:
        found = _figures(folders, stage.name, stage.mode)
        cells = [_cell([of(one) for one in found], form) for of, form in _COLUMNS.values()]
        yield f"| {stage.title} | {_MODE_NAMES[stage.mode]} | " + " | ".join(cells) + " |"


def _differences(folders: _Folders) -> Iterator[str]:
    """Accuracy against accuracy: of each seed the paired bootstrap over problems, and how far the
    differences of the seeds are from each other."""
    yield "| accuracy | difference | of each seed, with its 95 % interval (paired bootstrap) |"
    yield "|---|---:|---|"
    modes = {stage.name: stage.mode for stage in STAGES}
    for one, other in _COMPARED:
        gaps = [
            _gap(folder.evaluation(one, modes[one]), folder.evaluation(other, modes[other]))
            for folder in folders
            if folder.evaluation(other, modes[other]).exists()
        ]
        each = ", ".join(
            f"{100 * d.gap.value:+.1f} ({100 * d.gap.low:+.1f} to {100 * d.gap.high:+.1f})"
            for d in gaps
        )
        mean = _cell([100 * d.gap.value for d in gaps], "+.1f")
        yield f"| {one} to {other} | {mean} | {each} |"


def _gap(one: Path, other: Path) -> Difference:
    (pair,) = compare(((one.stem, read_report(one)), (other.stem, read_report(other))))
    return next(d for d in pair.differences if d.figure == "accuracy")


def _by_parts(folders: _Folders) -> Iterator[str]:
    """Right answers to flat questions by their parts; those with more than were trained are a suite
    of their own. Degree and path are those of the last stage."""
    stages = [stage for stage in STAGES if stage.name in _BY_PARTS]
    yield "| right % | " + " | ".join(f"`{s.name}`" for s in stages) + " | degree of `npr` |"
    yield "|---|" + "---:|" * (len(stages) + 1)
    kinds = {f"{n} parts": f"flat-{n}-" for n in _PARTS}
    for title, kind in {**kinds, "dependent": "dependent-", "nested": "nested-"}.items():
        cells, degree = list[str](), ""
        for stage in stages:
            found = [
                some
                for folder in folders
                if (some := [s for s in _samples(folder, stage) if s.problem.startswith(kind)])
            ]
            cells.append(_cell([100 * fmean(s.right for s in some) for some in found], ".1f"))
            if stage.name == "npr":
                degree = _cell([_degree(some) for some in found], ".2f")
        if any(cells):
            yield f"| {title} | " + " | ".join([*cells, degree]) + " |"


def _degree(samples: Sequence[Sample]) -> float:
    return sum(s.tokens for s in samples) / sum(s.critical_path for s in samples)


def _samples(folder: CurriculumFolder, stage: StageModel) -> Iterator[Sample]:
    files = {SUITE: folder.evaluation(stage.name, stage.mode), LONGER: folder.longer(stage.name)}
    for suite, file in files.items():
        if file.exists():
            yield from read_report(file).suites[suite].samples


def _speed(folder: CurriculumFolder) -> Iterator[str]:
    together = read_report(folder.speed("npr")).suites[SUITE].figures
    baseline = together.baseline
    assert baseline is not None, "the task of the recipe asks for it"
    yield "| one request at a time, stage 3 | tokens/s | time to answer, s |"
    yield "|---|---:|---:|"
    for name, one in (("branches together", together.speed), ("one after another", baseline.speed)):
        yield f"| {name} | {one.tokens_per_s:.0f} | {one.time_to_answer_s:.2f} |"
    yield f"| speed-up | {baseline.speed_up:.2f} | {baseline.time_speed_up:.2f} |"


def _figures(folders: _Folders, name: str, mode: Mode) -> list[Figures]:
    """Those of all seeds that were evaluated."""
    files = [folder.evaluation(name, mode) for folder in folders]
    return [read_report(file).suites[SUITE].figures for file in files if file.exists()]


def _accuracy(folders: _Folders, name: str, mode: Mode) -> list[float]:
    return [100 * found.accuracy.value for found in _figures(folders, name, mode)]


def _cell(values: Sequence[float], form: str) -> str:
    if not values:
        return ""
    mean = format(fmean(values), form)
    return f"{mean} ± {stdev(values):.1f}" if len(values) > 1 else mean


# -- picture ---------------------------------------------------------------------------------------


def draw(folder: CurriculumFolder, path: Path) -> None:
    """Learning curves: the losses of imitation, accuracy and legality of rollouts, degree."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "nprdsl", "font.size": 9}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        (losses, accuracy), (legal, degree) = figure.subplots(2, 2)
        for name in ("base", "beta-long", "sr-beta-long"):
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
