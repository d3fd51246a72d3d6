"""Ids that are no tokens are faults of a trace, and what is no integer is no id."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nprdsl
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.masks.matcher import IllegalTokenError
from nprdsl.structure.violations import ViolationCode

TEXT = "<guideline><plan>1: 2+3</plan></guideline><step>1: 5</step><takeaway>5</takeaway>5"


@pytest.fixture(scope="module")
def bound() -> BoundSchema:
    tokens = {n: bytes([n]) for n in range(256)} | {300: "", 302: "5"}
    return nprdsl.load("arith").bind(nprdsl.Vocabulary(tokens, {"<step>": 301}, size=400))


@pytest.mark.parametrize("token", [-1, -400, 256, 300, 399, 400, 10**12])
@pytest.mark.parametrize("at", [0, 3, 20, None])
def test_an_id_of_no_token_is_a_fault(bound: BoundSchema, token: int, at: int | None) -> None:
    ids = list(bound.encode(TEXT))
    ids.insert(len(ids) if at is None else at, token)
    found = bound.check(ids)
    assert [v.code for v in found] == [ViolationCode.UNKNOWN_TOKEN]
    assert str(token) in found[0].message
    with pytest.raises(nprdsl.TraceError):
        bound.parse(ids)
    matcher = bound.matcher()
    assert not matcher.accepts(token)
    with pytest.raises(IllegalTokenError):
        matcher.advance(token)


def test_integers_of_numpy_are_ids(bound: BoundSchema) -> None:
    ids = bound.encode(TEXT)
    arrays: list[Any] = [np.array(ids), np.array(ids, np.uint16), list(np.array(ids)), list(ids)]
    for given in arrays:
        assert bound.check(given) == []
        parsed = bound.parse(given)
        assert parsed.ids == ids
        assert {type(token) for token in parsed.ids} == {int}


@pytest.mark.parametrize("token", [True, np.bool_(1), 1.0, "1", None])
def test_what_is_no_integer_is_no_id(bound: BoundSchema, token: Any) -> None:
    with pytest.raises(TypeError):
        bound.check([*bound.encode(TEXT), token])


@pytest.mark.parametrize("prompt", [-1, 1000])
def test_a_prompt_is_a_part_of_the_ids(bound: BoundSchema, prompt: int) -> None:
    with pytest.raises(ValueError, match="the prompt has"):
        bound.check(bound.encode(TEXT), prompt=prompt)
    assert bound.check(bound.encode(TEXT), prompt=0) == []
