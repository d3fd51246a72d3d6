"""Where the segments of a graph go in a picture: a lane for every live branch, time across.

The first branch of a block goes on in the lane of the branch that forked, the others lie below it.
Widths are proportional to the number of units, except that a segment is never narrower than its
caller says and that a fork and a join take room of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nprdsl.trace.graph import ExecutionGraph, Fork, Join, Role, Segment


@dataclass(frozen=True, slots=True)
class Lanes:
    """row: of each segment; count: how many there are; branches: for each segment the first
    segment of the branch that it lies on (0 for the trunk)."""

    row: tuple[int, ...]
    count: int
    branches: tuple[int, ...]


def lanes(graph: ExecutionGraph) -> Lanes:
    branches = _branches(graph)
    height = dict.fromkeys(branches, 1)
    for fork in reversed(graph.forks):
        parent = branches[fork.before]
        height[parent] = max(height[parent], sum(height[first] for first in fork.after))
    row = {0: 0}
    for fork in graph.forks:
        free = row[branches[fork.before]]
        for first in fork.after:
            row[first] = free
            free += height[first]
    return Lanes(tuple(row[branch] for branch in branches), height[0], tuple(branches))


def _branches(graph: ExecutionGraph) -> list[int]:
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
class Places:
    """begin, end: of each segment; fork, join: of each block by its index; width: of all."""

    begin: tuple[int, ...]
    end: tuple[int, ...]
    fork: dict[int, int]
    join: dict[int, int]
    width: int


def places(
    graph: ExecutionGraph, *, room: int, junction: int, least: Callable[[Segment], int]
) -> Places:
    """Spread the graph over `room`; wider only where the least widths do not fit into it."""
    low, high = 0.0, room / max(1, graph.critical_path)
    best = _place(graph, high, junction, least)
    if best.width <= room:
        return best
    best = _place(graph, low, junction, least)
    for _ in range(12):
        middle = (low + high) / 2
        placed = _place(graph, middle, junction, least)
        if placed.width <= room:
            low, best = middle, placed
        else:
            high = middle
    return best


def _place(
    graph: ExecutionGraph, scale: float, junction: int, least: Callable[[Segment], int]
) -> Places:
    forks = {fork.before: fork for fork in graph.forks}
    forked = {first: fork for fork in graph.forks for first in fork.after}
    joined = {join.after: join for join in graph.joins}
    begin: list[int] = []
    end: list[int] = []
    at_fork: dict[int, int] = {}
    at_join: dict[int, int] = {}
    for segment in graph.segments:
        index = segment.index
        begin.append(_begin(segment, forked.get(index), joined.get(index), end, at_fork, junction))
        if index in joined:
            at_join[joined[index].index] = begin[index] - junction
        size = max(least(segment), int(scale * steps(graph, segment)))
        end.append(begin[index] + size)
        if index in forks:
            at_fork[forks[index].index] = end[index]
    return Places(tuple(begin), tuple(end), at_fork, at_join, max(end))


def _begin(
    segment: Segment,
    fork: Fork | None,
    join: Join | None,
    end: list[int],
    at_fork: dict[int, int],
    junction: int,
) -> int:
    if fork is not None:
        return at_fork[fork.index] + junction
    if join is not None:
        ends = [at_fork[join.index] + junction, *(end[last] for last in join.before)]
        return max(ends) + junction
    return end[segment.parents[0]] if segment.parents else 0


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
