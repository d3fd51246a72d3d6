"""Pictures of an execution graph: box characters for a terminal, SVG, and Mermaid.

A live branch is a horizontal lane, and time runs across: the first branch of a block goes on in the
lane of the branch that forked, the others lie below it. Widths are proportional to the number of
units (characters or tokens), except that a segment is never narrower than what is written on it
and that forks and joins take some width of their own. In Mermaid every segment is a node instead.

    ━━━━━━┳━1━━━━━━╌╌╌╌╌╌┳━━━━
          ┣━2━━━━━━━━━━━━┫
          ┗━3━━━━╌╌╌╌╌╌╌╌┛
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nprdsl.pictures.svg import (
    FAINT,
    INK,
    LINE,
    PLAIN,
    TINTS,
    Drawing,
    fit,
    mermaid_label,
    text_width,
)
from nprdsl.trace.graph import ExecutionGraph, Role, Segment

RUN, WAIT, COPY = "━", "╌", "▒"
MARGIN, TOP, JUNCTION, GAP = 20, 58, 14, 10
_NAMED = 96  # pixels of a branch, at most, so that it can be named
PROMPT = 92  # width of the prompt, which is not to scale


def lanes(graph: ExecutionGraph) -> tuple[int, ...]:
    """The lane of each segment, counted from the top."""
    branches = _branches(graph)
    height = dict.fromkeys(branches, 1)
    for fork in reversed(graph.forks):
        parent = branches[fork.before]
        height[parent] = max(height[parent], sum(height[first] for first in fork.after))
    lane = {0: 0}
    for fork in graph.forks:
        free = lane[branches[fork.before]]
        for first in fork.after:
            lane[first] = free
            free += height[first]
    return tuple(lane[branch] for branch in branches)


def _branches(graph: ExecutionGraph) -> list[int]:
    """For each segment the first segment of its branch; 0 for the trunk."""
    before = {fork.index: fork.before for fork in graph.forks}
    forked = {join.after: before[join.index] for join in graph.joins}
    branches: list[int] = []
    for segment in graph.segments:
        if segment.role is Role.TRUNK or segment.role is Role.BRANCH:
            branches.append(segment.index)
        else:
            source = forked.get(segment.index, segment.parents[0])
            branches.append(branches[source])
    return branches


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """Columns: `begin` and `end` of each segment, `fork` and `join` of each block by its index;
    `width` of the whole."""

    begin: tuple[int, ...]
    end: tuple[int, ...]
    fork: dict[int, int]
    join: dict[int, int]
    width: int


def time_axis(
    graph: ExecutionGraph, *, width: int, junction: int, least: Callable[[Segment], int]
) -> TimeAxis:
    """Spread the graph over `width`; wider only where the least widths do not fit into it.

    A fork and a join are `junction` wide, a segment at least `least` of it.
    """
    low, high = 0.0, width / max(1, graph.critical_path)
    best = _scaled(graph, high, junction, least)
    if best.width <= width:
        return best
    best = _scaled(graph, low, junction, least)
    for _ in range(12):
        middle = (low + high) / 2
        axis = _scaled(graph, middle, junction, least)
        if axis.width <= width:
            low, best = middle, axis
        else:
            high = middle
    return best


def _scaled(
    graph: ExecutionGraph, scale: float, junction: int, least: Callable[[Segment], int]
) -> TimeAxis:
    forks = {fork.before: fork for fork in graph.forks}
    forked = {first: fork for fork in graph.forks for first in fork.after}
    joined = {join.after: join for join in graph.joins}
    begin: list[int] = []
    end: list[int] = []
    at_fork: dict[int, int] = {}
    at_join: dict[int, int] = {}
    for segment in graph.segments:
        index = segment.index
        if index in forked:
            begin.append(at_fork[forked[index].index] + junction)
        elif index in joined:
            join = joined[index]
            ends = [at_fork[join.index] + junction, *(end[last] for last in join.before)]
            at_join[join.index] = max(ends)
            begin.append(at_join[join.index] + junction)
        else:
            begin.append(end[segment.parents[0]] if segment.parents else 0)
        size = max(least(segment), int(scale * steps(graph, segment)))
        end.append(begin[index] + size)
        if index in forks:
            at_fork[forks[index].index] = end[index]
    return TimeAxis(tuple(begin), tuple(end), at_fork, at_join, max(end))


def steps(graph: ExecutionGraph, segment: Segment) -> int:
    """Units of the trace that the segment adds to its path; none for what is read again."""
    return segment.end_step - max(segment.step, graph.prompt if not segment.index else 0)


def caption(segment: Segment) -> str:
    """`step 2` for a branch: its rule and its label, or its number where it has none."""
    if segment.role is Role.REREAD:
        return "read again"
    if segment.role is not Role.BRANCH:
        return ""
    return f"{segment.rule} {label(segment)}".strip()


def label(segment: Segment) -> str:
    return segment.label or str(segment.path[-1][1] + 1)


def figures(graph: ExecutionGraph) -> str:
    """The figures of a graph in one line."""
    width = graph.max_width
    return (
        f"{graph.tokens} {graph.unit}, critical path {graph.critical_path}, "
        f"degree {graph.degree:.2f}, depth {graph.depth}, "
        f"at most {width} {'branch' if width == 1 else 'branches'} at once"
    )


# -- for a terminal --------------------------------------------------------------------------------


def to_text(graph: ExecutionGraph, width: int = 80) -> str:
    """The graph in lines of at most `width` characters: figures, lanes, legend.

    Time runs across. Lanes that do not fit, because a fork, a join or a label may not be left out,
    go on below in further panels. ValueError if `width` is below 20.
    """
    if width < 20:
        raise ValueError(f"a picture of a trace needs 20 columns, not {width}")
    lane_of, axis = lanes(graph), time_axis(graph, width=width, junction=1, least=_least_columns)
    grid = [[" "] * max(1, axis.width) for _ in range(max(lane_of) + 1)]
    for segment in graph.segments:
        _draw_segment(grid[lane_of[segment.index]], segment, axis)
    _draw_junctions(grid, graph, lane_of, axis)
    lines = [*textwrap.wrap(figures(graph), width), *_panels(grid, width)]
    if graph.joins:
        lines += textwrap.wrap(_legend(graph), width)
    return "\n".join(lines) + "\n"


def _least_columns(segment: Segment) -> int:
    if segment.role is Role.BRANCH:
        return len(label(segment)) + 2
    if segment.role is Role.REREAD:
        return 2 if len(segment) else 0
    return 1 if len(segment) else 0


def _draw_segment(line: list[str], segment: Segment, axis: TimeAxis) -> None:
    begin, end = axis.begin[segment.index], axis.end[segment.index]
    line[begin:end] = (COPY if segment.role is Role.REREAD else RUN) * (end - begin)
    if segment.role is Role.BRANCH:
        name = label(segment)
        line[begin + 1 : begin + 1 + len(name)] = name


def _draw_junctions(
    grid: list[list[str]], graph: ExecutionGraph, lane: Sequence[int], axis: TimeAxis
) -> None:
    for fork in graph.forks:
        below = [lane[first] for first in fork.after] or [lane[fork.before]]
        _draw_bar(grid, below, axis.fork[fork.index], "┳┣┗")
    for join in graph.joins:
        column = axis.join[join.index]
        below = [lane[last] for last in join.before] or [lane[join.after]]
        for last in join.before:
            end = axis.end[last]
            grid[lane[last]][end:column] = WAIT * (column - end)
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


# -- SVG -------------------------------------------------------------------------------------------


class _TraceDrawing:
    """One SVG of one graph. Numbers on top count the units that had been produced one after another
    by then; the last is the critical path."""

    def __init__(
        self,
        graph: ExecutionGraph,
        text: Sequence[str] | None,
        width: int,
        tags: re.Pattern[str] | None,
    ) -> None:
        self.graph = graph
        self.text = text
        self.tags = tags
        self.drawing = Drawing()
        self.height = 26 if text is None else 40  # of a bar
        self.left = MARGIN + (PROMPT + 4 if graph.prompt else 0)
        self.lanes = lanes(graph)
        width = max(100, width - self.left - MARGIN)
        self.axis = time_axis(graph, width=width, junction=JUNCTION, least=_least_pixels)

    def draw(self) -> str:
        graph, drawing = self.graph, self.drawing
        drawing.text(MARGIN, 26, figures(graph), fill=FAINT)
        if graph.prompt:
            fill = drawing.hatch(LINE)
            y = self._y(0)
            drawing.rect(MARGIN, y, PROMPT, self.height, fill=fill, stroke=LINE, radius=4)
            self._caption(MARGIN, y, PROMPT, "prompt", str(graph.prompt), "")
        for join in graph.joins:
            self._waits(join.before, self.axis.join[join.index])
        for segment in graph.segments:
            if steps(graph, segment) or segment.role is Role.REREAD:
                self._segment(segment)
        self._junctions()
        self._clock()
        bottom = self._y(max(self.lanes) + 1) + 14
        self._legend(bottom)
        width = self.left + self.axis.width + MARGIN
        return drawing.document(max(width, 420), bottom + 26, f"Trace of {figures(graph)}")

    def _y(self, lane: int) -> float:
        return TOP + lane * (self.height + GAP)

    def _segment(self, segment: Segment) -> None:
        x = self.left + self.axis.begin[segment.index]
        width = self.axis.end[segment.index] - self.axis.begin[segment.index]
        y = self._y(self.lanes[segment.index])
        fill, stroke = self._tint(segment)
        copy = segment.role is Role.REREAD
        fill = self.drawing.hatch(stroke) if copy else fill
        source = self._source(segment)
        self.drawing.rect(
            x, y, width, self.height, fill=fill, stroke=stroke, radius=4, dashed=copy,
            title=self._title(segment, source),
        )  # fmt: skip
        size = str(len(segment)) if copy else str(steps(self.graph, segment))
        name = caption(segment)
        if segment.role is Role.BRANCH and text_width(name, 11) > width - 10:
            name = label(segment)
        self._caption(x, y, width, name, size, "" if copy else self._said(source))

    def _caption(self, x: float, y: float, width: float, name: str, size: str, source: str) -> None:
        """The name in bold, the size behind it and the text below, each if there is room."""
        inside, drawing = width - 10, self.drawing
        used = text_width(f"{name} ", 11) if name else 0
        if name and used <= inside + 7:
            drawing.text(x + 5, y + 17, name, size=11, bold=True)
        if size and used + text_width(size, 11) <= inside:
            drawing.text(x + 5 + used, y + 17, size, size=11, fill=FAINT)
        if self.text is not None and fit(source, inside, 10):
            drawing.text(x + 5, y + 32, fit(source, inside, 10), size=10, fill=FAINT)

    def _source(self, segment: Segment) -> str:
        if self.text is None:
            return ""
        start = max(segment.source_start, self.graph.prompt)
        return "".join(self.text[start : segment.source_end])

    def _said(self, source: str) -> str:
        return source if self.tags is None else self.tags.sub(" ", source)

    def _title(self, segment: Segment, source: str) -> str:
        size = f"{steps(self.graph, segment) or len(segment)} {self.graph.unit}"
        first = segment.position + len(segment) - (steps(self.graph, segment) or len(segment))
        last = segment.position + len(segment) - 1
        name = caption(segment)
        head = f"{name}: {size}" if name else size
        return f"{head}, positions {first} to {last}" + (f"\n{source}" if source else "")

    def _tint(self, segment: Segment) -> tuple[str, str]:
        if not segment.path:
            return PLAIN
        # a nested branch takes up where its parent's tint stands, so that neighbours differ
        return TINTS[sum(branch for _, branch in segment.path) % len(TINTS)]

    def _waits(self, lasts: tuple[int, ...], x: int) -> None:
        for last in lasts:
            y = self._y(self.lanes[last]) + self.height / 2
            end = self.axis.end[last]
            if end < x:
                self.drawing.line(
                    self.left + end, y, self.left + x + 5, y, stroke=LINE, dashed=True
                )

    def _clock(self) -> None:
        """How many steps the trunk's forks, joins and its end are from the beginning."""
        graph, free = self.graph, 0.0
        segments, axis = graph.segments, self.axis
        ends = [(segments[fork.before], axis.fork[fork.index]) for fork in graph.forks]
        begins = [(segments[join.after], axis.join[join.index]) for join in graph.joins]
        marks = [(segment.end_step, at) for segment, at in ends if not segment.path]
        marks += [(segment.step, at) for segment, at in begins if not segment.path]
        last = max(segment.end_step for segment in segments)
        for step, at in [*sorted(marks), (last, axis.width)]:
            number, x = str(step - graph.prompt), self.left + at + JUNCTION / 2
            if at == axis.width:
                x -= JUNCTION / 2 + text_width(number, 10) / 2
            if x - text_width(number, 10) / 2 >= free:
                self.drawing.text(x, TOP - 9, number, size=10, fill=FAINT, anchor="middle")
                free = x + text_width(number, 10) / 2 + 4

    def _junctions(self) -> None:
        for fork in self.graph.forks:
            below = [self.lanes[first] for first in fork.after]
            step = self.graph.segments[fork.before].end_step
            self._junction(self.axis.fork[fork.index], below, step)
        for join in self.graph.joins:
            below = [self.lanes[last] for last in join.before]
            step = self.graph.segments[join.after].step
            self._junction(self.axis.join[join.index], below, step)

    def _junction(self, at: int, below: list[int], step: int) -> None:
        """A dark bar over the lanes `below`."""
        if not below:
            return
        x, y = self.left + at + JUNCTION / 2 - 2, self._y(below[0]) - 4
        bottom = self._y(below[-1]) + self.height + 4
        now = step - self.graph.prompt
        title = f"after {now} {self.graph.unit} one after another"
        self.drawing.rect(x, y, 4, bottom - y, fill=INK, radius=2, title=title)

    def _legend(self, y: float) -> None:
        x: float = MARGIN
        if self.graph.joins:
            self.drawing.line(x, y - 4, x + 24, y - 4, stroke=LINE, dashed=True)
            self.drawing.text(x + 30, y, "waits for the join", size=11, fill=FAINT)
            x += 30 + text_width("waits for the join", 11) + 20
        if any(segment.role is Role.REREAD for segment in self.graph.segments):
            fill, stroke = self.drawing.hatch(PLAIN[1]), PLAIN[1]
            self.drawing.rect(x, y - 10, 24, 12, fill=fill, stroke=stroke, radius=3, dashed=True)
            self.drawing.text(x + 30, y, "read again, not produced", size=11, fill=FAINT)


