"""Runs many requests on one model, one forward a round.

A round feeds what every running request has to feed (all live branches, prompts, forced tokens) in
one forward, draws a token for every live branch whose logits are there, and advances the machines.
Requests are admitted first come first served, each with the slots that it is likely to need, and
grow; where nothing is left, the youngest waits again (see `nprdsl.runtime.admission`). A beginning
that prompts share is fed once. A request that fails gives its slots back, and the others go on. A
forward that Ctrl-C breaks off is done again; where machines may have moved already, they fail.
"""

from __future__ import annotations

import math
import time
from bisect import insort
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, replace
from itertools import islice
from operator import attrgetter
from typing import Any

from nprdsl.machine.machine import Machine
from nprdsl.machine.transcript import Alternatives
from nprdsl.runtime.admission import LikelyLengths, at_start, giving_back, grown
from nprdsl.runtime.drawing.sampler import Draw, Sampler
from nprdsl.runtime.errors import CapacityError, ErrorBoundary
from nprdsl.runtime.local.extents import Extents
from nprdsl.runtime.local.forward import Forward, arrange
from nprdsl.runtime.local.kv_log import Extent, SlotPool
from nprdsl.runtime.local.recurrent_forward import RecurrentForward
from nprdsl.runtime.local.requests import ScheduledRequest
from nprdsl.runtime.local.shared_prefixes import SharedPrefixes
from nprdsl.runtime.local.trace_log import TokenRun
from nprdsl.runtime.metrics import UNOBSERVED
from nprdsl.structure.events import EndReason


@dataclass(slots=True)
class Timings:
    """Totals since the engine was made, in seconds."""

    rounds: int = 0
    rows: int = 0
    model_s: float = 0.0
    sampling_s: float = 0.0
    round_s: float = 0.0


AnyRequest = ScheduledRequest[Any]


@dataclass(frozen=True, slots=True)
class _Fed:
    request: AnyRequest
    runs: list[TokenRun]
    is_again: bool = False  # a forward of it was broken off


_Picks = tuple[AnyRequest, list[int]]  # the branches of a request that draw in this round
_Drawn = tuple[int, float, Alternatives]  # a token and its log-probability


_BY_AGE = attrgetter("number")


