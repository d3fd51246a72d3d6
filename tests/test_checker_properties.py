"""The checker on random traces: legal ones are accepted and read back, one fault is refused by
name.

The oracle is `nprdsl.testing.reference`, which tries every reading of a text.
"""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nprdsl.grammar.resolve import read_grammar
from nprdsl.schema import Schema
from nprdsl.schema import load as load_schema
from nprdsl.structure.stack import Bounds
from nprdsl.structure.violations import TraceError, ViolationCode
from nprdsl.testing import (
    Mutation,
    MutationKind,
    Reading,
    Spacing,
    byte_vocabulary,
    derive,
    mutated,
    schemas,
    straddling_merges,
    token_traces,
    traces,
)
from nprdsl.testing.fuzzing import (
    accepted,
    automaton_agrees,
    read_back,
    refused,
    tokens_agree,
)

NAMES = ("npr", "multiverse", "threadweaver", "parallel_r1", "arith")
QUICK = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
RANDOM = settings(QUICK, max_examples=40, suppress_health_check=tuple(HealthCheck))


@cache
def load(name: str) -> Schema:
    return load_schema(name)


def schema_of(source: str) -> Schema:
    return Schema(read_grammar(source, file="random.lark", name="random", types={}))


@pytest.mark.parametrize("spacing", Spacing)
@pytest.mark.parametrize("name", NAMES)
def test_legal_traces_are_accepted_and_read_back(name: str, spacing: Spacing) -> None:
    schema = load(name)

    @QUICK
    @given(traces(schema, spacing=spacing))
    def run(text: str) -> None:
        accepted(schema, text)
        read_back(schema, text)

    run()


@pytest.mark.parametrize("name", NAMES)
def test_one_fault_is_refused_with_its_code(name: str) -> None:
    schema = load(name)

    @settings(QUICK, max_examples=100)
    @given(mutated(schema))
    def run(mutation: Mutation) -> None:
        refused(schema, mutation)

    run()


@pytest.mark.parametrize("name", NAMES)
def test_any_text_is_judged_as_by_the_reference(name: str) -> None:
    """Texts that are mostly not legal: tags and words in any order."""
    schema = load(name)
    pieces = st.sampled_from((*schema.tags, "1:", "1: x", "2:y", "x", "\n", " "))

    @settings(QUICK, max_examples=100)
    @given(st.lists(pieces, max_size=14).map("".join))
    def run(text: str) -> None:
        assert (not schema.check(text)) == (derive(schema.grammar, text) is not None), text

    run()


@pytest.mark.parametrize("name", NAMES)
def test_parse_raises_what_check_returns(name: str) -> None:
    schema = load(name)

    @settings(QUICK, max_examples=20)
    @given(mutated(schema))
    def run(mutation: Mutation) -> None:
        text = mutation.text
        with pytest.raises(TraceError) as raised:
            schema.parse(text)
        assert list(raised.value.violations) == schema.check(text)

    run()


@pytest.mark.parametrize("name", NAMES)
def test_places_of_violations_are_places_in_the_text(name: str) -> None:
    schema = load(name)

    @QUICK
    @given(mutated(schema))
    def run(mutation: Mutation) -> None:
        text = mutation.text
        for violation in schema.check(text):
            assert 0 <= violation.offset <= len(text)
            before = text[: violation.offset]
            assert violation.line == before.count("\n") + 1
            assert violation.column == len(before) - (before.rfind("\n") + 1) + 1

    run()


@RANDOM
@given(st.data())
def test_random_schemas_accept_their_traces_and_refuse_faults(data: st.DataObject) -> None:
    schema = schema_of(data.draw(schemas(first=20)))
    for spacing in Spacing:
        text = data.draw(traces(schema, spacing=spacing))
        accepted(schema, text)
        read_back(schema, text)
    refused(schema, data.draw(mutated(schema)))


@pytest.mark.parametrize("special", [True, False], ids=["special", "spelled"])
@pytest.mark.parametrize("name", NAMES)
def test_tokens_and_automaton_agree_with_the_checker(name: str, special: bool) -> None:
    schema = load(name)
    tags = schema.tags
    vocabulary = byte_vocabulary(
        special=tags if special else (), merges=() if special else straddling_merges(tags)
    )
    bound = schema.bind(vocabulary)

    @settings(QUICK, max_examples=15)
    @given(traces(schema), mutated(schema), st.integers(0, 99))
    def run(text: str, mutation: Mutation, number: int) -> None:
        for judged in (text, mutation.text):
            tokens_agree(schema, bound, judged, number)
            automaton_agrees(schema, bound, judged, number)

    @settings(QUICK, max_examples=15)
    @given(token_traces(bound))
    def run_tokens(ids: tuple[int, ...]) -> None:
        assert bound.check(list(ids)) == []

    run()
    run_tokens()


def test_forks_deeper_than_the_limit_are_too_deep() -> None:
    schema = load("multiverse")

    @settings(QUICK, max_examples=40)
    @given(traces(schema, max_depth=3, max_items=2))
    def run(text: str) -> None:
        reading = Reading(schema.grammar, text, max_depth=1)
        violations = schema.check(text, Bounds(depth=1))
        assert bool(violations) == (reading.tree is None)
        assert not violations or violations[0].code is ViolationCode.TOO_DEEP

    run()


@pytest.mark.parametrize("kind", [k for k in MutationKind if k is not MutationKind.TOO_DEEP])
def test_every_kind_of_mutation_can_be_drawn(kind: MutationKind) -> None:
    schema = load("npr")

    @settings(QUICK, max_examples=3)
    @given(mutated(schema, kinds=[kind]))
    def run(mutation: Mutation) -> None:
        assert mutation.kind is kind

    run()