def _least_pixels(segment: Segment) -> int:
    if not len(segment):
        return 0
    if segment.role is not Role.BRANCH:
        return 18
    return max(24, min(_NAMED, int(text_width(caption(segment), 11)) + 11))


def to_svg(
    graph: ExecutionGraph,
    text: Sequence[str] | None = None,
    *,
    width: int = 1000,
    tags: re.Pattern[str] | None = None,
) -> str:
    """The graph as one SVG document, about `width` pixels wide, wider where it must be.

    `text` holds the units of the trace, prompt included: a string where they are characters, the
    tokens' texts where they are tokens. With it bars show how their text begins, without the `tags`
    in it, and all of it as a tooltip. ValueError if there are not `graph.length` of them.
    """
    if text is not None and len(text) != graph.length:
        raise ValueError(f"the text has {len(text)} {graph.unit}, the graph {graph.length}")
    return _TraceDrawing(graph, text, width, tags).draw()


# -- Mermaid ---------------------------------------------------------------------------------------


def to_mermaid(graph: ExecutionGraph) -> str:
    """The graph as Mermaid text. An empty segment is a dot, a copy has a dashed border, and the
    dotted arrows lead from the branches of a `reread` join to the copy that is made of them."""
    lines = [f"%% {figures(graph)}", "flowchart LR"]
    lines += [f"    s{segment.index}{_shape(graph, segment)}" for segment in graph.segments]
    for segment in graph.segments:
        lines += [f"    s{parent} --> s{segment.index}" for parent in segment.parents]
    copies = [join for join in graph.joins if graph.segments[join.after].role is Role.REREAD]
    for join in copies:
        lines += [f"    s{last} -.-> s{join.after}" for last in join.before]
    if copies:
        lines.append("    classDef copy stroke-dasharray: 4 3")
        lines.append(f"    class {','.join(f's{join.after}' for join in copies)} copy")
    return "\n".join(lines) + "\n"


def _shape(graph: ExecutionGraph, segment: Segment) -> str:
    if not len(segment):
        return "(( ))"
    name = caption(segment) or ("begin" if segment.role is Role.TRUNK else "")
    size = f"{len(segment)} {graph.unit}"
    if segment.role is Role.TRUNK and graph.prompt:
        size += f"\n{graph.prompt} of them prompt"
    text = mermaid_label(f"{name}\n{size}" if name else size)
    return f'["{text}"]'
