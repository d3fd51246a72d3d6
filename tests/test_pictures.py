"""Pictures: golden files; nothing overlaps or gets lost, text is escaped, long traces are cheap."""

from __future__ import annotations

import tracemalloc
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import nprdsl
from nprdsl.grammar import ir
from nprdsl.grammar.resolve import read_grammar
from nprdsl.pictures import (
    mask_svg,
    mask_text,
    schema_mermaid,
    schema_svg,
    schema_text,
    to_mermaid,
    to_svg,
    to_text,
)
from nprdsl.pictures.mask import coverage
from nprdsl.pictures.trace_pictures import lanes, time_axis
from nprdsl.trace.graph import ExecutionGraph, build_graph
from nprdsl.trace.layout import Layout
from tests.series_parallel import (
    BLOCKS,
    Sequence,
    branch,
    fork,
    marks,
    shapes,
    with_joins,
    with_lengths,
)

REDUCE, REREAD = ir.JoinKind.REDUCE, ir.JoinKind.REREAD
Golden = Callable[[str, str], None]

_FIRST: Sequence = [10, (REDUCE, [[12], [30], [9]]), 14, (REDUCE, [[8], [5]]), 6]
_THIRD: Sequence = [5, (REDUCE, [[22], [18, (REDUCE, [[9], [14]]), 4]]), 3]
TRACES: dict[str, Sequence] = {
    "flat": [60, (REDUCE, [[34], [58], [21]]), 30, (REDUCE, [[20], [44]]), 40],
    "nested": [24, (REDUCE, [_FIRST, [40], _THIRD]), 26],
    "reread": [30, (REREAD, [[22], [37], [15]]), 18, (REREAD, [[20], [6, (REREAD, [[9]]), 5]]), 12],
    "empty": [3, (REDUCE, [[2], [4]]), 0, (REDUCE, [[0, (REDUCE, [[1], [0]]), 0], [1]]), 2],
}
SCHEMAS = ["npr", "multiverse", "parallel_r1"]


def graph_of(sequence: Sequence, prompt: int = 0) -> ExecutionGraph:
    found, length = marks(sequence)
    return build_graph(found, length=length, prompt=prompt)


def layout_of(graph: ExecutionGraph) -> Layout:
    return Layout.from_graph(graph, np.arange(graph.length) >= graph.prompt)


def words(graph: ExecutionGraph) -> list[str]:
    text = ["if ", "a ", "< ", "b ", "& ", "c ", "> ", "d ", "then ", "“both” ", "hold, ", "so "]
    return [text[index % len(text)] for index in range(graph.length)]


def small_graphs() -> Iterator[ExecutionGraph]:
    for segments in range(1, 8):
        for shape in shapes(segments):
            for joined in with_joins(shape):
                for start in (0, 1, 5):
                    sizes = iter(range(start, start + 2 * segments, 2))
                    yield graph_of(with_lengths(joined, sizes))


def grammar(name: str) -> ir.Grammar:
    path = Path(__file__).parent.parent / "grammars" / f"{name}.lark"
    source = path.read_text(encoding="utf-8")
    return read_grammar(source, file=str(path), name=name, types={})


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", TRACES)
def test_traces(name: str, golden: Golden) -> None:
    graph = graph_of(TRACES[name], prompt=2)
    golden(f"pictures/{name}.txt", to_text(graph))
    golden(f"pictures/{name}.mmd", to_mermaid(graph))
    golden(f"pictures/{name}.svg", to_svg(graph))


def test_trace_with_its_text(golden: Golden) -> None:
    graph = graph_of(TRACES["flat"], prompt=10)
    golden("pictures/flat_with_text.svg", to_svg(graph, words(graph)))


@pytest.mark.parametrize("name", ["nested", "reread"])
def test_masks(name: str, golden: Golden) -> None:
    graph = graph_of(TRACES[name], prompt=10)
    layout = layout_of(graph)
    golden(f"pictures/{name}_mask.txt", mask_text(layout))
    golden(f"pictures/{name}_mask.svg", mask_svg(layout, graph, size=64))


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas(name: str, golden: Golden) -> None:
    golden(f"pictures/{name}_schema.txt", schema_text(grammar(name)))
    golden(f"pictures/{name}_schema.mmd", schema_mermaid(grammar(name)))
    golden(f"pictures/{name}_schema.svg", schema_svg(grammar(name)))


@pytest.mark.parametrize("width", [20, 33, 80, 200])
def test_text_keeps_to_the_width_and_loses_no_fork(width: int) -> None:
    for graph in small_graphs():
        lines = to_text(graph, width).splitlines()
        assert max(len(line) for line in lines) <= width
        drawn = "".join(lines)
        assert drawn.count("┳") + drawn.count("╂") == len(graph.forks) + len(graph.joins)


def test_text_needs_room() -> None:
    with pytest.raises(ValueError, match="needs 20 columns, not 19"):
        to_text(graph_of([1]), 19)


