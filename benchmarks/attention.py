"""What a training row costs before any kernel runs: metadata of attention for 32k-token traces.

    python -m benchmarks.attention

Prints medians in ms and the bytes held for the block mask (FlexAttention) and the segment plan
(variable-length kernels), beside what the dense mask would take; the target is below 50 ms.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from benchmarks.layout import LENGTH, TRACES
from nprdsl.trace.graph import build_graph
from nprdsl.trace.layout import Layout
from nprdsl.trainers.attention.masks import block_mask
from nprdsl.trainers.attention.segments import plan
from nprdsl.trainers.batch.training_rows import TrainingRow, training_row

REPEATS = 15


def measured(make: Callable[[], object]) -> tuple[float, int]:
    """Median milliseconds, and the bytes that were allocated at most."""
    make()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        make()
        times.append((time.perf_counter() - start) * 1e3)
    tracemalloc.start()
    make()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return statistics.median(times), peak


def rows() -> list[tuple[str, TrainingRow]]:
    found = []
    for name, marks in TRACES.items():
        graph = build_graph(marks, length=LENGTH)
        layout = Layout.from_graph(graph, np.ones(LENGTH, np.bool_))
        found.append((name, training_row(np.zeros(LENGTH, np.int32), layout)))
    return found


def main() -> None:
    print(f"{'trace':<30}{'entries':>9}{'blocks ms':>11}{'peak MB':>9}{'plan ms':>9}{'peak MB':>9}"
          f"{'seen per entry':>16}{'dense GB':>10}")  # fmt: skip
    for name, one in rows():
        blocks_ms, blocks_bytes = measured(lambda one=one: block_mask(one))
        plan_ms, plan_bytes = measured(lambda one=one: plan(one))
        keys = sum(int(part.key_ends[-1]) for part in plan(one)) / len(one)
        dense = len(one) ** 2 * 4 / 1e9
        print(
            f"{name:<30}{len(one):>9}{blocks_ms:>11.1f}{blocks_bytes / 1e6:>9.1f}"
            f"{plan_ms:>9.1f}{plan_bytes / 1e6:>9.1f}{keys:>16.1f}{dense:>10.1f}"
        )


if __name__ == "__main__":
    main()
