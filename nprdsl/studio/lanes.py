"""The lanes of an execution graph as a page draws them: where segments stand, what each sees.

In goes a graph, finished or cut short in the middle of a generation; out comes a model for JSON.
Lanes and time axis are those of `nprdsl.pictures`, what sees what is that of the layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from nprdsl.grammar.ir import Block
from nprdsl.pictures.svg import TINTS
from nprdsl.pictures.trace_pictures import TimeAxis, caption, lanes, steps, time_axis
from nprdsl.trace.graph import ExecutionGraph, Role, Segment
from nprdsl.trace.layout import Layout

WIDTH: Final = 1000  # at least, in the units of `SegmentView.x`
_BLOCK: Final = 180  # of a block of the trunk, on average
_JUNCTION: Final = 16
_LEAST: Final = {Role.TRUNK: 20, Role.BRANCH: 30, Role.JOIN: 20, Role.REREAD: 20}

Run = tuple[int, int]
JunctionKind = Literal["fork", "join"]


class StudioView(BaseModel):
    """What all models of the pages have: they are values, and nothing else is in them."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SegmentView(StudioView):
    """A segment, where it is drawn, and which segments its entries see.

    start, end: entries; pieces: the first and the one behind the last; units: of the trace, so none
    for what is read again. x: begin and end on the time axis. tint: which colour, -1 for none.
    sees: runs of segments (first, last) before this one.
    """

    start: int
    end: int
    pieces: Run
    units: int
    position: int
    role: Role
    rule: str
    label: str
    caption: str
    depth: int
    tint: int
    lane: int
    x: Run
    sees: tuple[Run, ...]


class JunctionView(StudioView):
    """A fork or a join: where it stands, which lanes it spans, its branches' first or last
    segments, and how many units had been produced one after another by then. waits: the lane of
    each branch before a join, and where it ends."""

    kind: JunctionKind
    rule: str
    join: str
    x: int
    lanes: Run
    step: int
    segments: tuple[int, ...]
    waits: tuple[Run, ...] = ()


class LanesView(StudioView):
    """Where the segments and junctions of a graph are drawn: `count` lanes, `width` wide."""

    unit: str
    tokens: int
    prompt: int
    entries: int
    critical_path: int
    degree: float
    depth: int
    most_branches: int
    count: int
    width: int
    segments: tuple[SegmentView, ...]
    junctions: tuple[JunctionView, ...]


def lanes_view(graph: ExecutionGraph, piece: Callable[[int], int] = int) -> LanesView:
    """`piece` gives the piece that begins at a unit; they are the same in token traces."""
    blocks = sum(not graph.segments[fork.before].path for fork in graph.forks)
    width = max(WIDTH, _BLOCK * blocks)
    axis = time_axis(graph, width=width, junction=_JUNCTION, least=_least)
    places, sees = lanes(graph), _sees(graph)
    return LanesView(
        unit=graph.unit,
        tokens=graph.tokens,
        prompt=graph.prompt,
        entries=graph.entries,
        critical_path=graph.critical_path,
        degree=round(graph.degree, 4),
        depth=graph.depth,
        most_branches=graph.max_width,
        count=max(places) + 1,
        width=max(1, axis.width),
        segments=tuple(
            SegmentView(
                start=segment.start,
                end=segment.end,
                pieces=(piece(segment.source_start), piece(segment.source_end)),
                units=steps(graph, segment),
                position=segment.position,
                role=segment.role,
                rule=segment.rule,
                label=segment.label,
                caption=caption(segment),
                depth=len(segment.path),
                tint=_tint(segment),
                lane=places[segment.index],
                x=(axis.begin[segment.index], axis.end[segment.index]),
                sees=sees[segment.index],
            )
            for segment in graph.segments
        ),
        junctions=tuple(_junctions(graph, places, axis)),
    )


def _least(segment: Segment) -> int:
    return _LEAST[segment.role] if len(segment) else 0


def _tint(segment: Segment) -> int:
    """As the SVG has it: a nested branch takes up where its parent's tint stands."""
    return sum(branch for _, branch in segment.path) % len(TINTS) if segment.path else -1


def _junctions(
    graph: ExecutionGraph, places: tuple[int, ...], axis: TimeAxis
) -> Iterator[JunctionView]:
    def junction(
        kind: JunctionKind, block: Block, x: int, step: int, trunk: int, ends: tuple[int, ...]
    ) -> JunctionView:
        spanned = [places[end] for end in ends] or [places[trunk]]
        return JunctionView(
            kind=kind,
            rule=block.rule,
            join=block.join.value,
            x=x,
            lanes=(spanned[0], spanned[-1]),
            step=step - graph.prompt,
            segments=ends,
            waits=tuple((places[end], axis.end[end]) for end in ends if kind == "join"),
        )

    for fork in graph.forks:
        x, step = axis.fork[fork.index], graph.segments[fork.before].end_step
        yield junction("fork", fork.block, x, step, fork.before, fork.after)
    for join in graph.joins:
        x, step = axis.join[join.index], graph.segments[join.after].step
        yield junction("join", join.block, x, step, join.after, join.before)


def _sees(graph: ExecutionGraph) -> list[tuple[Run, ...]]:
    """For each segment the runs of segments before it that its first entry sees: two entries of
    one segment are seen by the same others."""
    layout = Layout.from_graph(graph, np.zeros(graph.length, np.bool_))
    filled = np.array([s.index for s in graph.segments if len(s)], np.int64)
    first = np.array([s.start for s in graph.segments if len(s)], np.int64)
    order, mirror, until = layout.order[first], layout.mirror[first], layout.until[first]
    seen: list[tuple[Run, ...]] = [()] * len(graph.segments)
    for rank, segment in enumerate(filled.tolist()):
        visible = (order[:rank] < order[rank]) & (order[rank] < until[:rank])
        seen[segment] = _runs_of(visible & (mirror[:rank] <= mirror[rank]), filled)
    return seen


def _runs_of(visible: NDArray[np.bool_], segments: NDArray[np.int64]) -> tuple[Run, ...]:
    return tuple(
        (int(segments[first]), int(segments[behind - 1])) for first, behind in runs(visible)
    )


def runs(flags: NDArray[np.bool_]) -> list[Run]:
    """[begin, behind the end) of the stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
