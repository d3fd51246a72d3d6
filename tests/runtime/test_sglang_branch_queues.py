"""Branches as queued work of a server, without SGLang."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from random import Random

import numpy as np
import pytest

import nprdsl
from nprdsl.machine.actions import DropAction, FeedAction, ForkAction, JoinAction
from nprdsl.machine.budget import Limits
from nprdsl.machine.machine import Machine
from nprdsl.runtime.sglang.plugin.branch_queues import BranchQueues, KVChangeKind
from nprdsl.structure.events import Event
from nprdsl.testing import byte_vocabulary

TAGS = tuple(
    dict.fromkeys(
        tag
        for name in ("npr", "multiverse", "threadweaver", "parallel_r1")
        for tag in nprdsl.load(name).tags
    )
)
VOCABULARY = byte_vocabulary(TAGS)
PROMPT = (1, 2, 3, 4)
SCHEMAS = ("npr", "multiverse", "threadweaver", "parallel_r1")


def test_a_child_waits_for_its_parents_tokens() -> None:
    queues = BranchQueues(prompt=3)
    queues.root.started = True
    queues.apply(
        [FeedAction(0, (7, 8)), ForkAction(0, (1, 2)), FeedAction(1, (9,)), FeedAction(2, (9, 9))]
    )
    assert queues.settle() == []
    assert not queues.branches[1].waiting
    queues.root.fed(2)
    (change,) = queues.settle()
    assert change.kind is KVChangeKind.SHARE
    assert [branch.position for branch in change.children] == [5, 5]
    assert [list(branch.waiting) for branch in change.children] == [[9], [9, 9]]


def test_a_join_waits_for_all_that_its_children_feed() -> None:
    queues = BranchQueues(prompt=0)
    queues.root.started = True
    queues.apply([ForkAction(0, (1, 2)), FeedAction(1, (9,)), FeedAction(2, (9, 9))])
    queues.settle()
    queues.apply([JoinAction(0, (1, 2)), FeedAction(0, (5,))])
    queues.branches[1].fed(1)
    queues.branches[2].fed(1)
    assert queues.settle() == [] and not queues.root.waiting
    queues.branches[2].fed(1)
    (change,) = queues.settle()
    assert change.kind is KVChangeKind.MERGE
    assert queues.root.position == 2 and list(queues.root.waiting) == [5]
    assert list(queues.branches) == [0]


def test_dropped_children_need_not_feed_what_is_left() -> None:
    queues = BranchQueues(prompt=0)
    queues.root.started = True
    queues.apply(
        [
            ForkAction(0, (1, 2)),
            FeedAction(1, (9,)),
            ForkAction(1, (3, 4)),
            FeedAction(3, (1,)),
            FeedAction(2, (9,)),
        ]
    )
    queues.settle()
    queues.branches[1].fed(1)
    queues.settle()
    queues.apply([DropAction(0, (1, 2)), FeedAction(0, (9, 1, 9))])
    (change,) = queues.settle()
    assert change.kind is KVChangeKind.RELEASE
    assert sorted(branch.number for branch in change.children) == [1, 2, 3, 4]
    assert list(queues.root.waiting) == [9, 1, 9] and queues.root.position == 0
    assert queues.needed == 3, "the fourth is not needed any more"


def test_feeding_nothing_changes_nothing() -> None:
    queues = BranchQueues(prompt=0)
    queues.root.started = True
    queues.apply([ForkAction(0, (1,))])
    queues.root.fed(0)
    assert len(queues.settle()) == 1


def test_branches_that_have_nothing_to_feed_draw_behind_their_parent() -> None:
    """As where each begins with one of several tags: what its parent fed last is all it knows."""
    queues = BranchQueues(prompt=3)
    queues.root.started = True
    queues.apply([FeedAction(0, (7, 8)), ForkAction(0, (1, 2, 3)), FeedAction(2, (9,))])
    queues.apply([ForkAction(3, (4,))])
    root = queues.root
    assert list(queues.idle_after(root, 1)) == []
    assert [branch.number for branch in queues.idle_after(root, 2)] == [1, 4]
    root.fed(2)
    queues.settle()
    assert [branch.number for branch in queues.idle_after(queues.branches[2], 1)] == [2]


def test_behind_a_join_is_drawn_behind_the_last_token_of_the_last_branch() -> None:
    queues = BranchQueues(prompt=3)
    queues.root.started = True
    queues.apply([ForkAction(0, (1, 2)), FeedAction(1, (7, 8)), FeedAction(2, (9,))])
    queues.settle()
    first, last = queues.branches[1], queues.branches[2]
    assert [branch.number for branch in queues.idle_after(last, 1)] == [2]
    queues.apply([JoinAction(0, (1, 2))])
    assert [branch.number for branch in queues.idle_after(last, 1)] == [2, 0]
    assert [branch.number for branch in queues.idle_after(first, 2)] == [1]
    last.fed(1)
    assert queues.settle() == [], "the first one has tokens left"
    queues.apply([FeedAction(0, (5,))])
    assert not queues.root.waiting
    first.fed(2)
    queues.settle()
    assert list(queues.root.waiting) == [5]


# -- whole traces of a random model ----------------------------------------------------------------


def written(machine: Machine, seed: int) -> Iterator[tuple[list[Event], float | None]]:
    """Drives a machine by a random model; what it tells, with the log-probability of its draw."""
    random = Random(seed)
    yield machine.drain_events(), None
    while machine.ended is None:
        branch = random.choice(machine.live)
        bits = np.unpackbits(machine.mask(branch).view(np.uint8), bitorder="little")
        token = int(random.choice(np.flatnonzero(bits).tolist()))
        machine.advance(branch, token, -0.5)
        yield machine.drain_events(), -0.5


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("seed", range(4))
def test_a_replay_feeds_the_same_tokens_at_the_same_positions(name: str, seed: int) -> None:
    bound = nprdsl.load(name).bind(VOCABULARY)
    machine = Machine(bound, PROMPT, Limits(max_tokens=150, depth=2, branches=3))
    queues = BranchQueues(len(PROMPT))
    queues.root.started = True
    first: list[tuple[int, int, int]] = []
    random = Random(seed)
    queues.apply(machine.start())
    drain(queues, first, random)
    while machine.ended is None:
        branch = random.choice(machine.live)
        bits = np.unpackbits(machine.mask(branch).view(np.uint8), bitorder="little")
        actions = machine.advance(branch, int(random.choice(np.flatnonzero(bits).tolist())), -1.0)
        queues.apply(actions)
        drain(queues, first, random)
    again: list[tuple[int, int, int]] = []
    needed = queues.needed
    queues.replay()
    assert queues.needed == needed, "what was dropped does not count"
    queues.root.started = True
    drain(queues, again, random)
    if name in ("npr", "multiverse"):
        assert sorted(again) == sorted(first)
    else:  # what will be dropped need not be fed again
        assert set(again) <= set(first)
        assert [f for f in again if f[0] == 0] == [f for f in first if f[0] == 0]
    positions = {b: [p for n, p, _ in first if n == b] for b in {n for n, _, _ in first}}
    assert all(p == sorted(p) for p in positions.values())


def drain(queues: BranchQueues, fed: list[tuple[int, int, int]], random: Random) -> None:
    """Feeds all that waits, in pieces and in any order. What is in the cache or waits is what the
    request needs."""
    cached = queues.needed - waiting(queues)
    while True:
        for change in queues.settle():
            if change.kind is KVChangeKind.RELEASE:
                cached -= sum(child.slots for child in change.children)
        assert queues.needed == cached + waiting(queues)
        ready = [branch for branch in queues.branches.values() if branch.waiting]
        if not ready:
            return
        branch = random.choice(ready)
        count = random.randint(1, len(branch.waiting))
        tokens = list(branch.waiting)[:count]
        fed += [(branch.number, branch.position + i, token) for i, token in enumerate(tokens)]
        branch.fed(count)
        cached += count


def waiting(queues: BranchQueues) -> int:
    """Tokens that wait on all branches."""
    parts = (part for branch in queues.branches.values() for part in branch.queue)
    return sum(len(part) for part in parts if isinstance(part, deque))
