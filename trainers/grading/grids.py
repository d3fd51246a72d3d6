"""Puzzles whose answer is a table, graded cell by cell (ZebraLogic's grid mode, arXiv 2502.01100).

The table of a data set (`header`, `rows`) becomes a *grid*: {house: {attribute: value}} as JSON.
`grid_in` finds the last grid of a text, as JSON or as a table of Markdown; it is right if it has
every cell of the wanted one, and no cell twice with different values.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from nprdsl.trainers.grading.answers import answer_of
from nprdsl.trainers.grading.limit import within

Grid = dict[str, dict[str, str]]

SECONDS: Final = 5.0
TASK: Final = (
    "Give the whole table as JSON, in a box: \\boxed{{{example}}}, with every house and attribute."
)
_LAST: Final = 200_000  # characters at the end of a text in which a grid is looked for
_ESCAPED: Final = re.compile(r"\\([{}_\"$%&#])")
_TABLE: Final = re.compile(r"(?:^[ \t]*\|.*\|[ \t]*$\n?){2,}", re.M)
_RULE: Final = re.compile(r"\|?[\s:|-]+\|?")
_HOUSE: Final = re.compile(r"(?:house)?[\s_#]*(\d+)", re.I)
_HIDDEN: Final = re.compile(r"[_*?\s]*")


def grid_of(header: Sequence[Any], rows: Sequence[Any]) -> Grid:
    """The grid of a table whose first column names the house. ValueError where it is no table, or
    its cells are withheld."""
    names = [str(name).strip() for name in header]
    if len(names) < 2 or not rows:
        raise ValueError("the table of the solution has no cells")
    grid: Grid = {}
    for row in rows:
        if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != len(names):
            raise ValueError(f"a row of the solution has not {len(names)} cells, as the header has")
        cells = [str(cell).strip() for cell in row]
        if any(map(_HIDDEN.fullmatch, cells)):
            raise ValueError("the cells of the solution are withheld in this copy of the data")
        grid[_house(cells[0])] = dict(zip(names[1:], cells[1:], strict=True))
    if len(grid) < len(rows):
        raise ValueError("two rows of the solution are about the same house")
    return grid


def task_of(grid: Grid) -> str:
    """What is asked for, with the names of houses and attributes, and no value."""
    house, cells = next(iter(grid.items()))
    shown = json.dumps({house: dict.fromkeys(cells, "...")}, ensure_ascii=False)
    return TASK.format(example=f"{shown[:-1]}, ...{shown[-1]}")


def grid_in(text: str) -> Grid | None:
    """The last grid of a text; what stands in its last box goes first."""
    boxed = answer_of(text)
    places = [text[-_LAST:]] if boxed is None else [boxed[-_LAST:], text[-_LAST:]]
    nothing: list[list[Grid]] = []
    found = within(SECONDS, lambda: [_grids(place) for place in places], nothing)
    return next((grids[-1] for grids in found if grids), None)


def same_grid(text: str, wanted: str) -> bool:
    """Whether the last grid of the text has every cell of the wanted one, in JSON."""
    given, right = grid_in(text), json.loads(wanted)
    if given is None or len(given) != len(right):
        return False
    cells = _cells(given)
    return cells >= _cells(right) and len({(house, name) for house, name, _ in cells}) == len(cells)


def _cells(grid: Mapping[str, Mapping[str, Any]]) -> set[tuple[str, str, str]]:
    return {
        (_house(house), _fold(name), _fold(value))
        for house, cells in grid.items()
        for name, value in cells.items()
    }


def _house(name: object) -> str:
    """`1`, `house_1` and `House #1` are one."""
    text = " ".join(str(name).split())
    match = _HOUSE.fullmatch(text)
    return text.capitalize() if match is None else f"House {match[1]}"


def _fold(value: object) -> str:
    return " ".join(str(value).replace("_", " ").split()).casefold()


def _grids(text: str) -> list[Grid]:
    """The grids of a text in order, as tables and as JSON, also with LaTeX's backslashes in it."""
    found = [(m.start(), grid) for m in _TABLE.finditer(text) for grid in _from_table(m[0])]
    found += _in_json(text)
    escapes = [m.start() - number for number, m in enumerate(_ESCAPED.finditer(text))]
    if escapes:
        bare = _in_json(_ESCAPED.sub(r"\1", text))
        found += [(at + bisect_left(escapes, at), grid) for at, grid in bare]
    return [grid for _, grid in sorted(found, key=lambda one: one[0])]


def _in_json(text: str) -> Iterator[tuple[int, Grid]]:
    """The grids of a text, and where they begin."""
    at, decoder = text.find("{"), json.JSONDecoder(object_pairs_hook=_once)
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            if (grid := _from_json(value)) is not None:
                yield at, grid
        at = text.find("{", end)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a key that stands twice with different values has neither."""
    value: dict[str, Any] = {}
    for name, one in pairs:
        value[name] = one if value.get(name, one) == one else f"{value[name]} or {one}"
    return value


def _from_json(value: Any) -> Grid | None:
    if isinstance(value, Mapping) and isinstance(value.get("solution"), Mapping):
        value = value["solution"]
    if not isinstance(value, Mapping) or not value:
        return None
    if set(value) == {"header", "rows"}:
        try:
            return grid_of(value["header"], value["rows"])
        except (ValueError, TypeError):
            return None
    if not all(isinstance(cells, Mapping) for cells in value.values()):
        return None
    twice = len({_house(name) for name in value}) < len(value)
    return {
        str(house) if twice else _house(house): {str(n): str(v) for n, v in cells.items()}
        for house, cells in value.items()
    }


def _from_table(table: str) -> Iterator[Grid]:
    lines = [line.strip() for line in table.strip().splitlines()]
    rows = [
        [cell.strip().strip("*").strip() for cell in line.strip("|").split("|")]
        for line in lines
        if not _RULE.fullmatch(line)
    ]
    if len(rows) > 1:
        try:
            yield grid_of(rows[0], rows[1:])
        except ValueError:
            return
