"""One client's request on the server: its machine, its branches, and the reports to its client.

Here the machine's actions become queued work (`BranchQueues`), each branch's next draw is described
for the sampler, and what was written becomes output of the stock request. Draws use the same
settings, penalties and uniform numbers as the local engine's, so both engines give the same tokens.
"""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Hashable, Sequence
from enum import StrEnum
from typing import Any

from nprdsl.machine.actions import ROOT, Action
from nprdsl.machine.transcript import Alternatives, WrittenToken, kept_alternatives
from nprdsl.runtime.drawing.draws import BranchDraws
from nprdsl.runtime.sglang.plugin.branch_queues import BranchQueues, QueuedBranch
from nprdsl.runtime.sglang.plugin.kv_pools import BranchKV
from nprdsl.runtime.sglang.plugin.observed import observer
from nprdsl.runtime.sglang.plugin.req_types import BranchReq, TraceReq
from nprdsl.runtime.sglang.preparation import PreparedTrace
from nprdsl.runtime.sglang.protocol import KEY, KEY_ALONE, TraceReport
from nprdsl.structure.events import EndReason, Event


class RunStage(StrEnum):
    """Where a request stands."""

    WAITING = "waiting"  # for memory
    PROMPT = "prompt"  # in SGLang's own queue, or its prompt is being computed
    RUNNING = "running"
    OVER = "over"


