"""One request on the server: its machine, its branches, what it draws next, what it has told.

It does for SGLang what `nprdsl.runtime.local.requests` does for the local engine, and draws from
the same settings, histories and uniform numbers, so that both give the same tokens.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from nprdsl.machine.actions import Action
from nprdsl.runtime.drawing.penalty_counts import Histories
from nprdsl.runtime.drawing.sampler import Draw
from nprdsl.runtime.drawing.uniform import branch_key, uniform
from nprdsl.runtime.sglang.plugin.branch_queues import Branch, Forest
from nprdsl.runtime.sglang.plugin.kv_slots import Holding
from nprdsl.runtime.sglang.plugin.rows import BranchReq, TraceReq
from nprdsl.runtime.sglang.protocol import KEY, KEY_ALONE, Report, event_form
from nprdsl.runtime.sglang.requests import Prepared
from nprdsl.runtime.sglang.transcript import Entry, Transcript
from nprdsl.structure.events import EndReason, Event


class Stage(StrEnum):
    """Where a request stands."""

    WAITING = "waiting"  # for memory
    PROMPT = "prompt"  # in SGLang's own queue, or its prompt is being computed
    RUNNING = "running"
    OVER = "over"


class Conductor:
    """One client's request."""

    def __init__(self, trace: TraceReq, prepared: Prepared) -> None:
        self.trace = trace
        self.machine = prepared.machine
        self.request = prepared.request
        self.sampling = prepared.sampling
        self._seed = prepared.sampling.seed + trace.sample
        self.slots = prepared.slots
        self.stage = Stage.WAITING
        self.error = ""
        self.forwards = 0
        self.forest = Forest(len(self.machine.prompt))
        self.holdings: dict[int, Holding] = {}
        self.positions: dict[int, list[int]] = {}  # as the tokens of a branch were fed, if wanted
        self._copied: dict[int, int] = {}  # tokens that a branch still has to read again
        self.lock: Any = None  # of the tree's prefix
        self.transcript = Transcript()
        self._events: list[Event] = []
        self._keys: dict[int, int] = {}
        self._histories = Histories() if self.sampling.penalises else None
        self._entries: list[Entry] = []  # settled, the newest kept back until the end
        self._sent = 0

    # -- moving ------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The machine's first actions; forced tokens may be computed along with the prompt."""
        if not self.forest.log:
            self.apply(self.machine.start())
            self._told(None)
        self.forest.root.started = True

    def advance(self, branch: int, token: int, logprob: float) -> None:
        """A branch drew a token. It may have ended meanwhile, when a sibling has won the join."""
        if not math.isfinite(logprob):
            raise ArithmeticError("the model gave logits that are not finite numbers")
        if branch in self.machine.live:
            self.apply(self.machine.advance(branch, token, logprob))
            self._told(logprob)

    def apply(self, actions: Sequence[Action]) -> None:
        self.forest.apply(actions)
        if self._histories is not None:
            self._histories.apply(actions)

    def stop(self, *, error: str = "") -> None:
        """Ends the machine: FAILED with an error, ABORTED without."""
        self.error = error
        if error:
            self.machine.fail()
        else:
            self.machine.abort()
        self._told(None)

    @property
    def finish(self) -> EndReason | None:
        return EndReason.FAILED if self.error else self.machine.ended

    def _told(self, logprob: float | None) -> None:
        events = self.machine.drain_events()
        self.transcript.add(events, logprob)
        if self.request.events:
            self._events += events

    # -- what is next ------------------------------------------------------------------------------

    def may_run(self, branch: Branch) -> bool:
        """Whether the branch has tokens to feed, and is not held back by one before it."""
        if not branch.waiting:
            return False
        return self.request.parallel or branch.name not in self.machine.live[1:]

    def draws(self, branch: Branch, count: int) -> bool:
        """Whether the branch draws a token once `count` of its tokens are fed."""
        return branch.last_after(count) and branch.name in self.machine.live

    def draw(self, branch: int) -> Draw:
        """What its next token is drawn from."""
        machine, history = self.machine, None
        key = self._keys.get(branch)
        if key is None:
            key = self._keys[branch] = branch_key(self._seed, machine.path(branch))
        if self._histories is not None:
            history = self._histories.seen(branch)
        settings = self.sampling.for_rule(machine.rule(branch))
        number = uniform(key, machine.position_in_branch(branch))
        return Draw(machine.mask(branch), settings, number, history)

    def in_order(self) -> list[Branch]:
        """Its branches in the order of the trace."""
        return sorted(self.forest.alive(), key=lambda b: self.machine.path(b.name))

    def shift(self, req: BranchReq) -> int:
        """By how much a row is longer than the longest path through it."""
        return len(req.origin_input_ids) - self.forest.branches[req.name].position

    @property
    def owned(self) -> int:
        """Slots that its branches own or share with the tree of prefixes."""
        if self.stage is Stage.PROMPT:
            return int(self.trace.kv.kv_allocated_len)
        shared = self.holdings.get(0)
        locked = len(shared.prefix) if shared is not None else 0
        return locked + sum(holding.owned for holding in self.holdings.values())

    # -- what is told ------------------------------------------------------------------------------

    def report(self) -> bool:
        """Writes what is new into the client's request; False if there is nothing to send.

        The newest settled token is kept back until the end, so that the last chunk is never empty.
        """
        trace, final = self.trace, self.finish is not None
        self._entries.extend(self.transcript.rest() if final else self.transcript.settled())
        ready = len(self._entries) if final else max(len(self._entries) - 1, 0)
        if ready == self._sent and not final:
            return False
        new = self._entries[self._sent : ready]
        self._sent = ready
        trace.output_ids.extend(entry.token for entry in new)
        if trace.wants_logprobs:
            trace.logprob.output_token_logprobs_val.extend(entry.logprob for entry in new)
            trace.logprob.output_token_logprobs_idx.extend(entry.token for entry in new)
        if trace.customized_info is None:
            trace.customized_info = {KEY: []}
        chunk: list[dict[str, Any] | None] = [None] * len(new)
        if final or self._events:
            told = self._report(final=final).wire()
            if chunk:
                chunk[0] = told
            else:  # it ended before it had a token
                trace.customized_info[KEY_ALONE] = [told]
        trace.customized_info[KEY].extend(chunk)
        return True

    def _report(self, *, final: bool) -> Report:
        events, self._events = [event_form(event) for event in self._events], []
        if not final:
            return Report(events=events)
        entries = self._entries
        return Report(
            events=events,
            final=True,
            finish=self.finish,
            error=self.error,
            ids=[entry.token for entry in entries],
            logprobs=[entry.logprob for entry in entries],
            sampled=[entry.sampled for entry in entries],
            positions=[self._position(entry) for entry in entries] if self.positions else [],
            forwards=self.forwards,
        )

    def _position(self, entry: Entry) -> int | None:
        fed = self.positions.get(entry.branch, [])
        return fed[entry.index] if entry.index < len(fed) else None

    def placed(self, branch: int, positions: Sequence[int]) -> None:
        """Tokens of the branch were fed at these positions; copies are no part of the trace."""
        again = min(self._copied.get(branch, 0), len(positions))
        self._copied[branch] = self._copied.get(branch, 0) - again
        self.positions.setdefault(branch, []).extend(positions[again:])

    def reads_again(self, parent: int, children: Sequence[Branch]) -> None:
        """The parent reads all that was written on its children, these with all below them."""
        written = sum(self.transcript.count(child.name) for child in children)
        self._copied[parent] = self._copied.get(parent, 0) + written

    # -- the client's request ----------------------------------------------------------------------

    def enter(self) -> None:
        """The client's request is about to compute its prompt, and what is forced behind it."""
        trace = self.trace
        self.stage = Stage.PROMPT
        trace.output_ids = array("q", self.forest.root.waiting)
        trace.full_untruncated_fill_ids = array("q")
        trace.prefix_len, trace.extend_end, trace.last_node = 0, None, None
        trace.sampling_params.max_new_tokens = len(trace.output_ids) + 1
        trace.sampling_params.min_new_tokens = 0
        trace.return_logprob = False

    def leave(self) -> None:
        """The prompt is computed: from here on the client's request only carries what is sent."""
        self.stage = Stage.RUNNING
        self.trace.output_ids = array("q", (entry.token for entry in self._entries[: self._sent]))

    def end(self) -> None:
        """Writes the result into the client's request."""
        if self.stage is Stage.PROMPT:
            self.leave()
        self.stage = Stage.OVER
        self.report()
        assert self.finish is not None
        self.trace.end(self.finish, self.error)

    def restart(self) -> None:
        """All KV is lost: prompt and trace have to be computed again."""
        self.stage = Stage.WAITING
        self.holdings.clear()
        self.positions.clear()
        self._copied.clear()
        self.lock = None
        self.forest.replay()
