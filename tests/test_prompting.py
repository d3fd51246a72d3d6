"""What an untrained model is told: the instruction and the example of each shipped schema."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nprdsl.grammar.ir import Terminal, TerminalKind
from nprdsl.grammar.resolve import read_grammar
from nprdsl.prompting.instructions import example_value, instructions, skeleton
from nprdsl.schema import Schema, load
from nprdsl.testing import schemas

NAMES = ("npr", "multiverse", "threadweaver", "parallel_r1", "arith")


@pytest.mark.parametrize("name", NAMES)
def test_the_instruction_is_the_golden_one(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"prompts/{name}.txt", load(name).prompt())


@pytest.mark.parametrize("name", NAMES)
def test_the_skeleton_is_legal_and_shows_two_branches(name: str) -> None:
    schema = load(name)
    text = schema.skeleton()
    assert schema.check(text) == []
    block = schema.grammar.blocks[0]
    assert len(schema.parse(text).find(block.branch)) == 2
    assert all(tag in text for tag in schema.tags)


@pytest.mark.parametrize("name", NAMES)
def test_the_instruction_names_every_tag_and_holds_the_skeleton(name: str) -> None:
    schema = load(name)
    words = schema.prompt().removesuffix(schema.skeleton() + "\n")
    assert words != schema.prompt()
    assert all(f"`{tag}`" in words for tag in schema.tags)


@settings(max_examples=60, deadline=None, suppress_health_check=tuple(HealthCheck))
@given(schemas(first=20))
def test_skeletons_of_random_schemas_are_legal(source: str) -> None:
    grammar = read_grammar(source, file="random.lark", name="random", types={})
    assert Schema(grammar).check(skeleton(grammar)) == []
    assert instructions(grammar)


@given(st.sampled_from([r"[a-z]{3}", r"-?[0-9]\.[0-9]", r"\{\"ok\":(true|false)\}", r"(ab|ba)+"]))
def test_example_values_fit_and_differ(pattern: str) -> None:
    import re

    span = load("npr").grammar.rules["start"].span
    terminal = Terminal("VALUE", TerminalKind.REGULAR, span, pattern)
    values: list[str] = []
    for _ in range(2):
        values.append(example_value(terminal, (), values))
    assert len(set(values)) == 2
    assert all(re.fullmatch(pattern, value) for value in values)


@pytest.mark.parametrize(
    "source",
    [
        'start: "<e>" TEXT TAG_B\nTAG_B: "t"\n%declare TEXT\n',
        'start: "<e>" V TAG_B\nTAG_B: "a"\nV: /[a-u]+|x/\n',
        'start: [TAG_A (V TAG_B)~1..3 TAG_C] TEXT\nTAG_A: " a"\nTAG_B: "a "\nTAG_C: "aa"\n'
        "V: /[b-z ]{1,6}/\n%declare TEXT\n",
    ],
)
def test_an_example_whose_words_spell_tags_is_another(source: str) -> None:
    schema = Schema(read_grammar(source, file="own.lark", name="own", types={}))
    assert schema.check(schema.skeleton()) == []
