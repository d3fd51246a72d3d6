"""Layout arrays: equal to a brute-force oracle on all small graphs, O(L), read-only."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from nprdsl.grammar import ir
from nprdsl.trace.graph import ExecutionGraph, build_graph
from nprdsl.trace.layout import Layout
from tests.series_parallel import (
    BLOCKS,
    Oracle,
    Sequence,
    branch,
    fork,
    marks,
    shapes,
    with_joins,
    with_lengths,
)

REDUCE, REREAD = ir.JoinKind.REDUCE, ir.JoinKind.REREAD


def graph_of(sequence: Sequence) -> ExecutionGraph:
    found, length = marks(sequence)
    return build_graph(found, length=length)


def layout_of(sequence: Sequence) -> Layout:
    graph = graph_of(sequence)
    return Layout.from_graph(graph, np.ones(graph.length, dtype=bool))


def assert_equals_oracle(sequence: Sequence) -> None:
    layout, oracle = layout_of(sequence), Oracle(sequence)
    visible = layout.visible()
    seen = np.zeros_like(visible)
    for row, keys in enumerate(oracle.sees):
        seen[row, list(keys)] = True
    assert len(layout) == len(oracle.sees)
    assert np.array_equal(visible, seen), sequence
    assert layout.position.tolist() == oracle.position, sequence
    assert layout.token.tolist() == oracle.token, sequence
    assert sorted(layout.mirror.tolist()) == list(range(len(layout))), sequence
    if not layout.drops:
        order, mirror = layout.order, layout.mirror
        two_orders = (order <= order[:, None]) & (mirror <= mirror[:, None])
        assert np.array_equal(visible, two_orders), sequence


def lengths(segments: int) -> Iterator[tuple[int, ...]]:
    """Every choice of empty and not empty where that is few, else each segment empty once."""
    if segments <= 6:
        yield from itertools.product((0, 1), repeat=segments)
    yield tuple(1 + (3 * i + 1) % 4 for i in range(segments))
    for empty in range(segments):
        yield tuple(0 if i == empty else 1 + i % 2 for i in range(segments))


@pytest.mark.parametrize(
    ("segments", "graphs"), [(1, 1), (3, 2), (4, 2), (5, 10), (6, 22), (7, 78), (8, 226)]
)
def test_every_small_graph_equals_brute_force(segments: int, graphs: int) -> None:
    count = 0
    for shape in shapes(segments):
        for joined in with_joins(shape):
            for chosen in lengths(segments):
                assert_equals_oracle(with_lengths(joined, iter(chosen)))
            count += 1
    assert count == graphs


@pytest.mark.parametrize("inner", [REDUCE, REREAD])
@pytest.mark.parametrize("outer", [REDUCE, REREAD])
@pytest.mark.parametrize("innermost", [REDUCE, REREAD])
def test_blocks_in_every_branch_to_depth_three(
    outer: ir.JoinKind, inner: ir.JoinKind, innermost: ir.JoinKind
) -> None:
    leaf: Sequence = [1, (innermost, [[2], [1], [0]]), 1]
    middle: Sequence = [1, (inner, [leaf, leaf]), 0, (innermost, [[1], [2]]), 1]
    assert_equals_oracle([2, (outer, [middle, middle, middle]), 1, (inner, [leaf, [3]]), 2])


def test_the_segments_parents_reach_exactly_what_is_visible() -> None:
    inner: Sequence = [1, (REREAD, [[2], [1]]), 1]
    sequence: Sequence = [1, (REDUCE, [inner, [2], inner]), 2, (REREAD, [inner, [1]]), 1]
    graph, layout = graph_of(sequence), layout_of(sequence)
    reach: list[set[int]] = []
    for segment in graph.segments:
        reach.append({segment.index}.union(*(reach[parent] for parent in segment.parents)))
    q, k = layout.segment[:, None], layout.segment[None, :]
    reached = np.array([[b in reach[a] for b in range(len(reach))] for a in range(len(reach))])
    causal = layout.order[None, :] <= layout.order[:, None]
    assert np.array_equal(layout.visible(), reached[q, k] & causal)


def test_two_orders_cannot_hold_reread_blocks_in_three_branches_of_a_reduce() -> None:
    """The reason for `until`: no pair of linear orders has this intersection. A pair needs the
    incomparable pairs of entries, directed by their order in the first, to be transitive."""
    inner: Sequence = [1, (REREAD, [[1]]), 0]
    sees = Oracle([0, (REDUCE, [inner, inner, inner]), 1]).sees
    entries = range(len(sees))
    loose = [
        (a, b)
        for a, b in itertools.combinations(entries, 2)
        if a not in sees[b] and b not in sees[a]
    ]
    assert not transitively_orientable(loose)
    assert transitively_orientable([(0, 1), (1, 2), (0, 2)])
    assert not transitively_orientable([(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)])


def transitively_orientable(edges: list[tuple[int, int]]) -> bool:
    """Golumbic: iff no implication class of edges holds an edge both ways (ab forces ac if bc is
    no edge). Kept plain: the classes are grown until they no longer change."""
    arcs = {*edges, *((b, a) for a, b in edges)}
    for arc in edges:
        forced, new = {arc}, [arc]
        while new:
            a, b = new.pop()
            for c, d in arcs - forced:
                if (c == a and (b, d) not in arcs) or (d == b and (a, c) not in arcs):
                    forced.add((c, d))
                    new.append((c, d))
        if any((b, a) in forced for a, b in forced):
            return False
    return True


def test_sampled_is_false_for_copies_and_kept_for_the_branches() -> None:
    found, length = marks([1, (REREAD, [[1], [2]]), 1])
    graph = build_graph(found, length=length)
    layout = Layout.from_graph(graph, [True, True, False, True, True])
    assert layout.token.tolist() == [0, 1, 2, 3, 1, 2, 3, 4]
    assert layout.sampled.tolist() == [True, True, False, True, False, False, False, True]
    assert layout.segment.tolist() == [0, 1, 2, 2, 3, 3, 3, 4]
    assert layout.drops


def test_rows_are_rows_of_the_mask() -> None:
    layout = layout_of([2, (REDUCE, [[3], [1, (REREAD, [[2], [1]]), 1]]), 2])
    visible = layout.visible()
    assert np.array_equal(layout.rows(3, 9), visible[3:9])


def test_dtypes_and_read_only() -> None:
    layout = layout_of([2, (REDUCE, [[3], [1]]), 2])
    names = ("position", "order", "mirror", "until", "segment", "token", "sampled")
    for name in names:
        array = getattr(layout, name)
        assert array.dtype == (np.bool_ if name == "sampled" else np.int32)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    assert layout.prompt == 0
    assert not layout.drops


def test_prompt_must_not_be_sampled() -> None:
    graph = build_graph([], length=4, prompt=2)
    assert Layout.from_graph(graph, [False, False, True, True]).prompt == 2
    with pytest.raises(ValueError, match="the first 2"):
        Layout.from_graph(graph, [False, True, True, True])
    with pytest.raises(ValueError, match=r"shape \(3,\), the graph 4 units"):
        Layout.from_graph(graph, [False, True, True])


def test_empty_trace() -> None:
    layout = Layout.from_graph(build_graph([], length=0), [])
    assert len(layout) == 0
    assert layout.visible().shape == (0, 0)


def test_a_trace_cut_short_keeps_its_open_branches_apart() -> None:
    block = BLOCKS[REDUCE]
    found = [
        fork(1, block),
        branch(1, block, 0),
        branch(2, block, 1),
        fork(3, block),
        branch(3, block, 0),
        branch(4, block, 1),
    ]
    layout = Layout.from_graph(build_graph(found, length=5), np.ones(5))
    assert layout.position.tolist() == [0, 1, 1, 2, 2]
    assert layout.visible().astype(int).tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 0, 1, 0, 0],
        [1, 0, 1, 1, 0],
        [1, 0, 1, 0, 1],
    ]


def test_memory_is_linear() -> None:
    sequence: Sequence = [100]
    for _ in range(40):
        sequence += [(REDUCE, [[100], [100], [100]]), 100]
    layout = layout_of(sequence)
    arrays = (layout.position, layout.order, layout.mirror, layout.until, layout.segment)
    held = sum(array.nbytes for array in (*arrays, layout.token, layout.sampled))
    assert held == 25 * len(layout)