class Scheduler:
    """Runs requests on one model. `max_rows` bounds a forward: longer prompts are fed in pieces.
    `prefix_tokens` bounds the tokens of prompts that are kept for others."""

    def __init__(
        self,
        forward: Forward | RecurrentForward,
        width: int,
        *,
        max_rows: int = 512,
        prefix_tokens: int = 0,
    ) -> None:
        self.forward = forward
        self.prefixes = SharedPrefixes(forward, prefix_tokens)
        self.timings = Timings()
        self.observer = UNOBSERVED
        self._extents = Extents(forward.log)
        self._lengths = LikelyLengths()
        self._max_rows = max_rows
        self._sampler = Sampler(width, forward.device)
        self._waiting: list[AnyRequest] = []  # by number
        self._running: list[AnyRequest] = []
        self._outside: list[AnyRequest] = []  # that run and have fed nothing yet
        self._taken: list[_Fed] = []  # in the forward of this round, and no machine has moved
        self._passed_over: Counter[int] = Counter()  # rounds without a row, by number
        self._submitted = 0

    @property
    def pool(self) -> SlotPool:
        """The account of slots."""
        return self._extents.pool

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._running)

    def submit(self, request: AnyRequest) -> AnyRequest:
        """Queues it, and gives it back with its number. Raises CapacityError where it needs more
        slots than there are at all."""
        if request.slots > self.pool.total:
            prompt, total, least = len(request.prompt), self.pool.total, request.least
            way = ""
            if prompt + least <= total:
                way = ", or lower Limits.max_tokens"
            elif least < total:
                way = f", or shorten the prompt, which has {prompt:,}"
            raise CapacityError(
                f"the request may feed {request.slots:,} tokens (prompt, budget, reread copies), "
                f"but max_kv_tokens is {total:,}: raise it{way}"
            )
        self._submitted += 1
        request.number = self._submitted
        self._waiting.append(request)  # the youngest of all
        return request

    def forget(self) -> None:
        """Forgets what earlier requests have left."""
        self.prefixes.forget()
        self._lengths = LikelyLengths()

    def abort(self, request: AnyRequest) -> None:
        """Ends a request that waits or runs, with all its branches; its slots are free at once."""
        if request in self._waiting:
            self._waiting.remove(request)
        elif request in self._running:
            self._leave(request)
        else:
            return
        request.machine.abort()
        self._over(request)
        self._tell_load()

    def round(self) -> list[AnyRequest]:
        """One forward, or none if nothing needs one; gives the requests that ended."""
        begin, model_s = time.perf_counter(), self.forward.model_s
        is_whole = False
        try:
            ended = self._whole_round()
            is_whole = True
        finally:
            if not is_whole:
                self._break_off()
        self._tell_load()
        self.timings.rounds += 1
        self.timings.model_s += self.forward.model_s - model_s
        self.timings.round_s += time.perf_counter() - begin
        return ended

    def check(self) -> None:
        """Conservation: of slots, of rows that wait, and of what is computed of prompts."""
        self._extents.check()
        assert self.pool.owners == {request.number for request in self._running}
        self.prefixes.tree.check(self.pool.owners)
        for request in self._running:
            waiting = request.log.again + request.log.waiting
            assert request.log.rows == sum(len(run.tokens) for run in waiting)
            assert request.log.used <= request.slots

    # -- the steps of a round ----------------------------------------------------------------------

    def _whole_round(self) -> list[AnyRequest]:
        self._admit()
        self._make_room()
        self._enter()
        fed = self._taken = self._taken or self._collect()
        error = self._evaluate(fed)
        if error is not None:
            self._evaluate_apart(fed, error)
        ended = [request for request in self._running if request.ended is not None]
        for request in ended:
            self._leave(request)
            self._over(request)
        return ended

    def _break_off(self) -> None:
        """What is in a forward is fed again in the next round; else nobody knows who has moved."""
        if self._taken:
            self._taken = [replace(one, is_again=True) for one in self._taken]
            return
        for request in self._running:
            if request.ended is None:
                self._fail(request, RuntimeError("the round was broken off while it moved on"))

    def _admit(self) -> None:
        """Starts waiting requests, in order, while there is memory."""
        while self._waiting:
            request = self._waiting[0]
            prompt, most = len(request.prompt), request.slots
            likely = self._lengths.likely(request.kind, request.least)
            slots = at_start(likely, max(prompt, request.log.used), prompt, most)
            if isinstance(self.forward, RecurrentForward):
                slots = most  # a state cannot be filled again from runs of all branches
            if not self._extents.take(request, slots):
                break
            del self._waiting[0]
            self._running.append(request)
            self._outside.append(request)
            if not request.begun:
                if isinstance(request.machine, Machine):
                    self.observer.began(time.perf_counter() - request.submitted_s)
                with self._boundary(request):
                    request.begin()

    def _make_room(self) -> None:
        """Lets requests grow that have more to feed than slots, the oldest first."""
        short = [r for r in self._running if r.log.used > r.extent.length]
        for request in sorted(short, key=_BY_AGE):
            if request not in self._running:
                continue  # an older one has needed its slots
            need, pool = request.log.used, self.pool
            more = need - request.extent.length
            if pool.free < more:
                numbers = giving_back(self._extents.held, pool.free, request.number, more)
                for youngest in [r for r in self._running if r.number in numbers]:
                    self._give_back(youngest)
            if request in self._running:
                wanted = grown(need, len(request.prompt), request.slots)
                self._extents.grow(request, min(wanted, request.extent.length + pool.free))

    def _enter(self) -> None:
        """Lets requests in that need not wait for what another computes of their prompts."""
        if not self._outside:
            return
        self.prefixes.notice()
        outside = []
        for request in sorted(self._outside, key=_BY_AGE):
            with self._boundary(request):
                if request.ended is None and not self.prefixes.enter(request):
                    outside.append(request)
        self._outside = outside

    def _collect(self) -> list[_Fed]:
        """The runs of the coming forward. Where not all fit, those go first that were passed
        over most often, then those with few rows."""
        requests = self._running
        if self._outside:
            requests = [request for request in requests if request not in self._outside]
        if sum([request.log.rows for request in requests]) > self._max_rows:
            over = self._passed_over
            requests = sorted(requests, key=lambda r: (-over[r.number], r.log.rows))
        left, fed = self._max_rows, []
        passed_over: Counter[int] = Counter()
        for request in requests:
            waiting = request.log.rows
            runs = request.take(left, self._max_rows) if left else []
            if runs:
                left -= waiting - request.log.rows
                fed.append(_Fed(request, runs))
            elif waiting:
                passed_over[request.number] = self._passed_over[request.number] + 1
        self._passed_over = passed_over
        return fed

    def _evaluate(self, fed: list[_Fed]) -> Exception | None:
        """Forward, draw, advance. Gives the error of a forward or a draw: no machine has moved."""
        failures: list[Exception] = []
        picks: list[_Picks] = []
        drawn: list[_Drawn] = []
        with ErrorBoundary(failures.append):
            picks, drawn = self._draw(fed)
        self._taken = []
        if failures:
            return failures[0]
        if not fed and not picks:
            self._fail_stuck()
        self.forward.accept()
        for one in fed:
            one.request.forwards += 1
            if one.request.shared < len(one.request.prompt):
                self.prefixes.add(one.request)
        rest = iter(drawn)
        for request, branches in picks:
            with self._boundary(request):
                _advance(request, branches, list(islice(rest, len(branches))))
        return None

    def _evaluate_apart(self, fed: list[_Fed], error: Exception) -> None:
        """One forward for each request, so that only those fail that fail alone."""
        for one in fed:
            alone = self._evaluate([one]) if len(fed) > 1 else error
            if alone is not None:
                self._fail(one.request, alone)

    def _draw(self, fed: list[_Fed]) -> tuple[list[_Picks], list[_Drawn]]:
        """Tokens for all live branches whose last run is fed now.

        They stand in the order of the branches of the picks.
        """
        if not fed:
            return [], []
        ends: dict[int, int] = {}  # the last row of a run, by the run's id
        at = 0
        for one in fed:
            for run in one.runs:
                at += len(run.tokens)
                ends[id(run)] = at - 1
        picks: list[_Picks] = []
        rows: list[int] = []
        draws: list[Draw] = []
        for one in fed:
            request, ready = one.request, list[int]()
            for branch, behind in request.awaited():
                row = ends.get(behind)
                if row is not None:
                    ready.append(branch)
                    rows.append(row)
                    draws.append(request.draws.of(branch))
            if ready:
                picks.append((request, ready))
        arranged = arrange([(one.request.log, one.request.extent, one.runs) for one in fed])
        logits = self.forward(arranged, rows, _steady(fed, at))
        self.timings.rows += at
        if not picks:
            return [], []
        begin = time.perf_counter()
        drawn = [*zip(*self._sampler(logits, draws), strict=True)]
        self.timings.sampling_s += time.perf_counter() - begin
        return picks, drawn

    # -- leaving -----------------------------------------------------------------------------------

    def _leave(self, request: AnyRequest) -> None:
        self._stop(request)
        if request.ended in (EndReason.COMPLETED, EndReason.BUDGET):
            self._lengths.saw(request.kind, request.log.used - len(request.prompt))

    def _over(self, request: AnyRequest) -> None:
        request.ended_s = time.perf_counter()
        if isinstance(request.machine, Machine) and request.ended is not None:
            self.observer.ended(request.machine, request.ended.value)

    def _tell_load(self) -> None:
        waiting, running = _machines(self._waiting), _machines(self._running)
        live = sum(len(machine.live) for machine in running)
        self.observer.load(waiting=len(waiting), running=len(running), branches=live)

    def _give_back(self, request: AnyRequest) -> None:
        """Its slots are needed: it waits again, and will feed all its tokens anew."""
        self._stop(request)
        request.log.forget()
        insort(self._waiting, request, key=_BY_AGE)

    def _stop(self, request: AnyRequest) -> None:
        self._running.remove(request)
        self._outside = [other for other in self._outside if other is not request]
        self._taken = [one for one in self._taken if one.request is not request]
        self._extents.release(request)
        self.prefixes.leave(request)
        request.log.forget_states()

    def _fail(self, request: AnyRequest, error: Exception) -> None:
        request.error = f"{type(error).__name__}: {error}"
        request.machine.fail()
        self.forward.log.clear(request.extent)
        self.prefixes.forget()  # it may have computed what is not finite

    def _fail_stuck(self) -> None:
        """A machine that wants nothing and does not end would keep its slots for ever."""
        for request in self._running:
            if request.ended is None:
                self._fail(request, RuntimeError("there is nothing to feed and nothing to draw"))

    def _boundary(self, request: AnyRequest) -> ErrorBoundary:
        return ErrorBoundary(lambda error: self._fail(request, error))


def _advance(request: AnyRequest, branches: list[int], drawn: list[_Drawn]) -> None:
    """Tells the machine. A branch may have ended meanwhile, when a sibling has won the join."""
    machine = request.machine
    for branch, (token, logprob, alternatives) in zip(branches, drawn, strict=True):
        if not math.isfinite(logprob):
            raise ArithmeticError("the model gave logits that are not finite numbers")
        if branch in machine.live:
            request.apply(machine.advance(branch, token, logprob, alternatives))


def _machines(requests: list[AnyRequest]) -> list[Machine]:
    """Those of traces."""
    return [r.machine for r in requests if isinstance(r.machine, Machine)]


def _steady(fed: list[_Fed], rows: int) -> Hashable:
    """Equal for forwards that feed the same branches one token each, in adjacent columns of the
    same extents; None for others."""
    key: list[int | tuple[int, ...] | Extent] = []
    for one in fed:
        runs = one.runs
        if one.is_again or runs[-1].column - runs[0].column >= len(runs):
            return None
        branches = tuple([run.branch for run in runs])
        key += (one.request.number, one.request.extent, branches)
        rows -= len(set(branches))
    return None if rows else tuple(key)