class TraceRun:
    """One request, a `Holder` of KV slots (see `kv_reservations`). `kv`: what its branches have in
    the KV cache, by number, while it is RUNNING; `lock`: keeps the prefix that it shares with
    SGLang's tree; `forwards`: the forward passes that it took part in."""

    def __init__(self, trace: TraceReq, prepared: PreparedTrace) -> None:
        self.trace = trace
        self.machine = prepared.machine
        self.request = prepared.request
        self.number = 0  # given by the scheduler
        self.kind: Hashable = self.machine.bound.grammar.digest
        self.least = self.machine.least
        self.slots = prepared.slots
        self.promised = self.peak = 0
        self.stage = RunStage.WAITING
        self.begun = False
        self.error = ""
        self.forwards = 0
        self.queues = BranchQueues(len(self.machine.prompt))
        self.kv: dict[int, BranchKV] = {}
        self.lock: Any = None
        seed = prepared.sampling.seed + trace.sample
        self.draws = BranchDraws(self.machine, prepared.sampling, seed, prepared.avoided)
        self._positions: dict[int, list[int]] = {}  # as a branch's tokens were fed, if asked for
        self._rereads: dict[int, int] = {}  # copies that a branch still has to feed
        self._events: list[Event] = []  # not reported yet
        self._settled: list[WrittenToken] = []  # the trace in linear order, as far as it is known
        self._reported = 0  # of these

    # -- the machine -------------------------------------------------------------------------------

    def begin(self) -> None:
        """The machine's first actions: tokens that they force are computed with the prompt."""
        self.queues.root.started = True
        if self.begun:
            return  # it was let in before
        self.begun = True
        self._apply(self.machine.start())
        observer().began(time.perf_counter() - self.trace.queued_s)

    def advance(
        self, branch: int, token: int, logprob: float, alternatives: Alternatives = ()
    ) -> None:
        """A branch drew a token; it is dropped if a sibling has won the join meanwhile."""
        if not math.isfinite(logprob):
            raise ArithmeticError("the model gave logits that are not finite numbers")
        if branch in self.machine.live:
            self._apply(self.machine.advance(branch, token, logprob, alternatives))

    def stop(self, *, error: str = "") -> None:
        """Ends the machine: FAILED with an error, ABORTED without."""
        self.error = error
        if error:
            self.machine.fail()
        else:
            self.machine.abort()

    @property
    def finish(self) -> EndReason | None:
        return EndReason.FAILED if self.error else self.machine.ended

    def _apply(self, actions: Sequence[Action]) -> None:
        self.queues.apply(actions)
        self.draws.saw(actions)

    # -- what its branches do next -----------------------------------------------------------------

    def may_run(self, branch: QueuedBranch) -> bool:
        """Whether the branch has tokens to feed, slots for them, and need not wait for one before
        it."""
        if not branch.waiting or self.needed > self.promised:
            return False
        return self.request.parallel or branch.number not in self.machine.live[1:]

    def drawing(self, branch: QueuedBranch, count: int) -> list[int]:
        """The branches that draw a token behind `count` tokens of this one: itself, or those that
        begin or go on there, behind a fork or a join, with a token that the model writes."""
        idle = self.queues.idle_after(branch, count)
        return [one.number for one in idle if one.number in self.machine.live]

    def in_order(self) -> list[QueuedBranch]:
        """Its branches in the linear order of the trace."""
        path = self.machine.path
        return sorted(self.queues.branches.values(), key=lambda branch: path(branch.number))

    # -- positions and memory ----------------------------------------------------------------------

    def position_shift(self, req: BranchReq) -> int:
        """By how much an index in the branch's row exceeds the token's position id: after a join a
        row holds all branches, but positions continue behind the longest."""
        return len(req.origin_input_ids) - self.queues.branches[req.branch].position

    @property
    def prompt(self) -> int:
        return self.queues.prompt

    @property
    def needed(self) -> int:
        return self.queues.needed

    @property
    def held_slots(self) -> int:
        if self.stage is RunStage.PROMPT:
            return int(self.trace.kv.kv_allocated_len)
        return self.shared_slots + sum(branch.owned for branch in self.kv.values())

    @property
    def shared_slots(self) -> int:
        return len(self.kv[ROOT].prefix) if ROOT in self.kv else 0

    @property
    def in_prompt(self) -> bool:
        return self.stage is RunStage.PROMPT

    def fed_at(self, branch: int, positions: Sequence[int]) -> None:
        """Notes the position ids that tokens of the branch were fed with; copies that a `reread`
        join feeds are not part of the trace."""
        copies = min(self._rereads.get(branch, 0), len(positions))
        self._rereads[branch] = self._rereads.get(branch, 0) - copies
        self._positions.setdefault(branch, []).extend(positions[copies:])

    def rereads(self, parent: int, children: Sequence[QueuedBranch]) -> None:
        """The parent will feed a copy of what was written on its branches among these, and on all
        that forked from them."""
        own = (c for c in children if c.parent is not None and c.parent.number == parent)
        written = (self.machine.transcript.order(child.number) for child in own)
        self._rereads[parent] = self._rereads.get(parent, 0) + sum(1 for w in written for _ in w)

    # -- output ------------------------------------------------------------------------------------

    def report(self) -> bool:
        """Writes what is new into the client's request; False if there is nothing to send.

        The newest token is kept back until the end, so that the last chunk is never empty.
        """
        trace, final = self.trace, self.finish is not None
        transcript, tokens = self.machine.transcript, self._settled
        tokens.extend(transcript.rest() if final else transcript.settled())
        if self.request.events:
            self._events += self.machine.drain_events()
        ready = len(tokens) if final else max(len(tokens) - 1, 0)
        if ready == self._reported and not final:
            return False
        new = tokens[self._reported : ready]
        self._reported = ready
        trace.output_ids.extend(token.token for token in new)
        if trace.wants_logprobs:
            trace.logprob.output_token_logprobs_val.extend(token.logprob for token in new)
            trace.logprob.output_token_logprobs_idx.extend(token.token for token in new)
        if trace.customized_info is None:
            trace.customized_info = {KEY: []}
        chunk: list[dict[str, Any] | None] = [None] * len(new)
        if final or self._events:
            report = self._report(final=final).wire()
            if chunk:
                chunk[0] = report
            else:  # it ended before it had a token
                trace.customized_info[KEY_ALONE] = [report]
        trace.customized_info[KEY].extend(chunk)
        return True

    def _report(self, *, final: bool) -> TraceReport:
        events, self._events = [event.to_dict() for event in self._events], []
        if not final:
            return TraceReport(events=events)
        tokens, order = self._settled, self.machine.transcript.order()
        return TraceReport(
            events=events,
            final=True,
            finish=self.finish,
            error=self.error,
            ids=[token.token for token in tokens],
            logprobs=[token.logprob for token in tokens],
            sampled=[token.sampled for token in tokens],
            alternatives=kept_alternatives(tokens),
            positions=[self._position(*place) for place in order] if self._positions else [],
            forwards=self.forwards,
        )

    def _position(self, branch: int, index: int) -> int | None:
        """Of the token with this index on its branch; None if it was not fed."""
        fed = self._positions.get(branch, [])
        return fed[index] if index < len(fed) else None

    # -- stages ------------------------------------------------------------------------------------

    def enter_prompt(self) -> None:
        """Prepares the client's request for SGLang's queue: it computes the prompt, and what the
        machine forces behind it."""
        trace = self.trace
        self.stage = RunStage.PROMPT
        trace.output_ids = array("q", self.queues.root.waiting)
        trace.full_untruncated_fill_ids = array("q")
        trace.prefix_len, trace.extend_end, trace.last_node = 0, None, None
        trace.sampling_params.max_new_tokens = len(trace.output_ids) + 1
        trace.sampling_params.min_new_tokens = 0
        trace.return_logprob = False

    def leave_prompt(self) -> None:
        """The prompt is computed: from now on the client's request only carries output."""
        self.stage = RunStage.RUNNING
        reported = self._settled[: self._reported]
        self.trace.output_ids = array("q", (token.token for token in reported))

    def end(self) -> None:
        """Writes the result into the client's request."""
        if self.stage is RunStage.PROMPT:
            self.leave_prompt()
        self.stage = RunStage.OVER
        self.report()
        assert self.finish is not None
        observer().ended(self.machine, self.finish.value)
        self.trace.end(self.finish, self.error)

    def restart(self) -> None:
        """All its KV is lost: prompt and trace have to be computed again. Clients are told how
        often, as of plain requests."""
        if self.stage is RunStage.PROMPT:
            self.leave_prompt()  # nothing is lost yet
        else:
            self.trace.retraction_count += 1
        self.stage = RunStage.WAITING
        self.kv.clear()
        self._positions.clear()
        self._rereads.clear()
        self.lock = None
        self.queues.replay()
