"""`check` of any text ends with a list of violations, never with an exception."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.schema import Schema, load, shipped
from nprdsl.structure.stack import UNBOUNDED, Bounds
from nprdsl.structure.violations import TraceError
from nprdsl.testing.properties import faulty
from nprdsl.testing.schemas import random_schema
from tests.walks import GOAL, schema_of

BOUNDS = (UNBOUNDED, Bounds(depth=1, branches=2, blocks=1))
# what may be missing, or is counted, without a tag inside
TAGLESS = (
    "TEXT?",
    "[N]",
    '[": "]',
    '":"~0..1',
    "N~2",
    "number?",
    '(N (":" M)?)?',
    "[N M]",
)
RULES = "number: N\nN: /[0-9]/\nM: /[a-z]/\n%declare TEXT\n"
PIECES = ("x", " ", "\n", "1", "a", ":", "<", "\ud800", "é", "0123456789" * 9)


def tagless(element: str) -> Schema:
    needed = {"number": "number" in element, "M": "M" in element, "%declare": "TEXT" in element}
    needed["N"] = "N" in element or needed["number"]
    lines = [rule for rule in RULES.splitlines() if needed[rule.split()[0].rstrip(":")]]
    return schema_of("\n".join([f'start: "<a>" {element} "<b>" "<c>"', *lines, ""]))


def check(schema: Schema, text: str) -> None:
    """`check` and `parse` end, and agree."""
    for bounds in BOUNDS:
        found = schema.check(text, bounds)
        try:
            schema.parse(text, bounds)
        except TraceError as error:
            assert list(error.violations) == found
        else:
            assert not found


def texts(schema: Schema, random: Random, count: int) -> list[str]:
    """Tags and pieces in any order, and the schema's example with faults."""
    pieces = (*schema.tags, *schema.tags, *PIECES)
    anything = ["".join(random.choices(pieces, k=random.randrange(12))) for _ in range(count)]
    return anything + list(faulty(schema.skeleton(), schema.tags, random, count))


@pytest.mark.parametrize("element", TAGLESS)
def test_what_is_optional_may_hold_no_tag(element: str) -> None:
    schema = tagless(element)
    assert schema.check("<a><c>")
    for text in texts(schema, Random(0), 40):
        check(schema, text)


@pytest.mark.parametrize("seed", range(12))
def test_random_schemas(seed: int) -> None:
    for number in range(10 * seed, 10 * seed + 10):
        try:
            schema = random_schema(number).load()
        except SchemaError:
            continue
        for text in texts(schema, Random(number), 6):
            check(schema, text)


SCHEMAS = [schema_of(GOAL), *(load(name) for name in shipped() if name != "triage")]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SCHEMAS), st.data())
def test_any_text(schema: Schema, data: st.DataObject) -> None:
    pieces = st.one_of(st.sampled_from((*schema.tags, *PIECES)), st.text(max_size=3))
    check(schema, "".join(data.draw(st.lists(pieces, max_size=20))))


def test_a_repeated_text_of_an_item_that_cannot_be_read() -> None:
    text = "<g>\n<plan>1:\ud800</plan>\n</g>\n<step>1:\nx</step>"
    assert [v.code for v in schema_of(GOAL).check(text)][:1] == ["not-utf8"]