def test_nothing_overlaps_in_a_lane() -> None:
    for graph in small_graphs():
        drawn, axis = lanes(graph), time_axis(graph, width=60, junction=2, least=len)
        assert max(drawn) + 1 == graph.max_width
        taken: set[tuple[int, int]] = set()
        for segment in graph.segments:
            begin, end = axis.begin[segment.index], axis.end[segment.index]
            cells = {(drawn[segment.index], column) for column in range(begin, end)}
            assert not cells & taken
            taken |= cells
            for parent in segment.parents:
                assert axis.end[parent] <= begin


def test_svg_draws_every_segment_and_is_self_contained() -> None:
    for graph in small_graphs():
        svg = to_svg(graph)
        root = ElementTree.fromstring(svg)
        bars = root.findall("{http://www.w3.org/2000/svg}rect[@rx='4']")
        assert len(bars) == sum(1 for segment in graph.segments if len(segment))
        assert "href" not in svg
        assert "script" not in svg


def test_svg_escapes_text_and_replaces_what_xml_cannot_hold() -> None:
    graph = build_graph([], length=12, unit="characters")
    svg = to_svg(graph, 'a<b>&"\x00\ud800c\ufffe\nd')
    assert 'a<b>&"\ufffd\ufffdc\ufffd d' in texts(svg)


def test_bars_are_named_in_every_block_and_begin_with_what_is_no_tag() -> None:
    schema = nprdsl.load("npr")
    block, end, answer = schema.examples[0].trace.partition("</takeaway>")
    text = "\n".join([block + end] * 3) + answer
    graph = schema.parse(text).graph
    shown = texts(to_svg(graph, text, tags=schema.tag_pattern))
    assert [name for name in shown if name.startswith("step ")] == [
        f"step {n}" for n in (1, 2, 3)
    ] * 3
    assert not [one for one in shown if one.startswith("<")]
    assert any(one.startswith("<step>") for one in texts(to_svg(graph, text)))


def test_a_mask_names_what_has_room() -> None:
    graph = graph_of(TRACES["nested"], prompt=10)
    names = [name for name in texts(mask_svg(layout_of(graph), graph)) if "step" in name]
    assert 3 <= len(names) < len(graph.segments)
    long = graph_of([(REDUCE, [[3]] * 2000)])
    assert len(texts(mask_svg(layout_of(long), long))) < 50


def test_svg_wants_all_of_the_text() -> None:
    with pytest.raises(ValueError, match="the text has 2 tokens, the graph 3"):
        to_svg(graph_of([3]), ["a", "b"])


def test_svg_shows_the_steps_of_the_trunk() -> None:
    shown = texts(to_svg(graph_of(TRACES["flat"], prompt=10)))
    assert [text for text in shown if text in {"50", "108", "138", "182", "222"}].count("222") == 1
    assert {"50", "108", "138", "182"} <= set(shown)


def test_a_trace_cut_short_is_drawn_as_far_as_it_goes() -> None:
    block = BLOCKS[REDUCE]
    found = [fork(4, block), branch(4, block)]
    found += [branch(6, block, 1), fork(9, block)]
    graph = build_graph(found, length=9)
    assert "┗━2━" in to_text(graph)
    assert "step 2" in texts(to_svg(graph))
    assert "s0 --> s2" in to_mermaid(graph)


def test_coverage_is_the_mean_of_blocks() -> None:
    layout = layout_of(graph_of([8, (REDUCE, [[30], [50]]), 40]))
    visible = layout.visible()
    blocks = visible.reshape(16, 8, 16, 8).mean(axis=(1, 3))
    assert np.array_equal(coverage(layout, 16), blocks)
    assert np.array_equal(coverage(layout, 1000), visible)
    uneven = coverage(layout, 37)
    assert uneven.shape == (37, 37)
    assert abs(uneven.mean() - visible.mean()) < 0.02


def test_mask_of_a_long_trace_needs_no_matrix_of_it() -> None:
    layout = layout_of(graph_of([4000, (REDUCE, [[9000], [9000], [6000]]), 4768]))
    tracemalloc.start()
    svg = mask_svg(layout)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20
    assert len(svg) < 300_000


def test_mask_of_an_empty_trace() -> None:
    layout = layout_of(graph_of([0]))
    assert mask_text(layout) == "\n"
    ElementTree.fromstring(mask_svg(layout))
    with pytest.raises(ValueError, match="at least one cell a side, not 0"):
        mask_text(layout, 0)


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_pictures_name_every_rule_tag_and_terminal(name: str) -> None:
    known = grammar(name)
    terminals = [
        terminal.name
        for terminal in known.terminals.values()
        if terminal.kind is not ir.TerminalKind.GLUE
    ]
    drawn = " ".join(texts(schema_svg(known)))
    for word in (*known.rules, *known.tags, *terminals):
        assert word in schema_text(known)
        assert word in schema_mermaid(known).replace("#lt;", "<").replace("#gt;", ">")
        assert word in drawn
