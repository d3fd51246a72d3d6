"""Forks on a server without the plugin: each branch is plain requests, its prefix in the cache.

That is possible where joins read the branches again as text: then every branch is a sequence of its
own, and no KV has to be merged. The machine runs in this process and asks the server for runs of
tokens; what a run has beyond the schema's language is drawn again (see `plainruns`).

What is lost against the plugin: seeds give no equal tokens; top-k, top-p and min-p are applied
before the mask, not behind it; there is no repetition penalty; a branch is several requests, each
of which waits in the server's queue; log-probabilities cost one more pass over the trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait

from nprdsl.grammar.ir import JoinKind
from nprdsl.machine.actions import ROOT, Action, DropAction, FeedAction, ForkAction
from nprdsl.machine.branch_state import Written
from nprdsl.runtime.engine import Submission
from nprdsl.runtime.errors import UnsupportedServerError
from nprdsl.runtime.results import Result
from nprdsl.runtime.sglang.client.call import Call
from nprdsl.runtime.sglang.client.masked_runs import PlainRuns, allows
from nprdsl.runtime.sglang.client.transport import Transport
from nprdsl.runtime.sglang.transcript import Transcript
from nprdsl.structure.events import EndReason

WITH_PLUGIN = "start the server with `nprdsl serve`, which has the plugin"


class _Sequence:
    """What a branch sees, and where its own tokens stand in that."""

    def __init__(self, seen: Sequence[int]) -> None:
        self.seen = list(seen)
        self.own: list[int] = []
        self.copies_next = False  # what is fed next is read again, not written

    def feed(self, tokens: Sequence[int]) -> None:
        if not self.copies_next:
            self.own.extend(range(len(self.seen), len(self.seen) + len(tokens)))
        self.copies_next = False
        self.seen.extend(tokens)


class RereadingCall(Call):
    """One request that forks in this process. `branches` runs the calls of its branches."""

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
        self._runs = PlainRuns(self.rid, transport, self._machine.bound)
        self._sequences = {ROOT: _Sequence(self._machine.prompt)}
        self._scores: dict[int, Future[dict[int, float]]] = {}
        self._transcript = Transcript()

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
        return self._read()

    def _ask(self, branch: int) -> Future[list[int]]:
        machine = self._machine
        return self._branches.submit(
            self._runs.draw,
            list(self._sequences[branch].seen),
            machine.mask(branch),
            self.submission.sampling.for_rule(machine.rule(branch)),
            machine.left(branch),
        )

    def _take(self, branch: int, tokens: list[int]) -> None:
        """Gives the machine what the schema, and the settings of one rule, allow of a run."""
        machine = self._machine
        if branch not in machine.live:  # cut meanwhile
            return
        rule = machine.rule(branch)
        for token in tokens:
            if branch not in machine.live or machine.rule(branch) != rule:
                return
            if not allows(machine.mask(branch), token):
                return
            if self._apply(machine.advance(branch, token)):
                return  # more was fed than this token

    def _apply(self, actions: Sequence[Action]) -> bool:
        """Whether tokens were forced, or branches forked or joined."""
        fed = 0
        for action in actions:
            match action:
                case FeedAction(branch, tokens):
                    self._sequences[branch].feed(tokens)
                    fed += len(tokens)
                case ForkAction(parent, children):
                    seen = self._sequences[parent].seen
                    self._sequences.update({child: _Sequence(seen) for child in children})
                case DropAction(parent, children):
                    for child in children:
                        self._score(child)
                    self._sequences[parent].copies_next = True
        events = self._machine.drain_events()
        self._transcript.add(events, None)
        self.tell(events)
        return len(actions) != 1 or fed != 1

    # -- the end -----------------------------------------------------------------------------------

    def _score(self, branch: int) -> None:
        """Asks for the log-probabilities of a branch that is written."""
        sequence = self._sequences[branch]
        self._scores[branch] = self._branches.submit(
            self._runs.score, list(sequence.seen), list(sequence.own)
        )

    def _read(self) -> Result:
        finish = self._machine.ended
        assert finish is not None
        scored = finish in (EndReason.COMPLETED, EndReason.BUDGET)
        entries, root = list(self._transcript.rest()), self._sequences[ROOT]
        last = entries[-1] if entries else None
        if last is not None and last.branch == ROOT and last.index == len(root.own):
            root.feed([last.token])  # the end of the sequence is written, but not fed
        if scored:
            self._score(ROOT)
        written = []
        for entry in entries:
            logprob = None
            if entry.sampled and scored:
                place = self._sequences[entry.branch].own[entry.index]
                logprob = self._scores[entry.branch].result()[place]
            written.append(Written(entry.token, entry.sampled, logprob))
        return self.ended(finish, written=written, forwards=self._runs.forwards)


def check_server(submission: Submission) -> None:
    """Raises UnsupportedServerError for what cannot be done without the plugin."""
    grammar = submission.schema.grammar
    merging = [block.rule for block in grammar.blocks if block.join is not JoinKind.REREAD]
    if merging:
        raise UnsupportedServerError(
            f"the join of `{merging[0]}` merges the branches' KV, and the server has no plugin for "
            f"that; {WITH_PLUGIN}, or let the schema join with `reread`"
        )
    if submission.sampling.penalises:
        raise UnsupportedServerError(
            "a penalty counts the tokens that a branch sees, and the server has no "
            f"plugin for that; {WITH_PLUGIN}"
        )
