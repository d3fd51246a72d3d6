"""A trace's graph as lanes of box characters, for a terminal.

━━━━━━┳━1━━━━━━╌╌╌╌╌╌┳━━━━
      ┣━2━━━━━━━━━━━━┫
      ┗━3━━━━╌╌╌╌╌╌╌╌┛
"""

from __future__ import annotations

import textwrap

from nprdsl.pictures.lanes import Lanes, Places, figures, label, lanes, places
from nprdsl.trace.graph import ExecutionGraph, Role, Segment

RUN, WAIT, COPY = "━", "╌", "▒"


def to_text(graph: ExecutionGraph, width: int = 80) -> str:
    """The graph in lines of at most `width` characters: figures, lanes, legend.

    Time runs across. Lanes that do not fit, because a fork, a join or a label may not be left out,
    go on below in further panels. ValueError if `width` is below 20.
    """
    if width < 20:
        raise ValueError(f"a picture of a trace needs 20 columns, not {width}")
    rows, placed = lanes(graph), places(graph, room=width, junction=1, least=_least)
    grid = [[" "] * max(1, placed.width) for _ in range(rows.count)]
    for segment in graph.segments:
        _draw_segment(grid[rows.row[segment.index]], segment, placed)
    _draw_forks(grid, graph, rows, placed)
    _draw_joins(grid, graph, rows, placed)
    lines = [*textwrap.wrap(figures(graph), width), *_panels(grid, width)]
    if graph.joins:
        lines += textwrap.wrap(_legend(graph), width)
    return "\n".join(lines) + "\n"


def _least(segment: Segment) -> int:
    if segment.role is Role.BRANCH:
        return len(label(segment)) + 2
    if segment.role is Role.REREAD:
        return 2 if len(segment) else 0
    return 1 if len(segment) else 0


def _draw_segment(row: list[str], segment: Segment, placed: Places) -> None:
    begin, end = placed.begin[segment.index], placed.end[segment.index]
    row[begin:end] = (COPY if segment.role is Role.REREAD else RUN) * (end - begin)
    if segment.role is Role.BRANCH:
        name = label(segment)
        row[begin + 1 : begin + 1 + len(name)] = name


def _draw_forks(grid: list[list[str]], graph: ExecutionGraph, rows: Lanes, placed: Places) -> None:
    for fork in graph.forks:
        below = [rows.row[first] for first in fork.after] or [rows.row[fork.before]]
        _draw_bar(grid, below, placed.fork[fork.index], "┳┣┗")


def _draw_joins(grid: list[list[str]], graph: ExecutionGraph, rows: Lanes, placed: Places) -> None:
    for join in graph.joins:
        column = placed.join[join.index]
        below = [rows.row[last] for last in join.before] or [rows.row[join.after]]
        for last in join.before:
            end = placed.end[last]
            grid[rows.row[last]][end:column] = WAIT * (column - end)
        _draw_bar(grid, below, column, "┳┫┛")


def _draw_bar(grid: list[list[str]], below: list[int], column: int, corners: str) -> None:
    """A fork or join in one column, over the lanes `below`; `corners`: first, between, last."""
    if column >= len(grid[0]):
        return  # a trace cut short at a fork
    if len(below) == 1:
        grid[below[0]][column] = "╂"
        return
    for row in range(below[0], below[-1]):
        grid[row][column] = corners[1] if row in below else "┃"
    grid[below[0]][column], grid[below[-1]][column] = corners[0], corners[2]


def _panels(grid: list[list[str]], width: int) -> list[str]:
    lines: list[str] = []
    for begin in range(0, len(grid[0]), width):
        panel = ("".join(row[begin : begin + width]).rstrip() for row in grid)
        lines += ["", *(line for line in panel if line)]
    return [*lines, ""]


def _legend(graph: ExecutionGraph) -> str:
    legend = f"{RUN} produced  {WAIT} waits for the join"
    if any(segment.role is Role.REREAD for segment in graph.segments):
        legend += f"  {COPY} read again"
    return legend
