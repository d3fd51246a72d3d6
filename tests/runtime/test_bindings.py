"""Bindings are kept, and do not grow for ever."""

from __future__ import annotations

from random import Random

import numpy as np

import nprdsl
from nprdsl.machine.budget import Limits
from nprdsl.machine.machine import Machine
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.runtime.schema_cache import MOST_STATES, Bindings
from nprdsl.schema import Schema
from nprdsl.testing import byte_vocabulary
from tests.walks import GOAL, schema_of

NPR = nprdsl.load("npr")
VOCABULARY = byte_vocabulary(special=NPR.tags)
LIMITS = Limits(max_tokens=120, branches=3)


def written(bound: BoundSchema, seed: int, limits: Limits = LIMITS) -> tuple[int, ...]:
    """A random trace: labels, and texts that branches repeat, are new in each."""
    random = Random(seed)
    machine = Machine(bound, prompt=(1, 2), limits=limits)
    machine.start()
    while machine.live:
        branch = machine.live[0]
        allowed = np.unpackbits(machine.mask(branch).view(np.uint8), bitorder="little")
        machine.advance(branch, random.choice(np.flatnonzero(allowed).tolist()), -1.0)
    return machine.trace().ids


def test_a_schema_is_bound_once() -> None:
    bindings = Bindings(VOCABULARY)
    assert bindings.get(NPR) is bindings.get(nprdsl.load("npr"))
    assert bindings.get(nprdsl.load("arith")) is not bindings.get(NPR)


def test_a_binding_that_grows_is_made_anew_and_writes_the_same() -> None:
    goal = schema_of(GOAL)
    bindings = Bindings(byte_vocabulary(special=goal.tags), states=6000)
    alone = goal.bind(byte_vocabulary(special=goal.tags))
    sizes, made = [], set()
    for seed in range(60):
        bound = bindings.get(goal)
        made.add(bound)
        assert written(bound, seed) == written(alone, seed)
        sizes.append(bindings.kept)
    assert alone.kept > 12_000, "nothing grew"
    assert len(made) > 2
    assert max(sizes) < 6000 + 2000, "one request at most on top of the limit"


def test_many_limits_leave_little_behind() -> None:
    """Each is bound anew; a client that says others in each request must cost nobody's masks."""
    bindings = Bindings(VOCABULARY)
    bound = bindings.get(NPR)
    sizes = []
    for blocks in range(1, 400):
        assert bindings.get(NPR) is bound
        Machine(bound, (1, 2), Limits(max_tokens=60, blocks=blocks, depth=blocks))
        sizes.append(bindings.kept)
    assert max(sizes[100:]) == max(sizes[:100]) < MOST_STATES // 10
    few = Limits(max_tokens=120, branches=3, blocks=1)
    assert written(bound, 0, few) == written(NPR.bind(VOCABULARY), 0, few)


def test_the_least_recently_used_go_first() -> None:
    bindings = Bindings(VOCABULARY, schemas=2)
    schemas = [own(n) for n in range(3)]
    first, second = bindings.get(schemas[0]), bindings.get(schemas[1])
    assert bindings.get(schemas[0]) is first
    bindings.get(schemas[2])
    assert bindings.get(schemas[0]) is first
    assert bindings.get(schemas[1]) is not second


def test_a_large_one_lets_others_go() -> None:
    bindings = Bindings(VOCABULARY, states=200)
    small = bindings.get(own(0))
    written(bindings.get(NPR), 1, Limits(max_tokens=2000, branches=8))
    assert bindings.kept > 200
    bindings.get(own(1))
    assert bindings.get(own(0)) is not small


def test_the_limit_is_far_from_what_one_trace_needs() -> None:
    bound = NPR.bind(VOCABULARY)
    written(bound, 1, Limits(max_tokens=2000, branches=8))
    assert bound.kept < MOST_STATES // 10


def own(number: int) -> Schema:
    source = f'start: "<step>" NUMBER "</step>"\nNUMBER: /{number}[0-9]/\n'
    return schema_of(source)
