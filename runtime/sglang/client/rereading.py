"""Forks and joins without the plugin: this process runs the machine, a stock server the model.

A `reread` join feeds the branches again as plain text, so each branch is an ordinary sequence and
no KV has to be merged. The machine asks for runs of tokens of each live branch (`MaskedRuns`), in
parallel calls; what the branches share is in the server's prefix cache. Of a run, the tokens that
the schema allows are kept, the rest is drawn again.

Compared with the plugin: seeds do not give equal tokens; top-k, top-p and min-p are applied before
the mask; penalties are not possible; each branch takes several requests, and each of those waits
in the server's queue; log-probabilities cost one more pass over the trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import replace

from nprdsl.grammar.ir import JoinKind
from nprdsl.machine.actions import ROOT, Action, DropAction, FeedAction, ForkAction
from nprdsl.runtime.engine import Submission
from nprdsl.runtime.errors import UnsupportedServerError
from nprdsl.runtime.results import Result
from nprdsl.runtime.sglang.client.call import Call
from nprdsl.runtime.sglang.client.stock_requests import MaskedRuns
from nprdsl.runtime.sglang.client.transport import Transport
from nprdsl.structure.events import EndReason
from nprdsl.tokens.bitmask import allows

_REMEDY = "start the server with `nprdsl serve`, which has the plugin"


class _BranchTokens:
    """All tokens that a branch sees, and the indices in them of those that it wrote itself."""

    def __init__(self, seen: Sequence[int]) -> None:
        self.seen = list(seen)
        self.own: list[int] = []
        self.rereads_next = False  # the next tokens are copies that a `reread` join feeds

    def feed(self, tokens: Sequence[int]) -> None:
        if not self.rereads_next:
            self.own.extend(range(len(self.seen), len(self.seen) + len(tokens)))
        self.rereads_next = False
        self.seen.extend(tokens)


class RereadingCall(Call):
    """One request that forks in this process; its branches' calls run in the pool `branches`."""

    def __init__(
        self,
        number: int,
        submission: Submission,
        transport: Transport,
        branches: Executor,
        *,
        events: bool,
    ) -> None:
        super().__init__(number, submission, transport, events=events)
        self._branches = branches
        self._machine = submission.machine
        self._runs = MaskedRuns(self.rid, transport, self._machine.bound)
        self._tokens = {ROOT: _BranchTokens(self._machine.prompt)}
        self._scores: dict[int, Future[dict[int, float]]] = {}

    def _work(self) -> Result:
        machine = self._machine
        self._apply(machine.start())
        asked: dict[Future[list[int]], int] = {}
        while machine.live:
            live = machine.live if self.submission.parallel else machine.live[:1]
            for branch in set(live) - set(asked.values()):
                asked[self._ask(branch)] = branch
            done, _ = wait(asked, return_when=FIRST_COMPLETED)
            for future in done:
                self._take(asked.pop(future), future.result())
            if self._aborted.is_set():
                self._apply(machine.abort())
        return self._finished()

    def _ask(self, branch: int) -> Future[list[int]]:
        machine = self._machine
        return self._branches.submit(
            self._runs.draw,
            list(self._tokens[branch].seen),
            machine.mask(branch),
            self.submission.sampling.for_rule(machine.rule(branch)),
            machine.left(branch),
        )

    def _take(self, branch: int, tokens: list[int]) -> None:
        """Gives the machine as much of a run as the schema allows and the sampling settings, which
        are those of the rule where it began, are valid for."""
        machine = self._machine
        if branch not in machine.live:  # cut by a selective join meanwhile
            return
        rule = machine.rule(branch)
        for token in tokens:
            if branch not in machine.live or machine.rule(branch) != rule:
                return
            if not allows(machine.mask(branch), token):
                return
            if self._apply(machine.advance(branch, token)):
                return  # forced tokens follow, which the rest of the run did not see

    def _apply(self, actions: Sequence[Action]) -> bool:
        """Whether the actions are more than feeding a single token: tokens were forced, or
        branches forked or joined."""
        fed = 0
        for action in actions:
            match action:
                case FeedAction(branch, tokens):
                    self._tokens[branch].feed(tokens)
                    fed += len(tokens)
                case ForkAction(parent, children):
                    seen = self._tokens[parent].seen
                    self._tokens.update({child: _BranchTokens(seen) for child in children})
                case DropAction(parent, children):
                    for child in children:
                        self._score(child)
                    self._tokens[parent].rereads_next = True
        self._emit(self._machine.drain_events())
        return len(actions) != 1 or fed != 1

    # -- the end -----------------------------------------------------------------------------------

    def _score(self, branch: int) -> None:
        """Asks for the log-probabilities of a finished branch."""
        tokens = self._tokens[branch]
        self._scores[branch] = self._branches.submit(
            self._runs.score, list(tokens.seen), list(tokens.own)
        )

    def _finished(self) -> Result:
        finish = self._machine.ended
        assert finish is not None
        tokens, order = self._machine.written, list(self._machine.transcript.order())
        scored = finish is not EndReason.ABORTED
        ends = {branch: token.token for token, (branch, _) in zip(tokens, order, strict=True)}
        for branch, end in ends.items():
            own = self._tokens[branch]
            if self._machine.transcript.count(branch) > len(own.own):
                own.feed([end])  # what ends a trace is written, but never fed
            if scored and branch not in self._scores:
                self._score(branch)
        written = []
        for token, (branch, index) in zip(tokens, order, strict=True):
            logprob = None
            if token.sampled and scored:
                logprob = self._scores[branch].result()[self._tokens[branch].own[index]]
            written.append(replace(token, logprob=logprob))
        return self._result(finish, written=written, forwards=self._runs.forwards)


def check_needs_no_plugin(submission: Submission) -> None:
    """Raises UnsupportedServerError for a request that only the plugin can run."""
    grammar = submission.schema.grammar
    merging = [block.rule for block in grammar.blocks if block.join is not JoinKind.REREAD]
    if merging:
        raise UnsupportedServerError(
            f"the join of `{merging[0]}` merges the branches' KV, and the server has no plugin for "
            f"that; {_REMEDY}, or let the schema join with `reread`"
        )
    if submission.sampling.penalises:
        raise UnsupportedServerError(
            "a penalty counts the tokens that a branch sees, and the server has no "
            f"plugin for that; {_REMEDY}"
        )
    if submission.sampling.avoid:
        raise UnsupportedServerError(
            f"the server has no plugin that keeps texts from being copied (`avoid`); {_REMEDY}"
        )
