"""Time and memory of the graph and layout of a 32k-token trace: flat blocks, nested ones, rereads.

    python benchmarks/layout.py

Prints medians in ms, with and without the graph, and the bytes that the layout holds; the target is
below 20 ms for graph and layout together, and memory proportional to the length.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from nprdsl.grammar import ir
from nprdsl.grammar.diagnostics import Span
from nprdsl.structure.events import EnterBranch, EnterFork, EnterJoin
from nprdsl.trace.graph import Mark, build_graph
from nprdsl.trace.layout import Layout

LENGTH = 32_768
REPEATS = 31


def block(join: ir.JoinKind) -> ir.Block:
    span = Span("benchmark.lark", 1, 1, 1, 1)
    return ir.Block(0, "block", "plan", "step", (), 1, None, join, span)


def flat(length: int, blocks: int, branches: int, join: ir.JoinKind) -> list[Mark]:
    """Blocks one after another, everything of equal length."""
    size = length // (blocks * (branches + 1) + 1)
    here, at, marks = block(join), size, []
    for _ in range(blocks):
        marks.append(Mark(EnterFork(here), at))
        for index in range(branches):
            marks.append(Mark(EnterBranch(here, index, ()), at))
            at += size
        marks.append(Mark(EnterJoin(here), at))
        at += size
    return marks


def nested(length: int, depth: int, join: ir.JoinKind) -> list[Mark]:
    """Blocks of two branches, each in the second branch of the one around it."""
    size = length // (3 * depth + 1)
    here, at, marks = block(join), size, []
    for _ in range(depth):
        marks.append(Mark(EnterFork(here), at))
        marks.append(Mark(EnterBranch(here, 0, ()), at))
        at += size
        marks.append(Mark(EnterBranch(here, 1, ()), at))
        at += size
    for _ in range(depth):
        marks.append(Mark(EnterJoin(here), at))
        at += size
    return marks


def median_ms(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return 1000 * statistics.median(times)


def report(name: str, marks: list[Mark]) -> None:
    sampled = np.ones(LENGTH, dtype=bool)
    graph = build_graph(marks, length=LENGTH)
    both = median_ms(lambda: Layout.from_graph(build_graph(marks, length=LENGTH), sampled))
    arrays = median_ms(lambda: Layout.from_graph(graph, sampled))
    tracemalloc.start()
    layout = Layout.from_graph(graph, sampled)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(
        f"{name:<28} {len(graph.segments):>8} {len(layout):>8} {both:>10.2f} {arrays:>10.2f}"
        f" {held:>12,} {peak:>12,}"
    )


_REDUCE, _REREAD = ir.JoinKind.REDUCE, ir.JoinKind.REREAD
TRACES = {
    "16 blocks of 5, reduce": flat(LENGTH, 16, 5, _REDUCE),
    "16 blocks of 5, reread": flat(LENGTH, 16, 5, _REREAD),
    "400 blocks of 4, reduce": flat(LENGTH, 400, 4, _REDUCE),
    "nested to depth 5, reduce": nested(LENGTH, 5, _REDUCE),
    "nested to depth 200, reduce": nested(LENGTH, 200, _REDUCE),
    "nested to depth 1000, reduce": nested(LENGTH, 1000, _REDUCE),
    "nested to depth 30, reread": nested(LENGTH, 30, _REREAD),
}


def main() -> None:
    print(f"trace of {LENGTH} tokens, median of {REPEATS}")
    print(
        f"{'trace':<28} {'segments':>8} {'entries':>8} {'both ms':>10} {'layout ms':>10}"
        f" {'bytes held':>12} {'peak':>12}"
    )
    for name, marks in TRACES.items():
        report(name, marks)


if __name__ == "__main__":
    main()
