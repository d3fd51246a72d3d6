"""One request on its way through the scheduler: its machine, its log, what it draws next."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from nprdsl.machine.actions import Action, FeedAction
from nprdsl.runtime.drawing.mask_application import Packed
from nprdsl.runtime.drawing.penalty_counts import Histories
from nprdsl.runtime.drawing.sampler import Draw
from nprdsl.runtime.drawing.uniform import branch_key, uniform
from nprdsl.runtime.local.kv_log import Extent
from nprdsl.runtime.local.trace_log import Run, TraceLog
from nprdsl.runtime.sampling import DEFAULT, Sampling
from nprdsl.structure.events import EndReason, Event


class Driver(Protocol):
    """What the scheduler asks of a `nprdsl.machine.machine.Machine`."""

    @property
    def live(self) -> tuple[int, ...]: ...
    @property
    def ended(self) -> EndReason | None: ...
    def start(self) -> Sequence[Action]: ...
    def advance(
        self, branch: int, token: int, logprob: float | None = None
    ) -> Sequence[Action]: ...
    def abort(self) -> Sequence[Action]: ...
    def fail(self) -> Sequence[Action]: ...
    def mask(self, branch: int) -> Packed: ...
    def rule(self, branch: int) -> str: ...
    def path(self, branch: int) -> tuple[int, ...]: ...
    def position_in_branch(self, branch: int) -> int: ...
    def drain_events(self) -> Sequence[Event]: ...


class Decoding(StrEnum):
    """How the live branches of a request are decoded."""

    PARALLEL = "parallel"  # all of them in every forward
    IN_TURN = "in-turn"  # the first one alone, until it ends: the autoregressive baseline


@dataclass(frozen=True, slots=True)
class Job:
    """A request as it is submitted. `slots`: the most tokens it can ever feed, prompt included."""

    machine: Driver
    prompt: tuple[int, ...]
    slots: int
    sampling: Sampling = DEFAULT
    decoding: Decoding = Decoding.PARALLEL


class Request:
    """A submitted job: waiting until `begin`, then running until `ended`."""

    def __init__(self, number: int, job: Job) -> None:
        self.number = number
        self.job = job
        self.machine = job.machine
        self.extent = Extent(0, 0)
        self.log = TraceLog(0)
        self.forwards = 0
        self.error = ""
        self.submitted_s = time.perf_counter()
        self.ended_s = self.submitted_s
        self._in_turn = job.decoding is Decoding.IN_TURN
        self._keys: dict[int, int] = {}
        penalised = job.sampling.penalises
        self._histories = Histories() if penalised else None

    def begin(self, extent: Extent) -> None:
        """Feeds the prompt into the slots of `extent` and starts the machine."""
        self.extent = extent
        self.log = TraceLog(extent.length)
        self.log.apply([FeedAction(0, self.job.prompt)])
        self.apply(self.machine.start())

    @property
    def ended(self) -> EndReason | None:
        return EndReason.FAILED if self.error else self.machine.ended

    def apply(self, actions: Sequence[Action]) -> None:
        self.log.apply(actions)
        if self._histories is not None:
            self._histories.apply(actions)

    def take(self, most: int) -> list[Run]:
        """Runs to feed now, at most `most` rows."""
        if not self._in_turn:
            return self.log.take(most)
        later = frozenset(self.machine.live[1:])
        return self.log.take(most, lambda branch: branch not in later)

    def awaited(self) -> list[tuple[int, int]]:
        """The live branches, each with the id of the run behind which its next token is drawn."""
        branches = self.log.branches
        return [(branch, id(branches[branch].last)) for branch in self.machine.live]

    def draw(self, branch: int) -> Draw:
        machine, history = self.machine, None
        key = self._keys.get(branch)
        if key is None:
            key = self._keys[branch] = branch_key(self.job.sampling.seed, machine.path(branch))
        if self._histories is not None:
            history = self._histories.seen(branch)
        settings = self.job.sampling
        if settings.rules:
            settings = settings.for_rule(machine.rule(branch))
        position = machine.position_in_branch(branch)
        return Draw(machine.mask(branch), settings, uniform(key, position), history)
