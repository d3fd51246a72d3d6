"""A schema's text in the form of those that ship."""

from __future__ import annotations

import re
from importlib import resources
from importlib.resources.abc import Traversable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.grammar.formatting import formatted
from nprdsl.grammar.reader import read
from nprdsl.testing.schemas import random_schema
from tests.schema_chunks import Chunk, chunks

SHIPPED = [f for f in resources.files("nprdsl.grammars").iterdir() if f.name.endswith(".lark")]


def meaning(text: str) -> str | None:
    """What a text declares, without places; None where it cannot be read."""
    try:
        declared = read(text, "x").declarations
    except SchemaError:
        return None
    return re.sub(r"Span\([^)]*\)", "", repr(declared))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_schemas_that_ship_have_this_form(file: Traversable) -> None:
    text = file.read_text(encoding="utf-8")
    assert formatted(text) == text


@given(st.integers(0, 299))
def test_only_white_space_changes(number: int) -> None:
    text = random_schema(number).source
    new = formatted(text)
    assert meaning(new) == meaning(text)
    assert formatted(new) == new


@pytest.mark.parametrize("chunk", list(chunks()), ids=str)
def test_texts_with_faults_keep_their_meaning(chunk: Chunk) -> None:
    text = chunk.source.lstrip("\n")
    new = formatted(text)
    assert meaning(new) == meaning(text)
    assert formatted(new) == new
    if meaning(text) is None:
        assert new == text


def test_what_an_author_types_becomes_tidy() -> None:
    typed = """


%import   .parallel (map, process,reduce)
start:map{list}   process{item, step}  reduce{end}   //  the block
list :  "<l>"  item+ "</l>"
// of several words
item: "<i>"   LABEL ":" "a  b"
   |  "<j>" LABEL   ":" TEXT
LABEL :   /[ ]+\\/  x/
%declare    TEXT


"""
    assert formatted(typed) == (
        "%import .parallel (map, process,reduce)\n"
        "start: map{list} process{item, step} reduce{end}     //  the block\n"
        'list:  "<l>" item+ "</l>"\n'
        "// of several words\n"
        'item:  "<i>" LABEL ":" "a  b"\n'
        '     | "<j>" LABEL ":" TEXT\n'
        "LABEL: /[ ]+\\/  x/\n"
        "%declare TEXT\n"
    )


@pytest.mark.parametrize("text", ["", "\n\n", "start: (", "start: \\\n  x\n", "\ufeffstart: x\n"])
def test_odd_texts(text: str) -> None:
    assert formatted(text) in (text, text.removeprefix("\ufeff"), "")
