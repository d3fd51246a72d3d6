"""The execution graph: segments, roles, paths and figures, and marks that make no graph."""

from __future__ import annotations

import json

import pytest

from nprdsl.grammar import ir
from nprdsl.trace.graph import Mark, Role, build_graph
from tests.series_parallel import (
    BLOCKS,
    Oracle,
    Sequence,
    block,
    branch,
    fork,
    join,
    marks,
    shapes,
    with_joins,
    with_lengths,
)

REDUCE, REREAD = ir.JoinKind.REDUCE, ir.JoinKind.REREAD
B = BLOCKS[REDUCE]


def test_reduce() -> None:
    found, length = marks([3, (REDUCE, [[2], [5], [4]]), 6])
    graph = build_graph(found, length=length, prompt=1)
    assert [(s.start, s.end, s.parents, s.role) for s in graph.segments] == [
        (0, 3, (), Role.TRUNK),
        (3, 5, (0,), Role.BRANCH),
        (5, 10, (0,), Role.BRANCH),
        (10, 14, (0,), Role.BRANCH),
        (14, 20, (1, 2, 3), Role.JOIN),
    ]
    assert [s.path for s in graph.segments] == [(), ((0, 0),), ((0, 1),), ((0, 2),), ()]
    assert [(s.rule, s.label) for s in graph.segments][1:4:2] == [("step", "1"), ("step", "3")]
    assert [s.position for s in graph.segments] == [0, 3, 3, 3, 8]
    assert (graph.tokens, graph.critical_path, graph.depth, graph.max_width) == (19, 13, 1, 3)
    assert graph.degree == pytest.approx(19 / 13)
    fork, join = graph.forks[0], graph.joins[0]
    assert (fork.at, fork.before, fork.after, fork.stop) == (3, 0, (1, 2, 3), 4)
    assert (join.at, join.before, join.after) == (14, (1, 2, 3), 4)
    assert fork.index == join.index == 0


def test_reread_reads_the_branches_again_and_costs_no_steps() -> None:
    found, length = marks([3, (REREAD, [[2], [5]]), 6])
    graph = build_graph(found, length=length)
    copy, rest = graph.segments[3:]
    assert (copy.role, copy.parents, len(copy)) == (Role.REREAD, (0,), 7)
    assert (copy.source_start, copy.source_end, copy.position) == (3, 10, 3)
    assert (rest.role, rest.parents, rest.start, rest.end) == (Role.JOIN, (3,), 17, 23)
    assert (rest.source_start, rest.source_end, rest.position, rest.step) == (10, 16, 10, 8)
    assert (graph.entries, graph.length, graph.tokens, graph.critical_path) == (23, 16, 16, 14)
    assert graph.joins[0].after == copy.index


def test_a_reread_copy_holds_nested_branches_once() -> None:
    inner: Sequence = [1, (REREAD, [[2], [3]]), 4]
    found, length = marks([1, (REREAD, [inner, [5]]), 1])
    graph = build_graph(found, length=length)
    copies = [s for s in graph.segments if s.role is Role.REREAD]
    assert [(s.source_start, s.source_end, len(s)) for s in copies] == [(2, 7, 5), (1, 16, 15)]


def test_paths_number_blocks_on_their_own_branch() -> None:
    inner: Sequence = [1, (REDUCE, [[1], [1]]), 1, (REDUCE, [[1]]), 1]
    found, length = marks([1, (REDUCE, [[1], inner]), 1, (REDUCE, [[1]]), 1])
    graph = build_graph(found, length=length)
    assert [s.path for s in graph.segments if s.role is Role.BRANCH] == [
        ((0, 0),),
        ((0, 1),),
        ((0, 1), (0, 0)),
        ((0, 1), (0, 1)),
        ((0, 1), (1, 0)),
        ((1, 0),),
    ]
    assert [fork.index for fork in graph.forks] == [0, 1, 2, 3]
    assert [join.index for join in graph.joins] == [1, 2, 0, 3]
    assert (graph.depth, graph.max_width) == (2, 3)


