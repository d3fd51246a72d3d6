"""The policy of admission alone: simulated lengths and adversarial arrivals neither deadlock nor
starve, and no slot is given twice."""

from __future__ import annotations

import random
from bisect import insort
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nprdsl.runtime.admission import REMEMBERED, LikelyLengths, giving_back, grown


@dataclass
class Simulated:
    """A request that writes `length` slots behind its prompt, at most `budget`."""

    number: int
    prompt: int
    length: int
    budget: int
    burst: int  # slots a round
    written: int = 0

    @property
    def most(self) -> int:
        return self.prompt + self.budget


@dataclass
class World:
    """An engine without a model: it follows the policy, a round at a time."""

    total: int
    lengths: LikelyLengths = field(default_factory=LikelyLengths)
    waiting: list[Simulated] = field(default_factory=list)
    running: dict[int, Simulated] = field(default_factory=dict)
    held: dict[int, int] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)
    given_back: int = 0

    @property
    def free(self) -> int:
        return self.total - sum(self.held.values())

    def round(self) -> None:
        while self.waiting:
            first = self.waiting[0]
            used = first.prompt + first.written
            likely = first.prompt + self.lengths.likely("schema", 1)
            slots = min(first.most, max(likely, grown(used, first.prompt, first.most)))
            if slots > self.free:
                break
            self.running[first.number] = self.waiting.pop(0)
            self.held[first.number] = slots
        for number in sorted(self.running):
            if number in self.running:
                self.go_on(self.running[number])
        assert self.free >= 0
        for number, one in list(self.running.items()):
            assert one.prompt + one.written <= self.held[number] <= one.most
            if one.written == one.length:
                self.lengths.saw("schema", one.length)
                self.ended.append(number)
                del self.running[number], self.held[number]

    def go_on(self, one: Simulated) -> None:
        written = min(one.length, one.written + one.burst)
        need = one.prompt + written
        more = need - self.held[one.number]
        if more > 0:
            if self.free < more:
                for number in giving_back(self.held, self.free, one.number, more):
                    self.given_back += 1
                    del self.held[number]
                    insort(self.waiting, self.running.pop(number), key=lambda r: r.number)
            if one.number not in self.running:
                return
            wanted = grown(need, one.prompt, one.most)
            self.held[one.number] = min(wanted, self.held[one.number] + self.free)
        one.written = written


@given(st.randoms(use_true_random=False), st.integers(20, 300), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_every_request_ends(rng: random.Random, total: int, count: int) -> None:
    """Some arrive at once, some whenever memory is full; each could fill the pool alone."""
    world, number = World(total), 0
    for _ in range(20_000):
        while number < count and (rng.random() < 0.3 or world.free < 3):
            number += 1
            prompt = rng.randint(1, total // 2)
            budget = rng.randint(1, total - prompt)
            length = rng.choice([budget, rng.randint(1, budget)])
            world.waiting.append(Simulated(number, prompt, length, budget, rng.choice([1, 1, 30])))
        oldest = min([*world.running, *(r.number for r in world.waiting)], default=0)
        ran = oldest in world.running
        world.round()
        assert not ran or oldest in world.running or oldest in world.ended, "the oldest goes on"
        if len(world.ended) == count:
            break
    assert len(world.ended) == count
    assert world.free == total


def test_nobody_starves_among_endless_arrivals() -> None:
    """A long request ends while short ones keep coming."""
    world = World(100)
    world.waiting.append(Simulated(1, 10, 90, 90, 1))
    for number in range(2, 1000):
        world.waiting.append(Simulated(number, 5, 10, 90, 1))
        world.round()
        if 1 in world.ended:
            break
    assert len(world.ended) > 1, "others ran meanwhile"
    assert number <= 92


def test_as_many_run_as_fit_what_they_take() -> None:
    """Budgets of 300 in 1,200 slots would let three run; they take 60."""
    world = World(1200)
    for _ in range(20):
        world.lengths.saw("schema", 60)
    world.waiting = [Simulated(n, 30, 60, 300, 1) for n in range(1, 31)]
    world.round()
    assert len(world.running) == 13
    while world.waiting or world.running:
        world.round()
    assert world.given_back == 0


def test_the_youngest_give_back_and_no_more_than_must() -> None:
    held = {3: 10, 5: 20, 9: 10, 12: 10}
    assert giving_back(held, 0, 3, 5) == [12]
    assert giving_back(held, 0, 3, 15) == [12, 9]
    assert giving_back(held, 5, 3, 15) == [12]
    assert giving_back(held, 20, 3, 15) == []


def test_who_cannot_be_helped_by_younger_ones_gives_back_itself() -> None:
    held = {3: 10, 5: 20, 9: 10}
    assert giving_back(held, 0, 9, 1) == [9]
    assert giving_back(held, 0, 5, 11) == [5], "9 goes on: its slots would not suffice"


def test_what_is_likely_follows_what_was_seen() -> None:
    lengths = LikelyLengths()
    assert lengths.likely("a", 7) == 7
    for length in range(1, 101):
        lengths.saw("a", length)
    assert lengths.likely("a", 7) == 91
    assert lengths.likely("a", 95) == 95
    assert lengths.likely("b", 7) == 7
    for _ in range(REMEMBERED):
        lengths.saw("a", 5)
    assert lengths.likely("a", 1) == 5, "what is long ago is forgotten"


@pytest.mark.parametrize(("need", "most", "slots"), [(30, 100, 46), (90, 500, 130), (90, 95, 95)])
def test_growing_takes_a_few_steps(need: int, most: int, slots: int) -> None:
    assert grown(need, 10, most) == slots
