"""Batches: every row once a pass, in an order that follows from the seed, or that of the data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nprdsl.trainers.stages.data import Order

sizes = st.integers(1, 9)


@given(sizes, sizes, st.integers(0, 99))
def test_every_row_is_taken_once_a_pass(rows: int, size: int, seed: int) -> None:
    order = Order(rows, size, seed)
    taken = [row for number in range(2 * rows) for row in order.batch(number)]
    for begin in range(0, 2 * rows, rows):
        assert sorted(taken[begin : begin + rows]) == list(range(rows))
    assert order.span(0, rows) == Order(rows, 1, seed).span(0, rows)


def test_rows_keep_their_order_where_that_is_asked_for() -> None:
    assert [Order(5, 2, 0, shuffled=False).batch(n) for n in range(3)] == [[0, 1], [2, 3], [4, 0]]
    assert Order(50, 50, 0).batch(0) != list(range(50)) != Order(50, 50, 1).batch(0)
    assert Order(50, 50, 0).batch(0) != Order(50, 50, 0).batch(1)


def test_batches_of_some_passes() -> None:
    assert [Order(10, 4, 0).batches(p) for p in (0.1, 1, 2)] == [1, 2, 5]
    with pytest.raises(ValueError, match="0 rows"):
        Order(0, 1, 0)
