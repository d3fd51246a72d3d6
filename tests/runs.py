"""Whole generations without an engine: random models, and a key-value cache of plain lists.

`KeyValueLog` executes a machine's actions as an engine would and notes, for every token fed, its
position and which entries it saw. Non-goals: what must hold of a run (see `tests.test_machine`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from nprdsl.machine.actions import (
    ALL,
    Action,
    DropAction,
    EndAction,
    FeedAction,
    ForkAction,
    JoinAction,
    JoinPolicy,
)
from nprdsl.machine.budget import Limits
from nprdsl.machine.machine import Machine
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.structure.events import Event
from tests.walks import allowed

ROOT = 0
Model = Callable[[Machine, int], int]
Scheduler = Callable[[Sequence[int]], int]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the cache: `seen` are the numbers of the entries that it attends to."""

    token: int
    position: int
    branch: int
    seen: frozenset[int]


@dataclass(slots=True)
class Row:
    """What a branch sees, and its next position."""

    seen: frozenset[int]
    position: int


@dataclass(slots=True)
class KeyValueLog:
    """An append-only cache that forks, joins and drops rows."""

    entries: list[Entry] = field(default_factory=list)
    rows: dict[int, Row] = field(default_factory=lambda: {ROOT: Row(frozenset(), 0)})
    waiting: set[int] = field(default_factory=set)
    reread: set[tuple[int, ...]] = field(default_factory=set)
    ended: EndAction | None = None

    def run(self, actions: Sequence[Action]) -> None:
        for action in actions:
            assert self.ended is None, "nothing follows the end"
            match action:
                case FeedAction(branch, tokens):
                    assert tokens
                    self.feed(branch, tokens)
                case ForkAction(parent, children):
                    self._fork(parent, children)
                case JoinAction(parent, children):
                    rows = self._close(parent, children)
                    seen = self.rows[parent].seen.union(*(row.seen for row in rows))
                    self.rows[parent] = Row(seen, max(row.position for row in rows))
                case DropAction(parent, children):
                    self._close(parent, children)
                    self.reread.add(children)
                case EndAction():
                    self.ended = action

    def feed(self, branch: int, tokens: Sequence[int]) -> None:
        assert branch not in self.waiting
        row = self.rows[branch]
        for token in tokens:
            row.seen |= {len(self.entries)}
            self.entries.append(Entry(token, row.position, branch, row.seen))
            row.position += 1

    def _fork(self, parent: int, children: tuple[int, ...]) -> None:
        assert children and parent not in self.waiting
        self.waiting.add(parent)
        for child in children:
            assert child not in self.rows, "a branch begins once"
            row = self.rows[parent]
            self.rows[child] = Row(row.seen, row.position)

    def _close(self, parent: int, children: tuple[int, ...]) -> list[Row]:
        assert self.waiting.isdisjoint(children)
        self.waiting.remove(parent)
        return [self.rows.pop(child) for child in children]


@dataclass(frozen=True, slots=True)
class Run:
    machine: Machine
    log: KeyValueLog
    events: list[Event]
    actions: list[Action]
    sampled: list[tuple[int, int]]  # branch and token, in the order of sampling

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(written.token for written in self.machine.written)


def seeded(seed: int, wild: float = 0.4) -> Model:
    """A model whose choice depends on the branch's path and position only; it likes long tokens."""

    def choose(machine: Machine, branch: int) -> int:
        place = (seed, machine.path(branch), machine.position_in_branch(branch))
        random = Random(zlib.crc32(repr(place).encode()))
        tokens = allowed(machine.mask(branch), machine.bound.vocabulary.size)
        assert tokens, f"no token is allowed behind {machine.written}"
        long = [token for token in tokens if token >= 256]
        return random.choice(long if long and random.random() < wild else tokens)

    return choose


def talkative(machine: Machine, branch: int) -> int:
    """A model that writes `z` as long as it may, and else the highest token."""
    tokens = allowed(machine.mask(branch), machine.bound.vocabulary.size)
    return ord("z") if ord("z") in tokens else tokens[-1]


def first(live: Sequence[int]) -> int:
    return live[0]


def last(live: Sequence[int]) -> int:
    return live[-1]


def shuffled(seed: int) -> Scheduler:
    return Random(seed).choice


def run(
    bound: BoundSchema,
    limits: Limits,
    model: Model,
    *,
    scheduler: Scheduler = first,
    join: JoinPolicy = ALL,
    prompt: Sequence[int] = (),
) -> Run:
    """One generation from start to end."""
    machine = Machine(bound, prompt=prompt, limits=limits, join=join)
    made = Run(machine, KeyValueLog(), [], [], [])
    made.log.feed(ROOT, prompt)
    _execute(made, machine.start())
    while machine.live:
        branch = scheduler(machine.live)
        token = model(machine, branch)
        made.sampled.append((branch, token))
        before = machine.left(branch)
        _execute(made, machine.advance(branch, token, -1.0 - len(made.sampled)))
        if machine.ended and machine.left(branch) == before:  # a new line that ended the text
            made.sampled.pop()
    return made


def _execute(made: Run, actions: list[Action]) -> None:
    made.actions.extend(actions)
    made.log.run(actions)
    made.events.extend(made.machine.drain_events())


def linear(made: Run) -> list[int]:
    """The numbers of the cache's entries in the order of the trace; copies behind the branches
    that they copy."""
    by_branch: dict[int, Iterator[int]] = {
        branch: iter([n for n, e in enumerate(made.log.entries) if e.branch == branch])
        for branch in {e.branch for e in made.log.entries}
    }
    forks: dict[int, list[tuple[int, ...]]] = {}
    for action in made.actions:
        if isinstance(action, ForkAction):
            forks.setdefault(action.parent, []).append(action.children)
    order: list[int] = []
    fed = _lengths(made)

    def visit(branch: int) -> int:
        """Append the entries of a branch; how many of them are no copies."""
        own = 0
        for length in fed[branch]:
            order.extend(next(by_branch[branch]) for _ in range(length))
            own += length
            if not forks.get(branch):
                continue
            children = forks[branch].pop(0)
            inner = sum(visit(child) for child in children)
            own += inner
            if children in made.log.reread:
                order.extend(next(by_branch[branch]) for _ in range(inner))
        return own

    order.extend(next(by_branch[ROOT]) for _ in made.machine.prompt)
    visit(ROOT)
    assert all(next(rest, None) is None for rest in by_branch.values())
    return order


def _lengths(made: Run) -> dict[int, list[int]]:
    """For every branch the lengths of what was fed between its forks, without copies."""
    lengths: dict[int, list[int]] = {ROOT: [0]}
    copied: set[int] = set()  # branches whose next feed is a copy
    for action in made.actions:
        if isinstance(action, FeedAction):
            if action.branch in copied:
                copied.remove(action.branch)
            else:
                lengths[action.branch][-1] += len(action.tokens)
        elif isinstance(action, ForkAction):
            lengths[action.parent].append(0)
            lengths |= {child: [0] for child in action.children}
        elif isinstance(action, DropAction):
            copied.add(action.parent)
    return lengths
