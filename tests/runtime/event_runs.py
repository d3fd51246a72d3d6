"""Runs as their events tell them: one of the bundled model, and random ones, whose branches nest as
they like, in any order of the loop; and what a writer of another form of events makes of one."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from random import Random
from typing import Any, Protocol

from hypothesis import strategies as st

import nprdsl
from nprdsl.runtime import LocalEngine, Sampling
from nprdsl.runtime.http.completion_format import trace_to_dict
from nprdsl.runtime.results import Result
from nprdsl.structure.events import (
    BranchEndEvent,
    BranchReason,
    EndEvent,
    EndReason,
    Event,
    ForkEvent,
    JoinEvent,
    TokenEvent,
)

PROMPT = "37*42+85*19?"
ARITH = nprdsl.load("arith")
_Made = Iterable[dict[str, Any]]


class Writer(Protocol):
    """Makes events of a form from ours."""

    def begin(self) -> _Made: ...

    def add(self, event: Event) -> _Made: ...

    def end(self, result: Result, trace: dict[str, Any]) -> _Made: ...


@cache
def engine() -> LocalEngine:
    return LocalEngine.from_pretrained("arith", dtype="fp32")


@cache
def written() -> tuple[tuple[Event, ...], Result]:
    *events, result = engine().stream(ARITH, PROMPT, chat=True, sampling=Sampling(temperature=0))
    assert isinstance(result, Result)
    return tuple(e for e in events if not isinstance(e, Result)), result


def told(writer: Writer, events: Iterable[Event], result: Result) -> list[dict[str, Any]]:
    """All that the writer makes of a run."""
    made = [*writer.begin()]
    for event in events:
        made += writer.add(event)
    return [*made, *writer.end(result, trace_to_dict(result, 0))]


def runs() -> st.SearchStrategy[list[Event]]:
    """Of a seed alone: drawn step by step they take most of a test's time."""
    return st.integers(0, 2**32).map(random_run)


def random_run(seed: int) -> list[Event]:
    """Events of any nesting: branches write, fork, end and join in any order of the loop."""
    random = Random(seed)
    events: list[Event] = []
    fresh = 1
    blocks: dict[int, int] = {}
    live: dict[int, tuple[int, ...]] = {0: ()}  # path by branch
    waiting: dict[int, list[int]] = {}  # a parent's children that run
    parent_of: dict[int, int] = {}
    for _ in range(random.randint(0, 40)):
        branch = random.choice(sorted(live))
        path = live[branch]
        step = random.choice(["write", "write", "write", "fork", "end"])
        if step == "write":
            text = random.choice(["", "a", "é", "<step>", "\n"])
            events.append(TokenEvent(branch, path, (1,), text, False, rule="step"))
        elif step == "fork" and fresh < 12:
            children = tuple(range(fresh, fresh + random.randint(1, 3)))
            fresh += len(children)
            block = blocks.get(branch, 0)
            blocks[branch] = block + 1
            labels = tuple(str(child) for child in children)
            events.append(ForkEvent(branch, children, labels, "step", path, block))
            del live[branch]
            waiting[branch] = list(children)
            for at, child in enumerate(children):
                live[child], parent_of[child] = (*path, block, at), branch
        elif step == "end" and branch in parent_of:
            _end(events, branch, live, waiting, parent_of)
    while any(branch in parent_of for branch in live):
        _end(events, max(b for b in live if b in parent_of), live, waiting, parent_of)
    return [*events, EndEvent(EndReason.COMPLETED)]


def _end(
    events: list[Event],
    branch: int,
    live: dict[int, tuple[int, ...]],
    waiting: dict[int, list[int]],
    parent_of: dict[int, int],
) -> None:
    path = live.pop(branch)
    events.append(BranchEndEvent(branch, BranchReason.COMPLETED, path))
    parent = parent_of.pop(branch)
    waiting[parent].remove(branch)
    if not waiting[parent]:
        live[parent] = path[:-2]
        events.append(JoinEvent(parent, (), path[:-2]))
