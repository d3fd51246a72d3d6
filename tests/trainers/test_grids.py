"""ZebraLogic's grid mode: tables become grids, and every cell must be right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nprdsl.trainers.data.problems import AnswerForm, Problem, read_problems
from nprdsl.trainers.data.sources import SourceError
from nprdsl.trainers.evaluate.suites import from_source
from nprdsl.trainers.grading.grids import grid_in, grid_of, same_grid
from nprdsl.trainers.grading.quantities import EXACT

TABLE = {
    "header": ["House", "Name", "Pet", "Color"],
    "rows": [["1", "Eric", "cat", "dark blue"], ["2", "Arnold", "dog", "red"]],
}
GRID = grid_of(TABLE["header"], TABLE["rows"])
WANTED = json.dumps(GRID)
ROW = {"id": "lgp-2x3-1", "size": "2*3", "puzzle": "There are 2 houses.", "solution": TABLE}
MARKDOWN = "| House | Name | Pet | Color |\n|---|:-:|---|---|\n| 1 | Eric | cat | Dark Blue |\n"


def box(value: object) -> str:
    return rf"So it is \boxed{{{json.dumps(value)}}}."


@pytest.mark.parametrize(
    "text",
    [
        box(GRID),
        json.dumps(GRID),
        f"```json\n{json.dumps({'reasoning': 'x', 'solution': GRID}, indent=2)}\n```",
        f"First {json.dumps({'House 1': {'Name': 'Arnold'}})}, no: {WANTED}",
        box(GRID).upper().replace(r"\BOXED", r"\boxed"),
        box(GRID).replace("{", r"\{").replace("}", r"\}").replace(r"\boxed\{", r"\boxed{")[:-3]
        + "}.",
        box({"1": GRID["House 1"], "2": GRID["House 2"]}),
        box(TABLE),
        f"{MARKDOWN}| 2 | Arnold | dog | red |",
        box({house: {**cells, "House": house[-1]} for house, cells in GRID.items()}),
        box({"house_1": GRID["House 1"], "House #2": GRID["House 2"]}),
        f"{MARKDOWN}| 2 | Arnold | cat | red |\n\nNo: {WANTED}",
        f"{MARKDOWN}| 2 | Arnold | cat | red |\n\nNo: {WANTED}".replace("{", r"\{").replace(
            "}", r"\}"
        ),
    ],
)
def test_right_grids(text: str) -> None:
    assert same_grid(text, WANTED)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the cat lives in house 1",
        r"\boxed{}",
        box({"House 1": GRID["House 1"]}),
        box({**GRID, "House 3": GRID["House 1"]}),
        box({"House 1": GRID["House 2"], "House 2": GRID["House 1"]}),
        box({h: {n: v for n, v in c.items() if n != "Pet"} for h, c in GRID.items()}),
        f"{WANTED} no, {json.dumps({'House 1': {'Name': 'Arnold'}})}",
        f"{WANTED}, but \\boxed{{{json.dumps({'House 1': {'Name': 'Arnold'}})}}}",
        f"{MARKDOWN}| 2 | Arnold | cat | red |",
        f"{WANTED}\n\nNo:\n\n{MARKDOWN}| 2 | Arnold | cat | red |",
        box(GRID).replace('"Pet": "cat"', '"Pet": "dog", "pet": "cat"'),
        box(GRID).replace('"Pet": "cat"', '"Pet": "dog", "Pet": "cat"'),
        box({"house 1": GRID["House 2"], **GRID}),
        WANTED.replace("{", '{"House 1": {"Name": "Arnold"}, ', 1),
        box({}),
        box({"House 1": "Eric"}),
        '{"a":' * 20_000,
        "{" * 50_000,
        "|" * 20_000,
    ],
)
def test_other_grids_are_wrong(text: str) -> None:
    assert not same_grid(text, WANTED)


@given(
    st.sampled_from(["House 1", "House 2"]), st.sampled_from(["Name", "Pet", "Color"]), st.text()
)
def test_one_wrong_cell_is_enough(house: str, name: str, value: str) -> None:
    changed = {h: dict(cells) for h, cells in GRID.items()}
    changed[house][name] += value + "x"
    assert grid_in(json.dumps(changed)) == changed
    assert not same_grid(json.dumps(changed), WANTED)


def write(path: Path, rows: list[Any]) -> str:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return str(path)


def test_rows_of_the_grid_mode(tmp_path: Path) -> None:
    suite = from_source("zebralogic", write(tmp_path / "z.json", [ROW]))
    (problem,) = suite.problems
    assert problem.form is AnswerForm.GRID and problem.id == "lgp-2x3-1"
    assert problem.prompt.startswith("There are 2 houses.\n\nGive the whole table as JSON")
    assert '{"House 1": {"Name": "...", "Pet": "...", "Color": "..."}, ...}' in problem.prompt
    assert not any(value in problem.prompt for value in ("Eric", "dog", "red"))
    assert problem.is_answered_by(box(GRID)) and not problem.is_answered_by("cat")
    assert json.loads(problem.answer_in(box(GRID))) == GRID and problem.answer_in("cat") == ""


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({**TABLE, "rows": [["___"] * 4]}, "withheld"),
        ({**TABLE, "rows": [["1", "Eric"]]}, "has not 4 cells"),
        ({**TABLE, "rows": [TABLE["rows"][0]] * 2}, "the same house"),
        ({**TABLE, "rows": []}, "no cells"),
        ({**TABLE, "rows": "none"}, "are no lists"),
    ],
)
def test_tables_that_are_none(table: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=said):
        read_problems(write(tmp_path / "z.json", [{**ROW, "solution": table}]))


# -- other published columns -----------------------------------------------------------------------

AIME_2024 = [
    {"id": 60, "problem": "p?", "solution": r"\boxed{1}", "answer": "204", "year": "2024"},
    {"ID": "2024-I-1", "Problem": "p?", "Solution": "so", "Answer": 204},
    {"ID": "2024-1", "Problem Number": 1, "Question": "p?", "Answer": "204", "Part": "I"},
    {"id": 1, "problem": "p?", "solution": r"\boxed{204}", "url": ""},
    {"Problem": "p?", "Solution": r"Thus \boxed{204}."},
    {"prompt": [{"role": "user", "content": "p?"}], "reward_model": {"ground_truth": "204"}},
    {"QUESTION": "p?", "ANSWER": "204"},
]  # fmt: skip


@pytest.mark.parametrize("row", AIME_2024, ids=lambda row: "-".join(row))
def test_columns_of_aime_2024(row: dict[str, Any], tmp_path: Path) -> None:
    (problem,) = from_source("aime24", write(tmp_path / "a.json", [row])).problems
    assert (problem.prompt, problem.answer) == ("p?", "204")
    if "ID" in row or "id" in row:
        assert problem.id == str(row.get("ID", row.get("id")))


def olympiad(tmp_path: Path, **fields: Any) -> Problem:
    row = {"id": 1, "question": "q?", "final_answer": ["2.5"], "is_multiple_answer": False}
    (problem,) = read_problems(write(tmp_path / "o.json", [row | fields])).problems
    return problem


def test_error_and_unit_of_olympiadbench(tmp_path: Path) -> None:
    exact = olympiad(tmp_path, error=None, unit=None)
    assert exact.is_answered_by(r"\boxed{5/2}") and not exact.is_answered_by(r"\boxed{2.51}")
    near = olympiad(tmp_path, error="1e-1", unit=r"$\mathrm{km}$")
    for right in ("2.6", "2.4", r"2.5\text{ km}", r"2500 \text{ m}", r"\frac{5}{2}"):
        assert near.is_answered_by(rf"\boxed{{{right}}}"), right
    for wrong in ("2.61", r"2.5\text{ m}", r"2.5\text{ kg}", "25", "-2.5"):
        assert not near.is_answered_by(rf"\boxed{{{wrong}}}"), wrong
    assert olympiad(tmp_path, error="0.5,0.1").tolerance.absolute == 0.1
    assert olympiad(tmp_path, error=0.01).tolerance.absolute == 0.01
    assert olympiad(tmp_path, error="").tolerance == exact.tolerance


@pytest.mark.parametrize("error", ["about 1", "-1", "inf"])
def test_an_error_that_is_no_number_is_told(error: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"the error is `{error}`, not a number from 0"):
        olympiad(tmp_path, error=error)


@pytest.mark.parametrize("error", ["about 1", "-1", "inf", 1, 0.5, "2", True])
def test_an_error_of_another_meaning_is_no_tolerance(error: object, tmp_path: Path) -> None:
    row = {"prompt": "p?", "answer": 1, "error": error}
    (problem,) = read_problems(write(tmp_path / "p.json", [row])).problems
    assert problem.tolerance == EXACT


def test_minerva_allows_a_ten_thousandth(tmp_path: Path) -> None:
    row = {"question": "q?", "answer": "1.6e-19"}
    path = write(tmp_path / "m.json", [row])
    measured, plain = from_source("minerva", path), from_source("mine", path)
    named = from_source("Minerva_Math", path)
    for suite, right in ((measured, True), (named, True), (plain, False)):
        assert suite.problems[0].is_answered_by(r"\boxed{1.60012 \times 10^{-19}}") is right
        assert not suite.problems[0].is_answered_by(r"\boxed{1.6004e-19}")
    assert measured.digest != plain.digest
