"""The report is read from the files of runs and evaluations: here, of ones made by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from nprdsl.trainers.curriculum.recipe import (
    LONGER,
    MODES,
    SAMPLES,
    STAGES,
    SUITE,
    CurriculumFolder,
)
from nprdsl.trainers.curriculum.report import write_report
from nprdsl.trainers.evaluate.figures import figures
from nprdsl.trainers.evaluate.reports import EvaluationReport, SuiteReport
from nprdsl.trainers.evaluate.reports import write_report as write
from nprdsl.trainers.evaluate.samples import Mode, Sample
from tests.trainers.evaluate.made import sample

RIGHT = {"base": 2, "zero": 4, "beta": 5, "npr": 7, "sr-beta": 5, "sr": 6, "control": 3}  # of 8


def samples(right: int, *problems: str, modes: tuple[Mode, ...] = (Mode.PARALLEL,)) -> list[Sample]:
    return [
        sample(p, n, right=n < right, mode=mode, tokens=300, critical_path=100)
        for mode in modes
        for p in problems
        for n in range(SAMPLES)
    ]


def put(path: Path, suite: str, found: list[Sample]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    one = SuiteReport("generated", "d", (), figures(found), tuple(found))
    write(path, EvaluationReport("0", {"modes": ["parallel"]}, {suite: one}))


def made(folder: Path) -> CurriculumFolder:
    place = CurriculumFolder(folder, folder / "configs")
    for stage in STAGES:
        for seed in range(stage.seeds):
            found = samples(RIGHT[stage.name] - (seed == 1), "flat-2-0", "flat-3-1", "nested-2-2")
            put(place.evaluation(stage.name, SUITE, seed), SUITE, found)
        put(place.evaluation(stage.name, LONGER, 0), LONGER, samples(4, "flat-9-0"))
        for mode in set(MODES) - {stage.mode}:
            right = 1 if mode is Mode.NATIVE else 4
            put(place.other_mode(stage.name, mode), SUITE, samples(right, "flat-2-0"))
        rows = [
            {"step": 1, "loss": 1.0},
            {"step": 1, "rollout/accuracy": 0.5, "rollout/legal": 1, "rollout/degree": 2},
        ]
        place.metrics(stage.name).parent.mkdir(parents=True)
        place.metrics(stage.name).write_text("\n".join(map(json.dumps, rows)) + "\n")
    both = samples(8, "flat-2-0", modes=(Mode.PARALLEL, Mode.IN_TURN))
    put(
        place.speed("npr"),
        SUITE,
        [replace(s, wall_s=1.0) if s.mode is Mode.IN_TURN else s for s in both],
    )
    return place


def test_every_stage_has_a_line_with_its_figures(tmp_path: Path) -> None:
    table, _ = write_report(made(tmp_path), 3000.0)
    lines = table.read_text().splitlines()
    for stage in STAGES:
        (line,) = [one for one in lines if one.startswith(f"| {stage.title} |")]
        if stage.seeds == 1:
            assert f"| {100 * RIGHT[stage.name] / 8:.1f} | " in line
    npr = next(one for one in lines if one.startswith("| stage 3: NPR"))
    assert "| 83.3 ± 7.22 |" in npr  # of 7, 6 and 7 of 8
    assert "| 300 ± 0.00 | 100 ± 0.00 | 3.00 ± 0.00 | 3 |" in npr


def test_seeds_that_were_asked_for_besides_are_told(tmp_path: Path) -> None:
    place = made(tmp_path)
    for seed, right in ((1, 3), (2, 4), (4, 8)):  # the third is missing, so what is behind it waits
        put(place.evaluation("base", SUITE, seed), SUITE, samples(right, "flat-2-0"))
    lines = write_report(place, 3000.0)[0].read_text().splitlines()
    (base,) = [line for line in lines if line.startswith("| base")]
    assert "| 37.5 ± 12.50 |" in base and base.endswith("| 3 |")


def test_every_model_is_told_in_every_mode(tmp_path: Path) -> None:
    lines = write_report(made(tmp_path), 3000.0)[0].read_text().splitlines()
    begin = lines.index("| right %, legal % in brackets | native | engine | free |")
    rows = lines[begin + 2 : begin + 2 + len(STAGES)]
    assert rows[0] == "| `base` | 12.5 (100.0) | 50.0 (100.0) | 25.0 (100.0) |"
    assert rows[3] == "| `npr` | 12.5 (100.0) | 87.5 (100.0) | 50.0 (100.0) |"


def test_differences_parts_and_speed_are_told(tmp_path: Path) -> None:
    table, picture = write_report(made(tmp_path), 3000.0)
    text = table.read_text()
    assert "| beta to npr | 62.5 | 87.5 | +25.0 | +25.0 to +25.0 |" in text
    assert "| 2 parts | 87.5 | 300 | 100 | 3.00 | 1 |" in text
    assert "| 9 parts | 50.0 | 300 | 100 | 3.00 | 1 |" in text
    assert "| nested | 87.5 |" in text
    assert "| speed-up | 2.00 | 1.00 |" in text
    assert text.endswith("All of it took 50 minutes.\n")
    svg = picture.read_text()
    assert "control" in svg or "<svg" in svg
    assert svg == write_report(made(tmp_path / "again"), 1.0)[1].read_text()
