"""Many requests: bounded memory, no deadlock, failures apart, seeds that hold in any company."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nprdsl.machine.actions import Action
from nprdsl.machine.transcript import Alternatives
from nprdsl.runtime.errors import CapacityError
from nprdsl.runtime.local import scheduler as scheduling
from nprdsl.runtime.local.attention_mask import RequestRows
from nprdsl.runtime.local.forward import Forward
from nprdsl.runtime.local.requests import Decoding, ScheduledRequest
from nprdsl.runtime.local.scheduler import Scheduler
from nprdsl.runtime.sampling import Sampling
from nprdsl.structure.events import EndReason
from tests.runtime.scripted import (
    Force,
    Sample,
    ScriptedMachine,
    Split,
    random_masks,
    random_plan,
    size,
)
from tests.runtime.tiny_models import WIDTH, model


def job(seed: int, *, depth: int = 1, decoding: Decoding = Decoding.PARALLEL) -> ScheduledRequest:
    rng = random.Random(seed)
    plan = random_plan(rng, WIDTH, depth, reread=True)
    prompt = tuple(rng.choices(range(WIDTH), k=rng.randint(1, 8)))
    machine = ScriptedMachine(plan, prompt, WIDTH, random_masks(rng, WIDTH))
    return ScheduledRequest(
        machine, prompt, len(prompt) + size(plan), Sampling(seed=seed), decoding
    )


def scheduler(total: int = 2000, max_rows: int = 1024) -> Scheduler:
    return Scheduler(Forward(model("llama"), total), WIDTH, max_rows=max_rows)


def run(one: Scheduler) -> None:
    while one.busy:
        one.round()
        one.check()


def tokens(request: ScheduledRequest) -> list[tuple[int, int]]:
    machine = request.machine
    assert isinstance(machine, ScriptedMachine)
    by_branch = sorted((f.branch, f.position, f.token) for f in machine.fed)
    return [(branch, token) for branch, _, token in by_branch]


def test_two_hundred_requests_in_bounded_memory() -> None:
    total = 600
    one = scheduler(total)
    jobs = [job(i) for i in range(200)]
    assert sum(j.slots for j in jobs) > 10 * total
    requests = [one.submit(j) for j in jobs]
    run(one)
    assert all(r.ended is EndReason.COMPLETED for r in requests)
    assert one.pool.free == total
    assert one.forward.log.high <= total and one.forward.log.capacity <= total


def test_first_come_first_served() -> None:
    one = scheduler(100)
    plan = (Force((1,)), Sample(3))

    def request(slots: int) -> ScheduledRequest:
        machine = ScriptedMachine(plan, (1,), WIDTH)
        return one.submit(ScheduledRequest(machine, (1,), slots, least=slots - 1))

    large, small = [request(90), request(90)], request(5)
    one.round()
    assert one.pool.owners == {large[0].number}, "a small request does not overtake a large one"
    run(one)
    assert small.ended is EndReason.COMPLETED


def test_what_can_never_fit_is_refused_at_once() -> None:
    one = scheduler(100)
    with pytest.raises(CapacityError, match=r"101 tokens .* max_kv_tokens is 100"):
        one.submit(ScheduledRequest(ScriptedMachine((Sample(1),), (1,), WIDTH), (1,), 101))
    with pytest.raises(CapacityError, match=r"100: raise it, or lower Limits.max_tokens$"):
        one.submit(ScheduledRequest(ScriptedMachine((Sample(1),), (1,), WIDTH), (1,), 101))
    prompt = (1,) * 100
    with pytest.raises(CapacityError, match=r"or shorten the prompt, which has 100$"):
        one.submit(ScheduledRequest(ScriptedMachine((Sample(1),), prompt, WIDTH), prompt, 110))
    machine = ScriptedMachine((Sample(1),), (1,), WIDTH)
    with pytest.raises(CapacityError, match=r"100: raise it$"):  # no prompt is short enough
        one.submit(ScheduledRequest(machine, (1,), 110, least=100))
    assert not one.busy


@pytest.mark.parametrize(("total", "length"), [(640, 40), (639, 36)])
def test_extents_are_made_equal_where_the_pool_holds_sixteen(total: int, length: int) -> None:
    one = scheduler(total)
    machine = ScriptedMachine((Sample(2),), (1,), WIDTH)
    request = one.submit(ScheduledRequest(machine, (1,), 33, least=32))
    one.round()
    assert request.extent.length == length


def test_a_small_pool_admits_what_fits() -> None:
    """40 slots each, as in a large pool, would let one of the two wait."""
    one = scheduler(72)
    plan = (Force((1,)), Sample(3))
    requests = [
        one.submit(ScheduledRequest(ScriptedMachine(plan, (1,), WIDTH), (1,), 33, least=32))
        for _ in range(2)
    ]
    one.round()
    assert one.pool.owners == {request.number for request in requests}


def test_company_and_order_change_nothing() -> None:
    alone = []
    for i in range(12):
        one = scheduler()
        alone.append(one.submit(job(i)))
        run(one)
    crowd = scheduler(700, max_rows=40)
    order = random.Random(4).sample(range(12), 12)
    requests = {i: crowd.submit(job(i)) for i in order}
    run(crowd)
    in_turn = scheduler()
    turns = {i: in_turn.submit(job(i, decoding=Decoding.IN_TURN)) for i in range(12)}
    run(in_turn)
    for i in range(12):
        assert tokens(alone[i]) == tokens(requests[i]) == tokens(turns[i])


def test_another_seed_draws_other_tokens() -> None:
    drawn = []
    for seed in (1, 1, 2):
        one = scheduler()
        machine = ScriptedMachine((Sample(20),), (1,), WIDTH)
        one.submit(ScheduledRequest(machine, (1,), 21, Sampling(seed=seed)))
        run(one)
        drawn.append([f.token for f in machine.fed])
    assert drawn[0] == drawn[1] != drawn[2]


def test_in_turn_feeds_one_live_branch() -> None:
    plan = (Split(tuple((Force((5, 6)), Sample(4)) for _ in range(3))), Force((7,)), Sample(2))
    rounds = {}
    for decoding in Decoding:
        one = scheduler()
        request = one.submit(
            ScheduledRequest(ScriptedMachine(plan, (1,), WIDTH), (1,), 40, decoding=decoding)
        )
        run(one)
        rounds[decoding] = request.forwards
    assert rounds == {Decoding.PARALLEL: 4 + 2, Decoding.IN_TURN: 3 * 4 + 2}


def test_children_without_a_token_of_their_own() -> None:
    """Branches that begin with a sampled token continue from the parent's last."""
    plan = (Force((3,)), Split(((Sample(3),), (Sample(2),))), Force((4,)), Sample(1))
    found = []
    for decoding in Decoding:
        one = scheduler()
        request = one.submit(
            ScheduledRequest(ScriptedMachine(plan, (1, 2), WIDTH), (1, 2), 30, Sampling(), decoding)
        )
        run(one)
        assert request.ended is EndReason.COMPLETED, request.error
        found.append(tokens(request))
    assert found[0] == found[1]


