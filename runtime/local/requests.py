"""One request on its way through the scheduler: its machine, its log, what its branches draw.

A `FreeRun` takes a machine's place where no schema constrains the text, so that plain text is
sampled in the same forwards, with the same settings and seeds, as traces are.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable, Sequence
from enum import StrEnum
from typing import Generic, TypeVar

import numpy as np

from nprdsl.machine.actions import ROOT, Action, EndAction, FeedAction
from nprdsl.machine.transcript import Alternatives
from nprdsl.runtime.drawing.avoided_runs import AvoidedRuns
from nprdsl.runtime.drawing.draws import BranchDraws, Driver
from nprdsl.runtime.local.kv_log import Extent
from nprdsl.runtime.local.trace_log import TokenRun, TraceLog
from nprdsl.runtime.sampling import DEFAULT, Sampling
from nprdsl.structure.events import EndReason, Event, TokenEvent
from nprdsl.tokens.bitmask import Mask
from nprdsl.tokens.text_decoder import TextDecoder


class Decoding(StrEnum):
    """How the live branches of a request are decoded."""

    PARALLEL = "parallel"  # all of them in every forward
    IN_TURN = "in-turn"  # the first one alone, until it ends: the autoregressive baseline


DriverT = TypeVar("DriverT", bound=Driver)


class ScheduledRequest(Generic[DriverT]):
    """One request: it waits until `begin`, then runs until `ended`.

    `slots` is the most tokens that it can ever feed, prompt included; `least` what it feeds at the
    least behind the prompt. Requests of one `kind` are likely to take equally many. `number` is
    given by the scheduler; `is_over` is set by the engine; `forwards` counts the model calls that
    it took part in; times are those of `time.perf_counter`.
    """

    def __init__(
        self,
        machine: DriverT,
        prompt: tuple[int, ...],
        slots: int,
        sampling: Sampling = DEFAULT,
        decoding: Decoding = Decoding.PARALLEL,
        *,
        least: int = 1,
        kind: Hashable = None,
        avoided: AvoidedRuns | None = None,
    ) -> None:
        self.number = 0
        self.machine = machine
        self.prompt = prompt
        self.slots = slots
        self.least = least
        self.kind = kind
        self.draws = BranchDraws(machine, sampling, sampling.seed, avoided)
        self.extent = Extent(0, 0)
        self.log = TraceLog(0)
        self.shared = 0  # tokens of the prompt that others could share so far
        self.weights = 0  # of which its prompt is computed (see `SharedPrefixes`)
        self.forwards = 0
        self.error = ""
        self.is_over = False  # it has ended, and nothing will happen to it any more
        self.submitted_s = time.perf_counter()
        self.ended_s = self.submitted_s
        self._in_turn = decoding is Decoding.IN_TURN

    def begin(self) -> None:
        """Feeds the prompt and starts the machine."""
        self.log = TraceLog(self.slots)
        self.log.apply([FeedAction(ROOT, self.prompt)])
        self.apply(self.machine.start())

    @property
    def begun(self) -> bool:
        return self.log.used > 0

    @property
    def prompt_known(self) -> int:
        """How many tokens of the prompt need not be fed where they are known: all, or all but the
        last, behind which a branch draws."""
        last = (self.log.branches[branch].last for branch in self.machine.live)
        ends = {run.column + len(run.tokens) for run in last if run is not None}
        return len(self.prompt) - (len(self.prompt) in ends)

    @property
    def ended(self) -> EndReason | None:
        return EndReason.FAILED if self.error else self.machine.ended

    def apply(self, actions: Sequence[Action]) -> None:
        """Does what the machine asks, and counts what its draws depend on."""
        self.log.apply(actions)
        self.draws.saw(actions)

    def take(self, most: int, whole: int) -> list[TokenRun]:
        """Runs to feed now, at most `most` tokens of the `whole` that a forward takes.

        Where not all fit, those tokens go last behind which the branches draw, and together, so
        that all draw after the same forward: which branch ends first does not depend on the room
        that other requests left.
        """
        log, live = self.log, self.machine.live
        if self._in_turn:
            later = frozenset(live[1:])
            return log.take(most, lambda branch: branch not in later)
        if log.rows <= most or log.again:
            return log.take(most)
        last = {id(log.branches[branch].last) for branch in live}
        runs = log.take_behind(most, last)
        return runs if runs or most < whole else log.take(most)

    def awaited(self) -> list[tuple[int, int]]:
        """The live branches, each with the id of the run behind which its next token is drawn."""
        branches = self.log.branches
        return [(branch, id(branches[branch].last)) for branch in self.machine.live]


class FreeRun:
    """Goes on with a prompt on one branch, nothing forced: a `Driver` without a schema.

    Up to `max_tokens` tokens, or to one of the end tokens `ends`, which is the last one then.
    `allowed` is shared by all requests (see `any_token`). With a `decoder` events tell
    the text as it comes; without, nobody watches.
    """

    def __init__(
        self,
        allowed: Mask,
        max_tokens: int,
        ends: Collection[int],
        decoder: TextDecoder | None = None,
    ) -> None:
        self.ended: EndReason | None = None
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self._allowed = allowed
        self._max_tokens = max_tokens
        self._ends = ends
        self._decoder = decoder
        self._told = 0  # tokens that events have told

    @property
    def live(self) -> tuple[int, ...]:
        return () if self.ended else (ROOT,)

    def start(self) -> Sequence[Action]:
        return ()

    def advance(
        self,
        branch: int,
        token: int,
        logprob: float | None = None,
        alternatives: Alternatives = (),
    ) -> Sequence[Action]:
        assert branch == ROOT and logprob is not None
        self.token_ids.append(token)
        self.logprobs.append(logprob)
        if token in self._ends:
            return self._end(EndReason.COMPLETED)
        if len(self.token_ids) == self._max_tokens:
            return self._end(EndReason.BUDGET)
        return (FeedAction(ROOT, (token,)),)

    def abort(self) -> Sequence[Action]:
        return self._end(EndReason.ABORTED)

    def fail(self) -> Sequence[Action]:
        return self._end(EndReason.FAILED)

    def drain_events(self) -> list[Event]:
        """What was written since the last call; the end token has no text."""
        assert self._decoder is not None, "nobody watches"
        first, self._told = self._told, len(self.token_ids)
        new = self.token_ids[first:]
        has_end = bool(new) and new[-1] in self._ends
        text = self._decoder.add(new[: len(new) - has_end])
        if self.ended is not None:
            text += self._decoder.end()
        if not new and not text:
            return []
        return [
            TokenEvent(ROOT, (), tuple(new), text, False, logprobs=tuple(self.logprobs[first:]))
        ]

    def mask(self, branch: int) -> Mask:
        return self._allowed

    def rule(self, branch: int) -> str:
        return ""

    def path(self, branch: int) -> tuple[int, ...]:
        return ()

    def position_in_branch(self, branch: int) -> int:
        return len(self.token_ids)

    def _end(self, reason: EndReason) -> Sequence[Action]:
        if self.ended is not None:
            return ()
        self.ended = reason
        return (EndAction(reason),)


def any_token(width: int) -> Mask:
    """The mask that allows the tokens 0 to `width` - 1, int32 [ceil(width/32)]."""
    bits = np.zeros(-(-width // 32) * 32, np.uint8)
    bits[:width] = 1
    return np.packbits(bits, bitorder="little").view(np.int32)
