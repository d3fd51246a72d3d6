"""Memory that does not suffice for all: requests give theirs back, are filled again from their own
tokens, and write the same as alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nprdsl
from nprdsl.machine.actions import JoinPolicy
from nprdsl.machine.budget import Limits
from nprdsl.runtime.local import LocalEngine
from nprdsl.runtime.local.forward import Forward
from nprdsl.runtime.local.requests import Decoding, ScheduledRequest
from nprdsl.runtime.local.scheduler import Scheduler
from nprdsl.runtime.sampling import Sampling
from nprdsl.structure.events import EndReason
from tests.runtime.scripted import Sample, ScriptedMachine, random_masks, random_plan, size
from tests.runtime.tiny_models import WIDTH, byte_tokenizer, largest_error, model


def request(seed: int, decoding: Decoding = Decoding.PARALLEL) -> ScheduledRequest:
    rng = random.Random(seed)
    plan = random_plan(rng, WIDTH, 1, reread=seed % 2 == 0)
    prompt = tuple(rng.choices(range(WIDTH), k=rng.randint(1, 30)))
    machine = ScriptedMachine(plan, prompt, WIDTH, random_masks(rng, WIDTH))
    sampling = Sampling(seed=seed, rules={"step": {"repetition_penalty": 1.3}})
    return ScheduledRequest(machine, prompt, len(prompt) + size(plan), sampling, decoding)


def written(one: ScheduledRequest) -> list[tuple[int, int, int]]:
    """Without the branches, which are numbered in the order in which they begin."""
    machine = one.machine
    assert isinstance(machine, ScriptedMachine)
    return sorted((f.position, f.token, len(f.sees)) for f in machine.fed)


def finish(one: Scheduler) -> None:
    while one.busy:
        one.round()
        one.check()


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of those who gave their slots back, as it happens."""
    numbers: list[int] = []
    give_back = Scheduler._give_back

    def watched(self: Scheduler, one: ScheduledRequest) -> None:
        numbers.append(one.number)
        give_back(self, one)

    monkeypatch.setattr(Scheduler, "_give_back", watched)
    return numbers


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_who_is_filled_again_writes_the_same(kind: str, given_back: list[int]) -> None:
    crowd = [request(seed, list(Decoding)[seed // 2 % 2]) for seed in range(8)]
    total = max(one.slots for one in crowd)
    one = Scheduler(Forward(model(kind), total), WIDTH, max_rows=64, prefix_tokens=40)
    requests = [one.submit(each) for each in crowd]
    finish(one)
    assert len(given_back) > 3
    assert 1 not in given_back, "the oldest never gives back"
    for done in requests:
        assert done.ended is EndReason.COMPLETED, done.error
        machine = done.machine
        assert isinstance(machine, ScriptedMachine)
        assert largest_error(kind, machine.fed) <= 1e-4
    for seed, done in enumerate(requests):
        alone = Scheduler(Forward(model(kind), 2000), WIDTH)
        lonely = alone.submit(request(seed, list(Decoding)[seed // 2 % 2]))
        finish(alone)
        assert written(lonely) == written(done)


@given(st.lists(st.integers(0, 40), min_size=2, max_size=8), st.integers(0, 60), st.data())
@settings(max_examples=8, deadline=None)
def test_any_memory_that_holds_the_largest_is_enough(
    seeds: list[int], spare: int, data: st.DataObject
) -> None:
    crowd = [request(seed) for seed in seeds]
    total = max(one.slots for one in crowd) + spare
    rows = data.draw(st.sampled_from([20, 512]))
    one = Scheduler(Forward(model("llama"), total), WIDTH, max_rows=rows, prefix_tokens=30)
    for each in crowd:
        one.submit(each)
        for _ in range(data.draw(st.integers(0, 4))):
            one.round()
            one.check()
    finish(one)
    assert [each.ended for each in crowd] == [EndReason.COMPLETED] * len(crowd)
    assert one.pool.free == total


def test_twelve_run_where_budgets_let_three() -> None:
    """What traces of a kind took is what the next ones are given at first."""

    def short() -> ScheduledRequest:
        machine = ScriptedMachine((Sample(20),), (1, 2), WIDTH)
        return ScheduledRequest(machine, (1, 2), 102, kind="short")

    one = Scheduler(Forward(model("llama"), 320), WIDTH)
    one.submit(short())
    finish(one)
    for _ in range(12):
        one.submit(short())
    one.round()
    assert len(one.pool.owners) == 12
    finish(one)


def test_the_first_of_a_kind_is_given_the_least() -> None:
    one = Scheduler(Forward(model("llama"), 320), WIDTH)
    machine = ScriptedMachine((Sample(20),), (1, 2), WIDTH)
    first = one.submit(ScheduledRequest(machine, (1, 2), 102, least=15))
    one.round()
    assert 17 <= first.extent.length <= 20
    finish(one)
    assert first.ended is EndReason.COMPLETED


def test_traces_are_the_same_whatever_the_load(given_back: list[int]) -> None:
    """Also where the first branches to end cut the others off."""
    schema = nprdsl.load("multiverse")
    tokenizer = byte_tokenizer(schema.tags)
    options = {"limits": Limits(max_tokens=100, branches=3), "join": JoinPolicy(1)}
    samplings = [Sampling(seed=seed) for seed in range(4)]
    found = []
    for total in (140, 2000):
        one = LocalEngine(model("qwen3", len(tokenizer)), tokenizer, max_kv_tokens=total)
        found.append(one.generate(schema, ["hello"] * 4, sampling=samplings, **options))
    assert given_back
    for tight, ample in zip(*found, strict=True):
        assert tight.token_ids == ample.token_ids
        pairs = zip(tight.logprobs, ample.logprobs, strict=True)
        assert max(abs((a or 0) - (b or 0)) for a, b in pairs) < 1e-4


def test_an_abort_of_one_that_waits_again(given_back: list[int]) -> None:
    crowd = [request(seed) for seed in range(6)]
    one = Scheduler(Forward(model("llama"), max(each.slots for each in crowd)), WIDTH)
    requests = [one.submit(each) for each in crowd]
    while not given_back:
        one.round()
    waiting = requests[given_back[0] - 1]
    one.abort(waiting)
    assert waiting.ended is EndReason.ABORTED
    finish(one)
    ended = [each.ended for each in requests if each is not waiting]
    assert ended == [EndReason.COMPLETED] * 5
