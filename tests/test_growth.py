"""Work and memory of `check` grow with the length of a text, however it nests, lists or fails."""

from __future__ import annotations

import gc
import inspect
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from benchmarks.growth import SHAPES, SOURCE, items, nested_branches, nested_items
from nprdsl.machine.budget import Limits, TextTokens
from nprdsl.masks import automaton
from nprdsl.masks.completion_cost import Costs
from nprdsl.pictures.trace_pictures import to_mermaid, to_svg, to_text
from nprdsl.schema import Schema
from nprdsl.structure import tag_machine
from nprdsl.structure.stack import Bounds, BoundValue, Frame, Items
from nprdsl.structure.tag_machine import ForkMode, TagMachine, TagState
from nprdsl.testing import byte_vocabulary
from nprdsl.trace.layout import Layout
from nprdsl.trace.parser import MAX_VIOLATIONS
from tests.runs import run, seeded
from tests.walks import GOAL, schema_of

DEEP = 13_000  # characters: more blocks inside one another than FRAMES
FRAMES = 150  # of Python that a reader may use, whatever the text


@pytest.fixture
def schema() -> Schema:
    """One that has read nothing yet."""
    return schema_of(SOURCE)


def steps(schema: Schema, text: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many stack cells and frames a check asks for: what its time grows with."""
    count = 0

    def counted(method: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            nonlocal count
            count += 1
            return method(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(TagMachine, "push", counted(TagMachine.push))
        patch.setattr(TagMachine, "_keep", counted(TagMachine._keep))
        schema.check(text)
    return count


@pytest.mark.parametrize("name", SHAPES)
def test_twice_the_text_is_at_most_twice_the_work(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long = (
        steps(schema_of(SOURCE), SHAPES[name](size), monkeypatch) for size in (6_000, 12_000)
    )
    assert long <= 2.2 * short + 200


@pytest.mark.parametrize("name", SHAPES)
def test_violations_are_bounded_and_short(schema: Schema, name: str) -> None:
    found = schema.check(SHAPES[name](30_000))
    assert len(found) <= MAX_VIOLATIONS
    assert all(len(v.message) < 1000 and len(v.suggestion) < 1000 for v in found)


@pytest.fixture
def few_frames(schema: Schema) -> Iterator[None]:
    assert not schema.check(nested_branches(100))  # what is made once may nest as it likes
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + FRAMES)
    yield
    sys.setrecursionlimit(usual)


@pytest.mark.usefixtures("few_frames")
@pytest.mark.parametrize("write", [nested_branches, nested_items], ids=lambda write: write.__name__)
def test_no_recursion_over_the_depth_of_a_text(schema: Schema, write: Callable[[int], str]) -> None:
    text = write(DEEP)
    assert not schema.check(text)
    trace = schema.parse(text)
    assert len(trace.find("GOAL")) > 2 * FRAMES
    assert hash(trace.root) == hash(schema.parse(text).root)
    layout = Layout.from_graph(trace.graph, np.ones(trace.graph.length, bool))
    assert len(layout) == trace.graph.entries
    for draw in (to_text, to_svg, to_mermaid):
        assert draw(trace.graph)
    assert schema.check(text[:-1]) and schema.check(text[: DEEP // 2])
    assert schema.check(text, Bounds(depth=3, blocks=9))[0].code == "too-deep"


@pytest.mark.parametrize("list_of", ["item [items]", "item+"])
def test_the_rest_of_a_list_costs_as_much_behind_every_item(
    list_of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where each item nests in the one before, as rules that end on the right do."""
    count = 0

    def counted(costs: Costs, frame: Frame | None) -> int | None:
        nonlocal count
        count += 1
        return left(costs, frame)

    left = Costs._left
    item = 'item: "<i>" TEXT "</i>"\n%declare TEXT\n'
    bound = schema_of(f'start: "<a>" items "</a>"\nitems: {list_of}\n{item}').bind(
        byte_vocabulary()
    )
    matcher, each = bound.matcher(), []
    monkeypatch.setattr(Costs, "_left", counted)
    for token in bound.encode("<a>" + "<i>x</i>" * 200 + "</a>"):
        before = count
        matcher.advance(token)
        assert matcher.cost < 100
        each.append(count - before)
    assert max(each[-500:]) <= max(each[:500])


def test_a_list_shares_its_items_with_shorter_ones() -> None:
    empty, (a, b, c) = Items(), [(BoundValue(text),) for text in "abc"]
    one = empty.then(a, "a")
    two, other = one.then(b, "b"), one.then(c, "c")
    assert (list(empty), list(one), list(two), list(other)) == ([], [a], [a, b], [a, c])
    assert (two.has("b"), other.has("b"), one.has("b")) == (True, False, False)
    assert list(other.labels()) == ["a", "c"] and two[-1] == b and two[1:] == [b]
    assert list(two.then(a, "a").labels()) == ["a", "b"]


def test_what_traces_leave_behind_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tag_machine.MAX_KEPT, ForkMode.LINEAR, 300)
    schema, most = schema_of(GOAL), 0
    for number in range(60):
        goal = f"goal {number}"
        text = f"<g>\n<plan>1:{goal}</plan>\n</g>\n<step>1:{goal}\nx</step>\n<t>y</t>z"
        assert not schema.check(text)
        most = max(most, schema.parser().machine.kept)
    assert most < 400


def test_what_generations_leave_behind_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of models that are not trained, which are led to a block."""
    monkeypatch.setitem(tag_machine.MAX_KEPT, ForkMode.FORKING, 60)
    monkeypatch.setattr(automaton, "MAX_STATES", 60)
    bound = schema_of(GOAL).bind(byte_vocabulary())
    limits = Limits(max_tokens=120, text_tokens=TextTokens(item=8, branch=8, trunk=8))
    for seed in range(16):
        run(bound, limits, seeded(seed))
    gc.collect()
    states = [one for one in gc.get_objects() if isinstance(one, TagState)]
    assert len([one for one in states if one.grammar is bound.grammar]) < 60


def test_long_values_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tag_machine, "MAX_CHARACTERS", 1000)
    schema, goals = schema_of(GOAL), {f"{number}" * 100 for number in range(40)}
    for goal in goals:
        text = f"<g>\n<plan>1:{goal}</plan>\n</g>\n<step>1:{goal}\nx</step>\n<t>y</t>z"
        assert not schema.check(text)
    gc.collect()
    values = [v for v in gc.get_objects() if isinstance(v, BoundValue) and v.text in goals]
    assert len(values) < 15


def test_parsers_of_many_limits_are_not_all_kept(schema: Schema) -> None:
    for branches in range(1, 100):
        schema.check(items(200), Bounds(branches=branches))
    assert len(schema._parsers) <= 32
