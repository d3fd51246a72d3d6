"""What branches write side by side is read in the order of the trace, each item once."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from nprdsl.machine.actions import FIRST, ROOT, JoinPolicy
from nprdsl.machine.budget import Limits
from nprdsl.machine.machine import Machine
from nprdsl.machine.transcript import Transcript, WrittenToken
from tests.machines import PROMPT, byte_bound


def test_branches_are_settled_one_after_another() -> None:
    transcript: Transcript[str] = Transcript()
    transcript.write(ROOT, "plan")
    transcript.fork(ROOT, (1, 2))
    transcript.write(2, "second")
    assert list(transcript.settled()) == ["plan"]
    transcript.write(1, "first")
    transcript.fork(1, (3, 4))
    transcript.write(4, "deeper")
    assert list(transcript.settled()) == ["first"]
    transcript.write(3, "deep")
    transcript.end(3)
    assert list(transcript.settled()) == ["deep", "deeper"]
    transcript.end(4)
    transcript.write(1, "back")
    assert list(transcript.settled()) == ["back"]
    transcript.end(1)
    assert list(transcript.settled()) == ["second"]
    transcript.end(2)
    transcript.write(ROOT, "answer")
    assert list(transcript.settled()) == ["answer"]
    assert list(transcript.settled()) == []
    assert transcript.linear() == ["plan", "first", "deep", "deeper", "back", "second", "answer"]
    assert transcript.linear(1) == ["first", "deep", "deeper", "back"]
    assert transcript.count(1) == 2


def test_two_forks_at_one_place() -> None:
    """A branch may fork again without a word between."""
    transcript: Transcript[str] = Transcript()
    for children in ((1, 2), (3,)):
        transcript.fork(ROOT, children)
        for child in children:
            transcript.write(child, str(child))
            transcript.end(child)
    transcript.write(ROOT, "end")
    assert transcript.linear() == list(transcript.settled()) == ["1", "2", "3", "end"]


def test_the_rest_is_what_was_not_settled() -> None:
    transcript: Transcript[str] = Transcript()
    transcript.fork(ROOT, (1, 2))
    transcript.write(2, "b")
    transcript.write(1, "a")
    assert [*transcript.settled(), "|", *transcript.rest()] == ["a", "|", "b"]
    assert list(transcript.rest()) == []


@pytest.mark.parametrize("name", ["npr", "multiverse", "parallel_r1", "nested"])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_settled_is_how_the_trace_begins(name: str, seed: int) -> None:
    join = FIRST if seed == 3 else JoinPolicy()
    limits = Limits(max_tokens=200, depth=2, branches=3)
    machine, random = Machine(byte_bound(name), PROMPT, limits, join), Random(seed)
    machine.start()
    settled: list[WrittenToken] = []
    while machine.ended is None:
        branch = random.choice(machine.live)
        bits = np.unpackbits(machine.mask(branch).view(np.uint8), bitorder="little")
        machine.advance(branch, int(random.choice(np.flatnonzero(bits).tolist())), -0.5)
        settled += machine.transcript.settled()
        assert machine.written[: len(settled)] == settled
    settled += machine.transcript.rest()
    assert settled == machine.written
    assert machine.trace().ids == (*PROMPT, *(token.token for token in settled))
    order = list(machine.transcript.order())
    assert len(order) == len(set(order)) == len(settled)
