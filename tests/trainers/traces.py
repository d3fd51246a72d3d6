"""Rows of real traces and of random graphs, for the tests of the trainers."""

from __future__ import annotations

from functools import cache
from random import Random

import numpy as np

import nprdsl
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.testing import byte_vocabulary
from nprdsl.trainers.batch.training_rows import TrainingRow, training_row

SCHEMAS = ("npr", "multiverse", "threadweaver", "parallel_r1", "arith")


@cache
def bound(name: str) -> BoundSchema:
    schema = nprdsl.load(name)
    return schema.bind(byte_vocabulary(special=schema.tags))


def trace(name: str, seed: int, prompt: int = 7) -> TrainingRow:
    """A random legal trace of the schema as a row."""
    made, random = bound(name), Random(seed)
    matcher, ids = made.matcher(), [ord(random.choice("abc ")) for _ in range(prompt)]
    for _ in range(random.randint(20, 120)):
        if matcher.finished:
            break
        ids.append(choose(random, matcher.mask()))
        matcher.advance(ids[-1])
    while not matcher.may_end:
        ids.append(choose(random, matcher.tight(0)))
        matcher.advance(ids[-1])
    return training_row(ids, made.parse(ids, prompt=prompt).layout)


def choose(random: Random, mask: np.ndarray) -> int:
    bits = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
    tags = bits[bits >= 256]
    pool = tags if len(tags) and random.random() < 0.4 else bits
    return int(random.choice(pool.tolist()))
