"""Slots are conserved, reused lowest first, and a log that grows keeps what it holds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nprdsl.runtime.local.kv_log import Extent, KvLog, SlotPool


def test_lowest_room_is_used_first() -> None:
    pool = SlotPool(10)
    assert pool.allocate(1, 4) == Extent(0, 4)
    assert pool.allocate(2, 3) == Extent(4, 3)
    assert pool.allocate(3, 4) is None
    pool.release(1)
    assert pool.allocate(4, 2) == Extent(0, 2)
    assert pool.allocate(5, 3) == Extent(7, 3)
    assert pool.free == 2


def test_neighbours_join_again() -> None:
    pool = SlotPool(9)
    for owner in range(3):
        pool.allocate(owner, 3)
    for owner in (1, 0, 2):
        pool.release(owner)
    assert pool.allocate(7, 9) == Extent(0, 9)


def test_a_lost_slot_is_noticed() -> None:
    pool = SlotPool(9)
    pool.allocate(1, 3)
    pool._owned[1] = Extent(0, 2)
    with pytest.raises(AssertionError, match="slots 2 to 3 are lost or shared"):
        pool.check()


def test_lengths_that_are_near_become_equal_where_there_is_room() -> None:
    pool = SlotPool(180)
    assert pool.allocate(1, 57) == Extent(0, 60)
    assert pool.allocate(2, 60) == Extent(60, 60)
    assert pool.allocate(3, 64) is None
    assert pool.allocate(3, 59) == Extent(120, 60)
    tight = SlotPool(57)
    assert tight.allocate(1, 57) == Extent(0, 57)


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="max_kv_tokens=1 or more"):
        SlotPool(0)


class PoolMachine(RuleBasedStateMachine):
    """Any order of requests coming and going."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = SlotPool(40)
        self.owned: dict[int, Extent] = {}
        self.number = 0

    @rule(length=st.integers(1, 20))
    def come(self, length: int) -> None:
        self.number += 1
        extent = self.pool.allocate(self.number, length)
        if extent is not None:
            assert length <= extent.length <= length + length // 8
            self.owned[self.number] = extent
        else:
            assert self.pool.free < 40

    @rule(choice=st.integers(0, 100))
    def go(self, choice: int) -> None:
        if self.owned:
            owner = sorted(self.owned)[choice % len(self.owned)]
            self.pool.release(owner)
            del self.owned[owner]

    @invariant()
    def conserved(self) -> None:
        self.pool.check()
        assert self.pool.owners == self.owned.keys()
        slots = [s for e in self.owned.values() for s in range(e.start, e.end)]
        assert len(slots) == len(set(slots)) == 40 - self.pool.free


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_growth_keeps_what_was_written() -> None:
    log = KvLog(1, 64, first_capacity=4)
    first, second = torch.randn(1, 2, 3, 5), torch.randn(1, 2, 2, 5)
    log.write_to(slice(0, 3), 3)
    log.layers[0].update(first, -first)
    assert log.capacity == 4
    log.write_to(torch.tensor([9, 20]), 21)
    keys, values = log.layers[0].update(second, -second)
    assert log.capacity == 32
    assert torch.equal(keys[:, :, :3], first)
    assert torch.equal(values[:, :, [9, 20]], -second)
    assert float(keys[:, :, 21:].abs().max()) == 0.0


def test_a_cleared_extent_is_finite() -> None:
    log = KvLog(1, 16, first_capacity=16)
    log.write_to(slice(4, 6), 6)
    log.layers[0].update(torch.full((1, 1, 2, 3), torch.nan), torch.ones(1, 1, 2, 3))
    log.clear(Extent(4, 2))
    assert torch.isfinite(log.layers[0].keys).all()


def test_two_rows_of_a_batch_are_refused() -> None:
    log = KvLog(1, 16)
    log.write_to(slice(0, 1), 1)
    with pytest.raises(ValueError, match="one row"):
        log.layers[0].update(torch.zeros(2, 1, 1, 3), torch.zeros(2, 1, 1, 3))
