"""Costs are an upper bound that is kept: exact over bytes, too high where long tokens save some.

The cost of a state counts one way to end: every value by its shortest string, every literal, value
and tag spelled by itself. No legal trace is refused for it, and it never promises too little.
"""

from __future__ import annotations

import itertools
from random import Random

import pytest

from nprdsl.machine.budget import Limits
from nprdsl.machine.machine import Machine
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.schema import Schema
from nprdsl.testing import byte_vocabulary
from nprdsl.testing.tokens import bound_to
from tests.all_spellings import TooManyError, compare
from tests.walks import allowed, schema_of

WORDS = ("xy", "ab", "abc", "no", "none", "a1")


def listing(words: list[str]) -> tuple[Schema, list[str]]:
    source = (
        "%import .parallel (map, process, reduce)\nstart: map{l} process{i, b} reduce{j}\n"
        'l: "<l>" i~0..2 "</l>"\ni: "<i>" N "</i>"\nb: "<b>" N ":" "</b>"\nj: "<j>"\nN: '
    )
    texts = []
    for count in range(3):
        for listed in itertools.permutations(words, count):
            items = "".join(f"<i>{label}</i>" for label in listed)
            branches = "".join(f"<b>{label}:</b>" for label in listed)
            texts.append(f"<l>{items}</l>{branches}<j>")
    return schema_of(source + " | ".join(f'"{word}"' for word in words)), texts


def two_values(words: list[str]) -> tuple[Schema, list[str]]:
    defined = " | ".join(f'"{word}"' for word in words)
    schema = schema_of(f'start: "<s>" "(" V ", " V ")" "</s>"\nV: {defined}\n')
    return schema, [f"<s>({one}, {other})</s>" for one in words for other in words]


def written(bound: BoundSchema, budget: int, random: Random) -> int:
    """How many tokens the machine writes."""
    machine = Machine(bound, limits=Limits(max_tokens=budget))
    machine.start()
    while machine.ended is None:
        branch = random.choice(machine.live)
        choices = allowed(machine.mask(branch), bound.vocabulary.size)
        machine.advance(branch, random.choice(choices))
    assert bound.check(machine.trace().ids) == []
    return len(machine.trace().ids)


@pytest.mark.parametrize("kind", ["listing", "values"])
@pytest.mark.parametrize("seed", range(16))
def test_costs_never_promise_too_little(kind: str, seed: int) -> None:
    random = Random(seed)
    words = random.sample(WORDS, random.randint(1, 2))
    schema, texts = listing(words) if kind == "listing" else two_values(words)
    special = [tag for tag in schema.tags if random.random() < 0.8]
    bare = random.choice(texts)
    begins = [random.randrange(len(bare)) for _ in range(random.randint(1, 6))]
    merges = {bare[at : at + random.randint(2, 5)] for at in begins}
    merges = {m for m in merges if len(m) > 1 and not any(tag in m for tag in special)}
    bound = bound_to(schema, byte_vocabulary(special, sorted(merges)))
    try:
        found = compare(bound, texts)
    except TooManyError:
        return
    assert (found.refused, found.stuck, found.cheap) == ([], [], [])
    for budget in (bound.minimum, bound.minimum + 1, bound.minimum + 9):
        assert written(bound, budget, random) <= budget


@pytest.mark.parametrize(
    ("merges", "cost", "fewest"),
    [
        ([], 10, 10),
        (["xy"], 8, 8),  # within a value
        ([", "], 9, 9),  # within a literal
        (["abcd"], 10, 8),  # a longer value in fewer tokens
        (["(x", "y)"], 10, 8),  # over the borders of values
        (["y, x"], 10, 7),
    ],
)
def test_where_the_minimum_is_not_the_fewest(merges: list[str], cost: int, fewest: int) -> None:
    schema = schema_of('start: "<s>" "(" V ", " V ")" "</s>"\nV: "xy" | "abcd"\n')
    texts = [f"<s>({a}, {b})</s>" for a in ("xy", "abcd") for b in ("xy", "abcd")]
    bound = bound_to(schema, byte_vocabulary(schema.tags, merges))
    found = compare(bound, texts)
    assert bound.minimum == cost
    assert [dear for dear in found.dear if not dear[0]] == ([("", cost, fewest)] * (cost > fewest))
    assert (found.refused, found.stuck, found.cheap) == ([], [], [])
