"""A trace's graph as SVG: lanes of bars, time across, a dark bar for every fork and join.

The numbers on top count the units that had been produced one after another by then; the last one is
the critical path.
"""

from __future__ import annotations

from collections.abc import Sequence

from nprdsl.pictures.lanes import Lanes, Places, caption, figures, label, lanes, places, steps
from nprdsl.pictures.svg import (
    FAINT,
    INK,
    LINE,
    PLAIN,
    TINTS,
    Drawing,
    fit,
    text_width,
)
from nprdsl.trace.graph import ExecutionGraph, Role, Segment

MARGIN, TOP, JUNCTION, GAP = 20, 58, 14, 10
PROMPT = 92  # width of the prompt, which is not to scale


class _Picture:
    def __init__(self, graph: ExecutionGraph, text: Sequence[str] | None, width: int) -> None:
        self.graph = graph
        self.text = text
        self.drawing = Drawing()
        self.height = 26 if text is None else 40  # of a bar
        self.left = MARGIN + (PROMPT + 4 if graph.prompt else 0)
        self.rows: Lanes = lanes(graph)
        room = max(100, width - self.left - MARGIN)
        self.places: Places = places(graph, room=room, junction=JUNCTION, least=_least)

    def draw(self) -> str:
        graph, drawing = self.graph, self.drawing
        drawing.text(MARGIN, 26, figures(graph), fill=FAINT)
        if graph.prompt:
            fill = drawing.hatch(LINE)
            y = self._y(0)
            drawing.rect(MARGIN, y, PROMPT, self.height, fill=fill, stroke=LINE, radius=4)
            self._caption(MARGIN, y, PROMPT, "prompt", str(graph.prompt), "")
        for join in graph.joins:
            self._waits(join.before, self.places.join[join.index])
        for segment in graph.segments:
            if steps(graph, segment) or segment.role is Role.REREAD:
                self._segment(segment)
        self._junctions()
        self._clock()
        bottom = self._y(self.rows.count) + 14
        self._legend(bottom)
        width = self.left + self.places.width + MARGIN
        return drawing.document(max(width, 420), bottom + 26, f"Trace of {figures(graph)}")

    def _y(self, row: int) -> float:
        return TOP + row * (self.height + GAP)

    def _segment(self, segment: Segment) -> None:
        x = self.left + self.places.begin[segment.index]
        width = self.places.end[segment.index] - self.places.begin[segment.index]
        y = self._y(self.rows.row[segment.index])
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
        if segment.role is Role.BRANCH and text_width(f"{name} {size}", 11) > width - 10:
            name = label(segment)
        self._caption(x, y, width, name, size, "" if copy else source)

    def _caption(self, x: float, y: float, width: float, name: str, size: str, source: str) -> None:
        """The name in bold, the size behind it and the text below, each if there is room."""
        room, drawing = width - 10, self.drawing
        used = text_width(f"{name} ", 11) if name else 0
        if name and used <= room + 7:
            drawing.text(x + 5, y + 17, name, size=11, bold=True)
        if size and used + text_width(size, 11) <= room:
            drawing.text(x + 5 + used, y + 17, size, size=11, fill=FAINT)
        if self.text is not None and fit(source, room, 10):
            drawing.text(x + 5, y + 32, fit(source, room, 10), size=10, fill=FAINT)

    def _source(self, segment: Segment) -> str:
        if self.text is None:
            return ""
        start = max(segment.source_start, self.graph.prompt)
        return "".join(self.text[start : segment.source_end])

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
            y = self._y(self.rows.row[last]) + self.height / 2
            end = self.places.end[last]
            if end < x:
                self.drawing.line(
                    self.left + end, y, self.left + x + 5, y, stroke=LINE, dashed=True
                )

    def _clock(self) -> None:
        """How many steps the trunk's forks, joins and its end are from the beginning."""
        graph, free = self.graph, 0.0
        segments, placed = graph.segments, self.places
        ends = [(segments[fork.before], placed.fork[fork.index]) for fork in graph.forks]
        begins = [(segments[join.after], placed.join[join.index]) for join in graph.joins]
        marks = [(segment.end_step, at) for segment, at in ends if not segment.path]
        marks += [(segment.step, at) for segment, at in begins if not segment.path]
        last = max(segment.end_step for segment in segments)
        for step, at in [*sorted(marks), (last, placed.width)]:
            number, x = str(step - graph.prompt), self.left + at + JUNCTION / 2
            if at == self.places.width:
                x -= JUNCTION / 2 + text_width(number, 10) / 2
            if x - text_width(number, 10) / 2 >= free:
                self.drawing.text(x, TOP - 9, number, size=10, fill=FAINT, anchor="middle")
                free = x + text_width(number, 10) / 2 + 4

    def _junctions(self) -> None:
        for fork in self.graph.forks:
            rows = [self.rows.row[first] for first in fork.after]
            step = self.graph.segments[fork.before].end_step
            self._junction(self.places.fork[fork.index], rows, step)
        for join in self.graph.joins:
            rows = [self.rows.row[last] for last in join.before]
            step = self.graph.segments[join.after].step
            self._junction(self.places.join[join.index], rows, step)

    def _junction(self, at: int, rows: list[int], step: int) -> None:
        if not rows:
            return
        x, y = self.left + at + JUNCTION / 2 - 2, self._y(rows[0]) - 4
        bottom = self._y(rows[-1]) + self.height + 4
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


def _least(segment: Segment) -> int:
    if not len(segment):
        return 0
    return 24 if segment.role is Role.BRANCH else 18


def to_svg(graph: ExecutionGraph, text: Sequence[str] | None = None, *, width: int = 1000) -> str:
    """The graph as one SVG document, about `width` pixels wide, wider where it must be.

    `text` holds the units of the trace, prompt included: a string where they are characters, the
    tokens' texts where they are tokens. With it bars show how their text begins and all of it as a
    tooltip. ValueError if there are not `graph.length` of them.
    """
    if text is not None and len(text) != graph.length:
        raise ValueError(f"the text has {len(text)} {graph.unit}, the graph {graph.length}")
    return _Picture(graph, text, width).draw()
