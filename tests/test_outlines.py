"""Outlines itself, with a schema's logits processor and with a schema as an output type."""

from __future__ import annotations

import copy
from typing import Any

import pytest

outlines = pytest.importorskip("outlines", reason="pip install outlines")

from nprdsl.outlines import OutlinesWarning, from_transformers, output_type  # noqa: E402
from tests.test_logits_processor import LIMITS, PROMPTS, model, schema, tokenizer  # noqa: E402


def wrapped(name: str, *, special: bool) -> tuple[Any, Any]:
    made = copy.deepcopy(tokenizer(name, special=special))  # Outlines changes it
    return from_transformers(model(name, special=special), made, schema(name)), made


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("name", ["arith", "threadweaver", "triage", "spawn"])
def test_a_generator_writes_legal_texts(name: str, special: bool) -> None:
    engine, made = wrapped(name, special=special)
    processor = schema(name).logits_processor(made, LIMITS)
    generator = outlines.Generator(engine, processor=processor)
    length = {"max_new_tokens": processor.max_new_tokens}
    alone = [generator(prompt, **length) for prompt in PROMPTS]
    assert [schema(name).check(text) for text in alone] == [[]] * len(PROMPTS)
    assert generator.batch(PROMPTS[:1], **length) == alone[:1]
    for text in generator.batch(PROMPTS, **length):
        assert schema(name).check(text) == []
    several = generator(PROMPTS[0], do_sample=True, num_return_sequences=2, **length)
    assert [schema(name).check(text) for text in several] == [[], []]


def test_stock_wrapping_does_where_tags_are_spelled() -> None:
    made = copy.deepcopy(tokenizer("npr", special=False))
    processor = schema("npr").logits_processor(made, LIMITS)
    engine = outlines.from_transformers(model("npr", special=False), made)
    text = outlines.Generator(engine, processor=processor)("ab", max_new_tokens=111)
    assert schema("npr").check(text) == []


@pytest.mark.parametrize("special", [True, False])
def test_a_schema_is_an_output_type(special: bool) -> None:
    engine, made = wrapped("data", special=special)
    with pytest.warns(OutlinesWarning, match="numbered"):
        kind = output_type(schema("data"), made)
    text = engine("2*3?", kind, max_new_tokens=110)
    assert schema("data").check(text) == []
    assert text.startswith("<todo><i>1</i>")