def test_figures_of_every_small_graph_equal_the_oracle() -> None:
    for segments in range(1, 7):
        for shape in shapes(segments):
            for joined in with_joins(shape):
                sequence = with_lengths(joined, iter(range(1, segments + 1)))
                found, length = marks(sequence)
                graph = build_graph(found, length=length)
                oracle = Oracle(sequence)
                assert graph.critical_path == oracle.steps
                assert (graph.length, graph.entries) == (oracle.units, len(oracle.sees))
                assert graph.max_width == width(sequence)


def width(sequence: Sequence) -> int:
    blocks = (item for item in sequence if not isinstance(item, int))
    return max([1, *(sum(width(branch) for branch in branches) for _, branches in blocks)])


def test_empty_segments() -> None:
    found, length = marks([0, (REDUCE, [[0], [0, (REDUCE, [[0], [2]]), 0]]), 0])
    graph = build_graph(found, length=length)
    assert [len(s) for s in graph.segments] == [0, 0, 0, 0, 2, 0, 0]
    assert graph.segments[-1].position == 2
    assert graph.degree == 1.0


def test_a_block_without_branches_joins_what_was_before() -> None:
    for kind in ir.JoinKind:
        here = BLOCKS[kind]
        graph = build_graph([fork(2, here), join(2, here)], length=4)
        first, *_, last = graph.segments
        assert graph.segments[first.index + 1].parents == (first.index,)
        assert (last.position, graph.critical_path) == (2, 4)


def test_a_trace_without_marks() -> None:
    graph = build_graph([], length=5, prompt=5, unit="characters")
    assert (graph.tokens, graph.critical_path, graph.degree) == (0, 0, 1.0)
    assert (graph.depth, graph.max_width, graph.unit) == (0, 1, "characters")


def test_a_trace_cut_short_has_forks_without_joins() -> None:
    found = [fork(1, B), branch(1, B, 0), fork(2, B)]
    graph = build_graph(found, length=2)
    assert [len(s) for s in graph.segments] == [1, 1]
    assert [(f.index, f.after, f.stop) for f in graph.forks] == [(0, (1,), 2), (1, (), 2)]
    assert graph.joins == ()
    assert (graph.depth, graph.max_width) == (1, 1)


def test_to_dict_is_json() -> None:
    found, length = marks([3, (REREAD, [[2], [5]]), 6])
    graph = build_graph(found, length=length)
    values = graph.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["degree"] == 1.1429
    assert values["segments"][3] == {  # type: ignore[index]
        "index": 3,
        "start": 10,
        "end": 17,
        "parents": [0],
        "path": [],
        "role": "reread",
        "rule": "",
        "label": "",
        "source_start": 3,
        "source_end": 10,
        "position": 3,
        "step": 8,
    }


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([join(1, B)], "the join at 1 stands outside any block"),
        ([branch(1, B)], "the branch at 1 stands outside any block"),
        ([fork(3, B), branch(2, B)], "the branch at 2 comes after a mark at 3"),
        ([fork(1, B), branch(2, B)], "first branch begins at 2, its fork at 1"),
        ([fork(1, B), fork(1, B)], "the fork at 1 stands where a branch must begin"),
        ([fork(1, B), join(2, B)], "no branch begins at 1, where the block forks"),
        ([fork(1, B)], "no branch begins at 1, where the last block forks"),
        ([fork(1, B), branch(1, B, 1)], "branch 1 at 1 is number 0"),
        ([fork(1, B), branch(1, block(REDUCE))], "of another block than its fork"),
        ([fork(7, B), branch(7, B)], "6 tokens are too few for a mark at 7"),
    ],
)
def test_marks_that_make_no_graph(found: list[Mark], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_graph(found, length=6)


def test_marks_in_the_prompt_make_no_graph() -> None:
    with pytest.raises(ValueError, match="the fork at 2 comes after a mark at 3"):
        build_graph([fork(2, B)], length=6, prompt=3)
