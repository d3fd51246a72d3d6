"""Exports of random schemas accept what the machine writes, in the libraries that they are for."""

from __future__ import annotations

import re
from random import Random

import pytest

from nprdsl.export import ExportError, ExportLimits, export
from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.testing import byte_vocabulary, random_schema
from nprdsl.testing.properties import written_trace

pytest.importorskip("xgrammar", reason="pip install xgrammar")
pytest.importorskip("llguidance", reason="pip install llguidance")

from tests.rivals import LLGuidance, XGrammar

LIMITS = ExportLimits(items=12)
LONGEST = 30  # tokens of a shortest trace
LARGEST = 4000  # characters of a regular expression
TOGETHER = 10


def accepted(bound: BoundSchema, target: str, texts: list[str]) -> list[bool]:
    exported = export(bound.grammar, target, limits=LIMITS)
    if target == "outlines":
        if len(exported.text) > LARGEST:
            return []
        pattern = re.compile(exported.text)
        return [pattern.fullmatch(text) is not None for text in texts]
    if target == "xgrammar":
        return [XGrammar(exported, bound.vocabulary).accepts(text) for text in texts]
    rival = LLGuidance(exported, LLGuidance.tokenizer_of(bound.vocabulary), bound.vocabulary.size)
    return [rival.accepts(text) for text in texts]


@pytest.mark.parametrize("target", ["xgrammar", "llguidance", "outlines"])
@pytest.mark.parametrize("first", range(0, 80, TOGETHER))
def test_exports_accept_what_the_machine_writes(first: int, target: str) -> None:
    for number in range(first, first + TOGETHER):
        drawn = random_schema(number, max_depth=1)
        try:
            bound = drawn.load().bind(byte_vocabulary())
        except SchemaError:
            continue
        if bound.minimum > LONGEST:
            continue
        random, budget = Random(number), max(1, bound.minimum)
        written = [written_trace(bound, random, budget + extra) for extra in (0, 3)]
        texts = [trace.text for trace in written if trace is not None]
        try:
            found = accepted(bound, target, texts)
        except ExportError:
            continue
        assert all(found), f"schema {number}: {texts}\n{drawn.source}"
