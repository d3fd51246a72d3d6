"""Labels of one list must differ: room for a further one in masks and costs, and none where they
run out."""

from __future__ import annotations

from random import Random

import pytest

from nprdsl.machine.budget import Limits
from nprdsl.machine.machine import Machine
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.schema import Schema
from nprdsl.testing import byte_vocabulary
from tests.walks import allowed, schema_of

LIST = """
%import .parallel (map, process, reduce)
start: map{{list}} process{{item, branch}} reduce{{join}}
list: {list}
item: {item}
branch: "<b>" N "</b>"
join: "<j>"
N: /{pattern}/
"""
MODES = pytest.mark.parametrize("special", [True, False], ids=["special", "spelled"])
WIDE = (
    "[0-9]{5}",
    "[a-z]{4,12}",
    "[0-9]{4}-(0[1-9]|1[0-2])-([0-2][0-9]|3[01])",
    "[0-9a-f]{8}",
    "[A-Z][a-z]{3,20}",
    "[一-龥]{2,4}",
    "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "(a|b)*c",
    "[0-9]|[0-9]{5}",
)


def listing(
    pattern: str, items: str = '"<l>" item~1..12 "</l>"', item: str = '"<i>" N "</i>"'
) -> Schema:
    return schema_of(LIST.format(pattern=pattern, list=items, item=item))


def bind(schema: Schema, special: bool = True) -> BoundSchema:
    return schema.bind(byte_vocabulary(special=schema.tags if special else ()))


def write(bound: BoundSchema, budget: int, random: Random) -> str:
    """A random trace that likes further items, within a budget."""
    machine, tags = Machine(bound, limits=Limits(max_tokens=budget)), bound.vocabulary.special
    machine.start()
    while machine.ended is None:
        branch = random.choice(machine.live)
        tokens = allowed(machine.mask(branch), bound.vocabulary.size)
        assert tokens, (
            f"no token may follow {bound.vocabulary.text([w.token for w in machine.written])!r}"
        )
        liked = [t for t in tokens if t in {tags.get("<i>"), *b"<i"}]
        machine.advance(branch, random.choice(liked or tokens))
    trace = machine.trace()
    assert len(trace.ids) <= budget
    assert bound.check(trace.ids) == []
    return trace.text


@MODES
@pytest.mark.parametrize("pattern", WIDE)
def test_a_further_label_is_found_in_wide_languages(pattern: str, special: bool) -> None:
    bound = bind(listing(pattern), special)
    for budget in (bound.minimum, bound.minimum + 1, 2000):
        text = write(bound, budget, Random(budget))
    assert text.count("<i>") == 12, "there was room for all items"
