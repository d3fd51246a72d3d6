"""Schemas, vocabularies and bindings go to other processes: loaders of data, spawned workers."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest

import nprdsl
from nprdsl import Limits, Vocabulary
from tests.machines import byte_bound
from tests.runtime.tiny_models import byte_tokenizer

Value = TypeVar("Value")
WAYS: list[Callable[[object], object]] = [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy]


@pytest.mark.parametrize("way", WAYS, ids=["pickle", "deepcopy"])
@pytest.mark.parametrize("name", ["npr", "parallel_r1", "arith"])
def test_a_schema_that_was_used_is_the_same(way: Callable[[Value], Value], name: str) -> None:
    schema = nprdsl.load(name)
    trace = schema.examples[0].trace
    read = schema.parse(trace)
    same = way(schema)
    assert same.grammar.digest == schema.grammar.digest and same.examples == schema.examples
    half = trace[: len(trace) // 2]
    assert same.check(trace) == [] and same.check(half) == schema.check(half) != []
    assert same.parse(trace) == read == way(read) and hash(way(read)) == hash(read)


@pytest.mark.parametrize("way", WAYS, ids=["pickle", "deepcopy"])
def test_a_vocabulary_is_the_same(way: Callable[[Value], Value]) -> None:
    twins = Vocabulary({0: "a", 3: "ab", 1: "a", 2: b"\xff"}, {"<x>": 5}, "<x>", size=9)
    read = Vocabulary.from_tokenizer(byte_tokenizer(["<step>"]))
    for vocabulary in (twins, read):
        same = way(vocabulary)
        assert same.digest == vocabulary.digest
        assert same.encode("aab") == vocabulary.encode("aab")
        assert [same.bytes_of(i) for i in range(9)] == [vocabulary.bytes_of(i) for i in range(9)]


@pytest.mark.parametrize("way", WAYS, ids=["pickle", "deepcopy"])
def test_a_binding_is_the_same(way: Callable[[Value], Value]) -> None:
    bound = byte_bound("npr")
    same = way(bound)
    one, other = (nprdsl.Machine(each, limits=Limits(max_tokens=200)) for each in (bound, same))
    assert one.start() == other.start()
    assert np.array_equal(one.mask(0), other.mask(0)) and bound.minimum == same.minimum