class Fragile(Forward):
    """Fails whenever a request whose number is `bad` takes part."""

    bad: frozenset[int] = frozenset()

    def __call__(
        self, parts: list[RequestRows], keep: list[int], key: object = None
    ) -> torch.Tensor:
        logits = super().__call__(parts, keep, None)
        if any(part.log in self.bad_logs for part in parts):
            raise RuntimeError("out of memory")
        return logits

    def __init__(self, total: int) -> None:
        super().__init__(model("llama"), total)
        self.bad_logs: list[object] = []


def test_a_failure_takes_nobody_along() -> None:
    forward = Fragile(2000)
    one = Scheduler(forward, WIDTH)
    requests = [one.submit(job(i)) for i in range(5)]
    one.round()
    forward.bad_logs.append(requests[2].log)
    run(one)
    assert requests[2].ended is EndReason.FAILED
    assert requests[2].error == "RuntimeError: out of memory"
    lonely = scheduler()
    for i in (0, 1, 3, 4):
        assert requests[i].ended is EndReason.COMPLETED
        twin = lonely.submit(job(i))
        run(lonely)
        assert tokens(twin) == tokens(requests[i])
    assert one.pool.free == 2000


@pytest.mark.parametrize("moment", ["forward", "advance"])
def test_a_round_that_is_broken_off_gives_no_wrong_tokens(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was in the forward is fed by the next round; where machines have moved, they fail."""
    one = scheduler(max_rows=8)
    requests = [one.submit(job(i)) for i in range(5)]
    broken = 0
    owner, name = {"forward": (Forward, "__call__"), "advance": (scheduling, "_advance")}[moment]
    plain, count = getattr(owner, name), itertools.count(1)

    def breaking(*arguments: Any) -> Any:
        found = plain(*arguments)
        if next(count) % 5 == 1:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(owner, name, breaking)
    while one.busy:
        try:
            one.round()
        except KeyboardInterrupt:
            broken += 1
        one.check()
    monkeypatch.undo()
    assert broken
    later = one.submit(job(9))
    run(one)
    lonely = scheduler()
    for seed, done in zip((*range(5), 9), (*requests, later), strict=True):
        if moment == "advance" and done is not later:
            assert done.error == "RuntimeError: the round was broken off while it moved on"
            continue
        assert done.ended is EndReason.COMPLETED, done.error
        twin = lonely.submit(job(seed))
        run(lonely)
        assert tokens(twin) == tokens(done)
    assert one.pool.free == 2000


def test_logits_that_are_not_finite_fail_their_request_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = scheduler()
    requests = [one.submit(job(i)) for i in range(3)]
    call = Forward.__call__

    def broken(
        self: Forward, parts: Sequence[RequestRows], keep: list[int], key: object
    ) -> torch.Tensor:
        logits = call(self, list(parts), keep, None)
        logits[0] = torch.nan
        return logits

    monkeypatch.setattr(Forward, "__call__", broken)
    one.round()
    monkeypatch.undo()
    run(one)
    assert "not finite" in requests[0].error
    assert [r.ended for r in requests[1:]] == [EndReason.COMPLETED] * 2


def test_what_failed_leaves_nothing_behind() -> None:
    """Slots of a failed request hold no NaN for the next owner, who may not write them at once."""
    one = scheduler()
    broken = one.submit(job(3))
    one.round()
    layer = one.forward.log.layers[0]
    layer.keys[:, :, : broken.extent.end] = torch.nan
    layer.values[:, :, : broken.extent.end] = torch.nan
    run(one)
    assert "not finite" in broken.error
    plan = (Split(tuple((Force((5, 6)), Sample(4)) for _ in range(3))), Force((7,)), Sample(2))
    machine = ScriptedMachine(plan, (1,), WIDTH)
    next_one = one.submit(ScheduledRequest(machine, (1,), 40, decoding=Decoding.IN_TURN))
    run(one)
    assert next_one.ended is EndReason.COMPLETED, next_one.error


class Brittle(ScriptedMachine):
    """A machine that raises when it is told its first token."""

    def advance(
        self,
        branch: int,
        token: int,
        logprob: float | None = None,
        alternatives: Alternatives = (),
    ) -> list[Action]:
        raise LookupError("no such state")


def test_a_machine_that_raises_fails_its_request_only() -> None:
    one = scheduler()
    bad = one.submit(ScheduledRequest(Brittle((Sample(2),), (1,), WIDTH), (1,), 9))
    good = one.submit(job(1))
    run(one)
    assert bad.ended is EndReason.FAILED and "no such state" in bad.error
    assert good.ended is EndReason.COMPLETED


class Idle(ScriptedMachine):
    """A machine that begins, and then wants nothing."""

    @property
    def live(self) -> tuple[int, ...]:
        return ()


def test_a_machine_that_wants_nothing_does_not_hang() -> None:
    one = scheduler()
    request = one.submit(ScheduledRequest(Idle((Sample(2),), (1,), WIDTH), (1,), 9))
    run(one)
    assert "nothing to feed and nothing to draw" in request.error


def test_more_tokens_than_reserved_fail() -> None:
    one = scheduler()
    request = one.submit(ScheduledRequest(ScriptedMachine((Sample(9),), (1,), WIDTH), (1,), 5))
    run(one)
    assert "5 slots that were reserved" in request.error


class ConservationMachine(RuleBasedStateMachine):
    """Submissions, rounds, aborts and failures in any order never lose a slot."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = Fragile(300)
        self.one = Scheduler(self.forward, WIDTH, max_rows=32, prefix_tokens=20)
        self.requests: list[ScheduledRequest] = []

    @rule(seed=st.integers(0, 30), in_turn=st.booleans())
    def submit(self, seed: int, in_turn: bool) -> None:
        one = job(seed, decoding=Decoding.IN_TURN if in_turn else Decoding.PARALLEL)
        if one.slots <= 300:
            self.requests.append(self.one.submit(one))

    @rule(times=st.integers(1, 6))
    def go_on(self, times: int) -> None:
        for _ in range(times):
            self.one.round()
            self.one.check()

    @rule(choice=st.integers(0, 1000))
    def abort(self, choice: int) -> None:
        if self.requests:
            request = self.requests[choice % len(self.requests)]
            before = request.ended
            self.one.abort(request)
            assert request.ended is (before or EndReason.ABORTED)

    @rule(choice=st.integers(0, 1000))
    def break_one(self, choice: int) -> None:
        if self.requests:
            self.forward.bad_logs.append(self.requests[choice % len(self.requests)].log)

    @invariant()
    def conserved(self) -> None:
        self.one.check()

    def teardown(self) -> None:
        run(self.one)
        assert all(request.ended is not None for request in self.requests)
        assert self.one.pool.free == 300


TestConservation = ConservationMachine.TestCase
TestConservation.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
