"""A grammar that passes is decided by its next tag: checked by listing all its derivations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, assume, given, settings

from nprdsl.grammar.diagnostics import DiagnosticCode, SchemaError, Span
from nprdsl.grammar.first_follow import FirstFollow, by_tag, is_blank
from nprdsl.grammar.ir import (
    Alt,
    Field,
    Literal,
    Node,
    Ref,
    Repeat,
    Rule,
    Seq,
    Tag,
    Terminal,
    TerminalKind,
)
from nprdsl.grammar.resolve import read_grammar
from nprdsl.grammar.tag_decisions import decisions

HERE = Span("f.lark", 1, 1, 1, 2)
Symbols = tuple[Tag | Literal | Field, ...]
LONGEST = 6  # symbols of a derivation that are listed


def terminal(name: str, kind: TerminalKind) -> Terminal:
    return Terminal(name, kind, HERE)


TERMINALS = [
    terminal("TEXT", TerminalKind.TEXT),
    terminal("LABEL", TerminalKind.REGULAR),
    terminal("_NL", TerminalKind.GLUE),
]
tags = st.sampled_from(["<a>", "<b>", "<c>", "<d>"]).map(lambda text: Tag(text, HERE))
atoms = st.one_of(
    tags,
    tags,
    st.sampled_from(TERMINALS).map(lambda t: Field(t, HERE)),
    st.sampled_from(["x", "y"]).map(lambda name: Ref(name, HERE)),
)


def compound(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    bounds = st.sampled_from([(0, 1), (0, None), (1, None), (1, 2), (2, 2)])
    return st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: Seq(tuple(parts), HERE)),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: Alt(tuple(parts), HERE)),
        st.builds(lambda node, b: Repeat(node, *b, HERE), inner, bounds),
    )


bodies = st.recursive(atoms, compound, max_leaves=4)


def derivations(rules: Mapping[str, Rule], node: Node, room: int) -> Iterator[Symbols]:
    """Every derivation of `node` with up to `room` symbols, as its symbols."""
    if room < 0:
        return
    match node:
        case Ref():
            yield from derivations(rules, rules[node.rule].node, room)
        case Seq():
            yield from _joined(rules, node.items, room)
        case Alt():
            for option in node.options:
                yield from derivations(rules, option, room)
        case Repeat():
            high = room + 1 if node.high is None else node.high
            for turns in range(node.low, min(high, room + 1) + 1):
                yield from _joined(rules, (node.node,) * turns, room)
        case Tag() | Literal() | Field():
            if room:
                yield (node,)
        case _:
            raise AssertionError("no blocks here")


def _joined(rules: Mapping[str, Rule], items: tuple[Node, ...], room: int) -> Iterator[Symbols]:
    if not items:
        yield ()
        return
    for first in derivations(rules, items[0], room):
        for rest in _joined(rules, items[1:], room - len(first)):
            yield first + rest


def trace(symbols: Symbols) -> tuple[int | str, ...]:
    """All that decides: the tags, and how much that is not blank stands before each."""
    marks: list[int | str] = [0]
    for symbol in symbols:
        if isinstance(symbol, Tag):
            marks += [symbol.text, 0]
        elif not is_blank(symbol):
            marks[-1] = int(marks[-1]) + 1
    return tuple(marks)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(bodies, bodies, bodies)
def test_what_passes_is_decided_by_the_next_tag(start: Node, x: Node, y: Node) -> None:
    trees = {"start": start, "x": x, "y": y}
    rules = {name: Rule(name, node, HERE) for name, node in trees.items()}
    assume(not list(decisions(rules, FirstFollow(trees, "start", by_tag))))
    found = Counter(map(trace, derivations(rules, start, LONGEST)))
    assert all(count == 1 for count in found.values()), found.most_common(1)


BLANK_VALUES = """
start: "<a>" {} "<c>"
_GLUE: " "
V: {}
"""


@pytest.mark.parametrize(
    "body",
    ["_GLUE ((V) | _GLUE)", "(V | _GLUE)", "_GLUE V?", "[V] _GLUE", "(V | _GLUE) (_GLUE | V V)"],
)
def test_a_value_of_white_space_alone_is_not_told_from_none(body: str) -> None:
    source = BLANK_VALUES.format(body, "/./s")
    with pytest.raises(SchemaError, match="`V` may be white space alone") as refused:
        read_grammar(source, file="x.lark", name="x", types={})
    assert refused.value.diagnostics[0].code is DiagnosticCode.UNDECIDED_CHOICE
    read_grammar(
        BLANK_VALUES.format("_GLUE (V | _GLUE)", "/[a-z]/"), file="x.lark", name="x", types={}
    )


@pytest.mark.parametrize("value", [r"/\s/", "/[ a]{1,3}/", r"/ ?\t|b/"])
def test_values_that_may_be_blank_are_found(value: str) -> None:
    with pytest.raises(SchemaError, match="white space alone"):
        read_grammar(BLANK_VALUES.format("V? _GLUE", value), file="x.lark", name="x", types={})


def test_values_beside_no_other_way_may_be_blank() -> None:
    read_grammar(BLANK_VALUES.format('V "<b>" _GLUE', "/./s"), file="x.lark", name="x", types={})
