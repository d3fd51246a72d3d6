"""Documents are written in any schema: legal, nothing lost, in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings

import nprdsl
from nprdsl.schema import Schema
from nprdsl.trainers.curate.document import (
    BlockKind,
    DocumentBlock,
    LeafRange,
    Passage,
    depth_of,
    nest,
    opened_by_prose,
)
from nprdsl.trainers.curate.form import TraceForm
from nprdsl.trainers.curate.placement import Room, form_of, room_of
from tests.curate.documents_drawn import documents, named

MULTIVERSE, NPR, THREADS, R1 = map(
    nprdsl.load, ("multiverse", "npr", "threadweaver", "parallel_r1")
)
OWN = """
%import .parallel (map, process, reduce)

start:   "<plans>" TEXT map{plans} process{plan, step} reduce{answer} TEXT "<end>"
plans:   "<list>" plan~1..5 "</list>"
plan:    "<plan>" NAME " " GOAL "</plan>"
step:    "<step>" NAME " " GOAL " = " TEXT "</step>"
answer:  "<answer>" TEXT "</answer>"

NAME: /[a-z]/
%declare TEXT GOAL
"""


def form(schema: Schema, nodes: tuple[Passage, ...]) -> TraceForm:
    found = form_of(schema.grammar, nodes)
    assert found is not None
    return found


def block(*branches: tuple[int, int], kind: BlockKind = BlockKind.COLLECTIVE) -> DocumentBlock:
    return DocumentBlock(kind, tuple((LeafRange(a, b),) for a, b in branches))


@settings(max_examples=150, deadline=None)
@given(documents())
def test_nested_documents_in_multiverse(drawn: tuple[tuple[Passage, ...], int]) -> None:
    nodes, leaves = drawn
    found = form(MULTIVERSE, nodes)
    trace = found.fill(named)
    assert MULTIVERSE.check(trace) == []
    assert re.findall(r"leaf(\d+)", trace) == [str(leaf) for leaf in range(leaves)]
    assert found.extras == 0
    graph = MULTIVERSE.parse(trace).graph
    assert graph.depth == depth_of(nodes)
    assert [len(fork.after) for fork in graph.forks] == [
        len(b.block.branches) for b in found.blocks
    ]


@pytest.mark.parametrize("schema", [NPR, THREADS, R1], ids=lambda schema: schema.name)
@settings(max_examples=100, deadline=None)
@given(drawn=documents(max_depth=1))
def test_flat_documents_in_every_schema(
    schema: Schema, drawn: tuple[tuple[Passage, ...], int]
) -> None:
    nodes, leaves = drawn
    found = form_of(schema.grammar, nodes)
    if found is None:  # npr has room for 16 blocks
        assert schema is NPR and len(nodes) > 16
        return
    trace = found.fill(named)
    assert schema.check(trace) == []
    assert re.findall(r"leaf(\d+)", trace) == [str(leaf) for leaf in range(leaves)]
    parallel = [b for b in found.blocks if b.block.kind is not BlockKind.ALONE]
    assert [b.block for b in parallel] == [n for n in nodes if isinstance(n, DocumentBlock)]


def test_prose_becomes_a_block_of_one_branch_where_the_schema_has_no_other_place() -> None:
    """Before a block that may need it; behind the last it flows."""
    nodes = nest([block((1, 1), (2, 2)), block((4, 4), (5, 5))], 8)
    trace = form(NPR, nodes).fill(named)
    assert len(NPR.parse(trace).find("step")) == 6
    assert trace.endswith("</takeaway>\nleaf6. leaf7.")
    one, two = BlockKind.ALONE, BlockKind.COLLECTIVE
    assert [b.block.kind for b in form(NPR, nodes).blocks] == [one, two, one, two]
    assert form(NPR, nodes).wraps == 2 and form(THREADS, nodes).wraps == 0
    nodes = nest([block((1, 1), (2, 2))], 5)
    assert [b.block.kind for b in form(THREADS, nodes).blocks] == [BlockKind.COLLECTIVE]


def test_prose_that_one_branch_alone_may_need_begins_the_first() -> None:
    """Of a block, and of one inside a branch; the trace keeps the order of the chain."""
    nodes = nest([block((1, 1), (2, 2)), block((4, 5), (6, 6))], 8)
    nothing: dict[int, set[int]] = {leaf: set() for leaf in range(8)}
    opened = opened_by_prose(nodes, nothing)
    assert opened == nest([block((0, 1), (2, 2)), block((3, 5), (6, 6))], 8)
    assert form(NPR, opened).wraps == 0
    assert re.findall(r"leaf(\d)", form(NPR, opened).fill(named)) == list("01234567")
    assert opened_by_prose(nodes, nothing | {1: {0}, 5: {0}, 4: {3}}) == opened
    assert opened_by_prose(nodes, nothing | {2: {0}, 6: {3}}) == nodes
    inner = nest([block((0, 3), (4, 4)), block((1, 1), (2, 2))], 6)
    within = nest([block((0, 3), (4, 4)), block((0, 1), (2, 2))], 6)
    six = {leaf: set[int]() for leaf in range(6)}
    assert opened_by_prose(inner, six) == within
    assert opened_by_prose(inner, six | {2: {0}}) == inner


def test_the_answer_stands_apart_where_the_schema_has_a_place_for_it() -> None:
    nodes = nest([block((1, 1), (2, 2))], 5)
    assert form(THREADS, nodes).fill(named).endswith("leaf3.\n</think>\nleaf4.")
    assert form(MULTIVERSE, nodes).fill(named).endswith("</Parallel>\nleaf3. leaf4.")


def test_what_the_chain_does_not_have_is_an_extra() -> None:
    nodes = nest([block((0, 0), (1, 1))], 2)
    found = form(THREADS, nodes)
    assert found.extras == 2
    trace = found.fill(named)
    assert THREADS.check(trace) == []
    assert trace.startswith("<think>\nextra1.\n<Parallel>") and trace.endswith("</think>\nextra2.")


def test_labels_of_nested_blocks_are_dotted() -> None:
    nodes = nest([block((0, 2), (3, 3)), block((0, 1), (2, 2))], 5)
    trace = MULTIVERSE.parse(form(MULTIVERSE, nodes).fill(named))
    assert [label.text for label in trace.find("LABEL")] == [
        *("1", "2"),
        *("1", "1.1", "1.2", "1.1", "1.2"),
        "2",
    ]


def test_bound_words_and_letters_of_an_own_schema(tmp_path: Path) -> None:
    (tmp_path / "own.lark").write_text(OWN)
    schema = nprdsl.load(tmp_path / "own.lark")
    trace = form(schema, nest([block((1, 1), (2, 2))], 4)).fill(named)
    assert schema.check(trace) == []
    assert "<step>b item1.1. = leaf2.</step>" in trace
    assert room_of(schema, 2) == Room(branches=5, depth=1)


@pytest.mark.parametrize(
    ("schema", "room"),
    [(NPR, Room(5, 1)), (MULTIVERSE, Room(16, 3)), (THREADS, Room(16, 1)), (R1, Room(8, 1))],
    ids=lambda value: getattr(value, "name", None) if isinstance(value, Schema) else None,
)
def test_room(schema: Schema, room: Room) -> None:
    assert room_of(schema, 3) == room


def test_a_schema_without_room_is_refused_with_the_reason(tmp_path: Path) -> None:
    triage = nprdsl.load("triage", {"VERDICT": r"\d+", "DECISION": r"\d+"})
    with pytest.raises(ValueError, match="it wants a value for `VERDICT`, `DECISION`"):
        room_of(triage, 2)
    with pytest.raises(ValueError, match="a depth of 0 leaves no block"):
        room_of(NPR, 0)


def test_blocks_that_cross_are_refused() -> None:
    with pytest.raises(ValueError, match="lies across branches"):
        nest([block((0, 1), (2, 3)), block((1, 1), (2, 2))], 5)


def test_prose_and_blocks_are_checked_at_birth() -> None:
    with pytest.raises(ValueError, match="no range"):
        LeafRange(2, 1)
    with pytest.raises(ValueError, match="has branches"):
        DocumentBlock(BlockKind.COLLECTIVE, ())
