"""The policy of admission alone: simulated lengths and adversarial arrivals neither deadlock nor
starve, and no slot is given twice."""

from __future__ import annotations

import random
from bisect import insort
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from operator import attrgetter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nprdsl.runtime.admission import (
    KINDS,
    REMEMBERED,
    LikelyLengths,
    at_start,
    giving_back,
    grown,
)
from nprdsl.runtime.sglang.plugin.kv_reservations import KVReservations
from nprdsl.runtime.sglang.plugin.turns import RequestKind, Turns

CHUNK = 7  # slots of a prompt that a server computes in a round
BY_AGE = attrgetter("number")


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
            likely = self.lengths.likely("schema", 1)
            slots = at_start(likely, used, first.prompt, first.most)
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
                    insort(self.waiting, self.running.pop(number), key=BY_AGE)
            if one.number not in self.running:
                return
            wanted = grown(need, one.prompt, one.most)
            self.held[one.number] = min(wanted, self.held[one.number] + self.free)
        one.written = written


@dataclass(eq=False)
class OnServer(Simulated):
    """The same on a server that computes its prompt in chunks. The prompt goes to the tree."""

    kind: Hashable = "schema"
    least: int = 1
    promised: int = 0
    peak: int = 0
    held_slots: int = 0

    @property
    def slots(self) -> int:
        return self.most

    @property
    def needed(self) -> int:
        return self.prompt + self.written

    @property
    def in_prompt(self) -> bool:
        return self.held_slots < self.prompt

    @property
    def shared_slots(self) -> int:
        return 0 if self.in_prompt else self.prompt


@dataclass(eq=False)
class Plain:
    """A request without a schema."""

    prompt: int
    length: int
    written: int = 0
    held: int = 0

    @property
    def left(self) -> int:
        """Of what has to be computed before it decodes."""
        return self.prompt + self.written - self.held


