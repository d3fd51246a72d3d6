"""Every random schema that loads keeps every property; `make fuzz` does the same for 20,000."""

from __future__ import annotations

import pytest

from nprdsl.testing import judge, random_schema

TOGETHER = 10


@pytest.mark.parametrize("first", range(0, 150, TOGETHER))
def test_a_random_schema_is_refused_or_keeps_every_property(first: int) -> None:
    for number in range(first, first + TOGETHER):
        drawn = random_schema(number)
        failure = judge(drawn, number, traces=2).broken
        assert failure is None, f"schema {number}\n{drawn.source}"