class Server(World):
    """One whose memory plain requests take too: they are let in by what is free at the moment, and
    put back where they have taken too much."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self.reservations: KVReservations[OnServer] = KVReservations(self)
        self.turns = Turns()
        self.plain_waiting: list[Plain] = []
        self.chunked: Plain | None = None
        self.plain: list[Plain] = []
        self.retracted = 0

    @property
    def free_slots(self) -> int:
        """As `KVReservations` sees it."""
        plain = [*self.plain, self.chunked] if self.chunked else self.plain
        traces = sum(one.held_slots for one in self.reservations.admitted)
        return self.total - traces - sum(one.held for one in plain)

    @property
    def free(self) -> int:
        return self.free_slots

    def round(self) -> None:
        left = self.chunked.left if self.chunked else 0
        self.reservations.grow(left, self.give_back, self.retract)
        kinds = {RequestKind.TRACE: self.waiting, RequestKind.PLAIN: self.plain_waiting}
        self.turns.wait({kind: len(waiting) for kind, waiting in kinds.items()})
        next_one = 0
        while self.waiting and self.turns.due is RequestKind.TRACE:
            next_one = self.reservations.at_start(self.waiting[0])
            if not self.reservations.fits(next_one, left):
                break
            first, next_one = self.waiting.pop(0), 0
            self.turns.let_in(RequestKind.TRACE, self.reservations.let_in(first))
        waiting = [one for one in self.reservations.admitted if one.in_prompt]
        prompts = [one.prompt - one.held_slots for one in waiting]
        if self.plain_waiting and not self.chunked and len(prompts) < 2:
            # SGLang counts the prompt that it is computing itself
            hidden = self.reservations.hidden + next_one + sum(prompts)
            needed = self.plain_waiting[0].left + 1
            if self.free_slots - hidden >= needed:
                self.chunked = self.plain_waiting.pop(0)
                self.turns.let_in(RequestKind.PLAIN, needed)
        self.compute()
        self.running = {one.number: one for one in self.reservations.admitted}
        self.held = {one.number: one.promised for one in self.reservations.admitted}

    def compute(self) -> None:
        for one in self.reservations.admitted:
            if one.in_prompt:
                self.take(one, min(CHUNK, one.prompt - one.held_slots))
                break  # one prompt at a time
        for one in [o for o in self.reservations.admitted if not o.in_prompt]:
            if one.needed > one.promised:
                continue
            self.take(one, one.needed - one.held_slots)
            one.written = min(one.length, one.written + one.burst)
            if one.written == one.length:
                self.reservations.ended(one)
                self.reservations.admitted.remove(one)
                self.ended.append(one.number)
        if self.chunked:
            self.chunked.held += min(CHUNK, self.chunked.left)
            if not self.chunked.left:
                self.plain.append(self.chunked)
                self.chunked = None
        if not self.reservations.may_decode(len(self.plain)):
            self.retract()
            return
        for plain in self.plain:
            plain.written += 1
            plain.held += 1
        self.plain = [plain for plain in self.plain if plain.written < plain.length]
        assert self.free_slots >= self.reservations.outstanding, "what is promised is there"

    def take(self, one: OnServer, slots: int) -> None:
        assert slots <= self.free_slots
        one.held_slots += slots
        assert one.held_slots <= one.promised <= one.most

    def give_back(self, one: OnServer) -> None:
        self.given_back += 1
        assert not (one.in_prompt and one.held_slots), "SGLang is computing it"
        self.reservations.admitted.remove(one)
        one.held_slots = 0
        insort(self.waiting, one, key=BY_AGE)

    def retract(self) -> bool:
        if not self.plain:
            return False
        self.retracted += 1
        self.plain[-1].held = 0
        self.plain_waiting.append(self.plain.pop())
        return True


@pytest.mark.parametrize("kind", [World, Server])
@given(st.integers(0, 2**32), st.integers(20, 300), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_every_request_ends(
    kind: Callable[[int], World], seed: int, total: int, count: int
) -> None:
    """Some arrive at once, some whenever memory is full; each could fill the pool alone. On a
    server plain requests, which want much of it, keep coming too."""
    world, number, rng = kind(total), 0, random.Random(seed)
    for _ in range(20_000):
        if isinstance(world, Server) and len(world.plain_waiting) < 3 and rng.random() < 0.2:
            plain = Plain(rng.randint(1, total // 3), rng.randint(1, total // 3))
            world.plain_waiting.append(plain)
        while number < count and (rng.random() < 0.3 or world.free < 3):
            number += 1
            prompt = rng.randint(1, total // 2)
            budget = rng.randint(1, total - prompt)
            length = rng.choice([budget, rng.randint(1, budget)])
            burst = rng.choice([1, 1, 30])
            world.waiting.append(OnServer(number, prompt, length, budget, burst))
        oldest = min([*world.running, *(r.number for r in world.waiting)], default=0)
        ran = oldest in world.running
        world.round()
        assert not ran or oldest in world.running or oldest in world.ended, "the oldest goes on"
        if len(world.ended) == count:
            break
    assert len(world.ended) == count
    plain = [*world.plain, world.chunked] if isinstance(world, Server) else []
    assert world.free == total - sum(one.held for one in plain if one)


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


def test_clients_that_send_ever_new_kinds_are_forgotten() -> None:
    lengths = LikelyLengths()
    for number in range(2 * KINDS):
        lengths.saw(number, 50)
        lengths.saw("popular", 60)
    assert lengths.likely("popular", 7) == 60
    assert lengths.likely(0, 7) == 7
    assert lengths.likely(2 * KINDS - 1, 7) == 50


def test_the_oldest_never_gives_back() -> None:
    """What it lacks then is with others, whom the engine asks."""
    assert giving_back({3: 10, 5: 20, 9: 10}, 0, 3, 31) == [9, 5]
    assert giving_back({3: 10}, 0, 3, 1) == []


def server(*runs: OnServer, plain: int = 0, total: int = 100) -> Server:
    """One that has let these in, and plain requests of ten slots each."""
    world = Server(total)
    world.plain = [Plain(9, 50, 1, 10) for _ in range(plain)]
    for one in runs:
        world.reservations.let_in(one)
    return world


def test_a_trace_grows_at_the_expense_of_younger_ones_before_plain_requests() -> None:
    runs = [OnServer(n, 10, 90, 90, 1, held_slots=10) for n in (1, 2, 3)]
    world = server(*runs, plain=3, total=63)
    runs[0].written = runs[1].written = 9
    world.reservations.grow(0, world.give_back, world.retract)
    assert runs[0].promised == 22, "all that 3 gave back"
    assert [one.number for one in world.waiting] == [2, 3], "2 is not the oldest"
    assert world.retracted == 0


def test_the_oldest_takes_from_plain_requests_once_it_is_alone() -> None:
    one = OnServer(1, 10, 90, 90, 80, held_slots=10)
    world = server(one, plain=3, total=50)
    one.written = 30
    world.reservations.grow(0, world.give_back, world.retract)
    assert (one.promised, world.retracted) == (40, 2) and world.reservations.hidden == 30
    one.written = 40
    world.chunked, world.plain = Plain(30, 10, held=10), []
    world.reservations.grow(20, world.give_back, world.retract)
    assert one.promised == 40, "it waits for the prompt that is computed"
    assert world.reservations.hidden == 40, "nobody else is let in meanwhile"
    assert not world.reservations.fits(0, 20)


def test_a_prompt_that_is_computed_is_hidden_once() -> None:
    """SGLang counts what is left of it; what it holds already is not left."""
    one = OnServer(1, 60, 90, 90, 1)
    world = server(one)
    promised = one.promised
    for one.held_slots in (0, 20, 59):
        assert world.reservations.hidden == promised - 60


@pytest.mark.parametrize(("need", "most", "slots"), [(30, 100, 46), (90, 500, 130), (90, 95, 95)])
def test_growing_takes_a_few_steps(need: int, most: int, slots: int) -> None:
    assert grown(need, 10, most) == slots
