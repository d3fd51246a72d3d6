"""The fork/join machine: what one generation does next, independent of any engine.

It holds a matcher and an account for every branch. An engine asks for the mask of each live branch,
samples, and gives the token to `advance`; the machine answers with actions: feed these tokens,
fork, join, end. It forces headers, labels, glue and joins, and keeps the budget, so that every
trace that ends is legal whatever the budget. Any engine can run it that can feed tokens, return
logits, share a branch's KV with its children on a fork, and merge theirs on a join.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from nprdsl.grammar.ir import Block, JoinKind
from nprdsl.machine.actions import (
    ALL,
    ROOT,
    Action,
    DropAction,
    EndAction,
    FeedAction,
    ForkAction,
    JoinAction,
    JoinPolicy,
)
from nprdsl.machine.branch_state import (
    BranchState,
    begin_text,
    cap_slack,
    follow_caps,
    open_caps,
    reserved_slack,
    text_slack,
)
from nprdsl.machine.budget import DEFAULT_LIMITS, LimitError, Limits, TokenAccount, share_out
from nprdsl.machine.event_log import EventLog
from nprdsl.machine.transcript import Alternatives, Transcript, WrittenToken, parse_written
from nprdsl.masks.block_ahead import NO_TAGS
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.masks.matcher import Matcher
from nprdsl.structure.events import (
    BranchEndEvent,
    BranchReason,
    EndEvent,
    EndReason,
    Event,
    ForkEvent,
    JoinEvent,
)
from nprdsl.structure.tag_machine import END, ForkMode, TagState
from nprdsl.tokens.bitmask import Mask, unpack
from nprdsl.tokens.spelling import NEVER
from nprdsl.trace.trace import TokenTrace

_FILLERS = (b".", b"-", b"x", b"0", b"1", b"a")  # to close a field where any text will do


class Machine:
    """One generation. Raises `LimitError` at once if no legal trace fits the limits.

    `transcript` holds the tokens that were written; `ended` says why it is over, None before.
    `constrained`: every trace that comes to its end is legal.
    """

    constrained: ClassVar[bool] = True

    def __init__(
        self,
        bound: BoundSchema,
        prompt: Sequence[int] = (),
        limits: Limits = DEFAULT_LIMITS,
        join: JoinPolicy = ALL,
    ) -> None:
        self.bound = bound.under(limits.bounds)
        self.prompt = tuple(prompt)
        self.limits = limits
        self.ended: EndReason | None = None
        self._join = join
        self._automaton = self.bound.automaton()
        self._tags = self._automaton.machine(ForkMode.FORKING)
        self._caps = frozenset(limits.rule_tokens)
        self._clean = None if limits.text_tokens is None else self.bound.clean_text
        self._rule_tokens = dict(limits.rule_tokens)
        self.transcript: Transcript[WrittenToken] = Transcript()
        self.events = EventLog(bound.vocabulary)
        self._actions: list[Action] = []
        self._check_limits()
        account = TokenAccount(self.limits.max_tokens, self.limits.max_positions)
        root = BranchState(ROOT, (), self._matcher(self._tags.initial), account, None)
        open_caps(root, self._caps)
        self._begin_text(root)
        self._branches = [root]
        self._live: list[int] = []

    @property
    def least(self) -> int:
        """Tokens of the shortest legal trace within the bounds."""
        return self._matcher(self._tags.initial).cost

    def _check_limits(self) -> None:
        minimum = self.least
        if minimum >= NEVER:
            raise LimitError(f"no trace of `{self.bound.grammar.name}` fits {self.limits.bounds}")
        for name in ("max_tokens", "max_positions"):
            most = self.limits.max_tokens if name == "max_tokens" else self.limits.max_positions
            if most is not None and most < minimum:
                raise LimitError(
                    f"{name} is {most}; the shortest legal trace of "
                    f"`{self.bound.grammar.name}` takes {minimum} tokens: allow at least {minimum}"
                )
        if self.limits.spawn is not None and not self.bound.grammar.spawns:
            raise LimitError(
                f"spawn is {self.limits.spawn}, but `{self.bound.grammar.name}` has no fork by "
                "count (`spawn`): its lists say how many branches there are; `branches` bounds them"
            )
        for name, tokens in self.limits.rule_tokens.items():
            if name not in self.bound.grammar.rules:
                known = ", ".join(self.bound.grammar.rules)
                raise LimitError(f"rule_tokens names `{name}`, which is no rule; rules: {known}")
            least = self._automaton.own_costs.rule(name)
            if tokens < least:
                raise LimitError(
                    f"rule_tokens[{name!r}] is {tokens}; the shortest `{name}` takes {least} tokens"
                )

    def _matcher(self, structure: TagState) -> Matcher:
        return Matcher(self._automaton, self._automaton.enter(structure))

    # what an engine asks

    @property
    def live(self) -> tuple[int, ...]:
        """The branches that need a sampled token next, in the order of the trace."""
        return tuple(self._live)

    def mask(self, branch: int) -> Mask:
        """int32 [ceil(V/32)]: the tokens that the branch may sample. Equal rows are the same
        array."""
        state = self._branches[branch]
        matcher, slack, in_text = state.matcher, self._slack(state), self._text_slack(state)
        block = self._block_tags(state, slack)
        state.squeezed = min(slack, in_text) <= 0 and not block
        if state.squeezed:
            slack = 0
        ample = slack >= matcher.ample
        mask = matcher.mask() if ample else matcher.tight(slack)
        if block or 0 < in_text < matcher.ample:
            mask = matcher.within_text(mask, min(in_text, matcher.ample), block)
        if self._clean is None:
            return mask
        return matcher.clean(mask, self._clean, block or matcher.affordable(self._clean, slack))

    def _block_tags(self, state: BranchState, slack: int) -> frozenset[str]:
        """For a model that is not trained: the tags that lead to the trace's first block and can be
        paid, where others do not lead there."""
        if self._clean is None or state.number != ROOT or state.forks:
            return NO_TAGS
        tags = self.bound.block_ahead.tags(state.matcher.structure)
        return tags and tags & state.matcher.affordable(self._clean, slack)

    def _slack(self, state: BranchState) -> int:
        """The tokens that a branch may spend beyond those of its cheapest end."""
        slack = state.account.free - state.matcher.cost
        if self._caps:
            slack = min(slack, cap_slack(state, self._rule_tokens))
        if self.limits.text_tokens is not None:
            slack = min(slack, reserved_slack(state, self.limits.text_tokens))
        return slack

    def _text_slack(self, state: BranchState) -> int:
        """The tokens that the text in progress may have beyond those that end it soonest."""
        texts = self.limits.text_tokens
        return state.matcher.ample if texts is None else text_slack(state, texts)

    def rule(self, branch: int) -> str:
        """The innermost rule that the branch is writing."""
        return self._branches[branch].matcher.structure.rule

    def path(self, branch: int) -> tuple[int, ...]:
        """() for the trunk, else block and branch numbers from the trunk down."""
        return self._branches[branch].path

    def position_in_branch(self, branch: int) -> int:
        """How many tokens were written on the branch so far."""
        return self._branches[branch].account.spent

    def left(self, branch: int) -> int:
        """How many tokens the branch may still write."""
        return self._branches[branch].account.free

    def drain_events(self) -> list[Event]:
        """What happened since the last call."""
        return self.events.drain()

    # moving

    def start(self) -> list[Action]:
        """The first actions; the prompt is fed by the engine before them."""
        assert not self._live and self.ended is None, "a machine starts once"
        self._run_on(self._branches[ROOT], ())
        return self._drain()

    def advance(
        self,
        branch: int,
        token: int,
        logprob: float | None = None,
        alternatives: Alternatives = (),
    ) -> list[Action]:
        """Take the token that a live branch sampled. Raises `IllegalTokenError` if its mask forbids
        it."""
        assert branch in self._live, f"branch {branch} does not wait for a token"
        state = self._branches[branch]
        if self._ends_paragraph(state, token):
            self._live.remove(branch)
            self._end(EndReason.COMPLETED)
            return self._drain()
        may_end = token == self.bound.vocabulary.eos_id
        has_ended = may_end and state.matcher.completes(token) == END
        self.events.drew(branch, state.matcher.structure, token, logprob, shown=not has_ended)
        leads = self._leads_to_block(state, token)
        self._step(state, token)
        state.text_over |= leads
        self.transcript.write(branch, WrittenToken(token, True, logprob, alternatives))
        if self._chooses(state) and not (branch == ROOT and self._spent(state)):
            return [FeedAction(branch, (token,))]  # it waits where it waited
        self._live.remove(branch)
        if has_ended:
            self._end(EndReason.COMPLETED)
        else:
            self._run_on(state, (token,))
        return self._drain()

    def _ends_paragraph(self, state: BranchState, token: int) -> bool:
        """Whether the token is none of the text but its end, for a model that is not trained."""
        if self._clean is None or state.number != ROOT:
            return False
        return state.matcher.ends_paragraph(token, self._clean, self._slack(state))

    def _leads_to_block(self, state: BranchState, token: int) -> bool:
        """Whether the token ends the one paragraph that such a model has before its first block."""
        if self._clean is None or not state.matcher.breaks(token, self._clean):
            return False
        return bool(self._block_tags(state, self._slack(state)))

    def abort(self) -> list[Action]:
        """Stop at once; what was written stays readable, but need not be legal."""
        if self.ended is None:
            self._end(EndReason.ABORTED)
        return self._drain()

    def fail(self) -> list[Action]:
        """The engine cannot go on."""
        if self.ended is None:
            self._end(EndReason.FAILED)
        return self._drain()

    def _drain(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions

    def _run_on(self, state: BranchState, pending: tuple[int, ...]) -> None:
        """Feed `pending` and all that is forced, then fork, finish, or wait for a sample."""
        forced = self._forced(state, pending)
        if forced:
            self._force(state, forced)
        if pending or forced:
            self._actions.append(FeedAction(state.number, pending + forced))
        if state.matcher.structure.fork is not None:
            self._fork(state)
        elif state.matcher.finished:
            self._finish(state)
        elif state.number == ROOT and self._spent(state):
            self._end(EndReason.BUDGET)
        elif self._chooses(state):
            self._wait(state)
        else:
            self._run_on(state, ())

    def _forced(self, state: BranchState, pending: tuple[int, ...]) -> tuple[int, ...]:
        """What the machine writes of itself where the branch stands; `pending` is what the model
        has written since the last feed, nothing where the branch begins or goes on behind a
        join."""
        return tuple(state.matcher.forced())

    def _chooses(self, state: BranchState) -> bool:
        """Whether the model has to write the next token."""
        return state.matcher.chooses

    def _spent(self, state: BranchState) -> bool:
        """Whether the trunk may end here, and has no budget to write more."""
        slack = self._slack(state)
        if min(slack, self._text_slack(state)) > 0 or not state.matcher.may_end:
            return False
        return not self._block_tags(state, slack)

    def _wait(self, state: BranchState) -> None:
        self._live.append(state.number)
        self._live.sort(key=lambda number: self._branches[number].path)

    def _step(self, state: BranchState, token: int) -> None:
        """Move a branch by one token, and account for it."""
        watched = self._caps or self.limits.text_tokens is not None
        tag = state.matcher.completes(token) if watched else None
        before = None if tag is None else state.matcher.structure
        state.matcher.advance(token)
        if tag is not None and before is not None:
            follow_caps(state, self._caps, before, tag)
        state.account.spend(1)
        if tag is not None:
            self._begin_text(state)

    def _begin_text(self, state: BranchState) -> None:
        if self.limits.text_tokens is not None:
            begin_text(state)

    def _force(self, state: BranchState, tokens: tuple[int, ...]) -> None:
        """Write tokens that the model does not choose."""
        states = []
        for token in tokens:
            states.append(state.matcher.structure)
            self._step(state, token)
        self._begin_text(state)
        self.transcript.write(state.number, *[WrittenToken(t, False, None) for t in tokens])
        self.events.forced(state.number, states, tokens)

    # forks and joins

    def _fork(self, parent: BranchState) -> None:
        structure = parent.matcher.structure
        fork, items = self._tags.fork_items(structure)
        count = len(items) if items is not None else self._spawn(parent, fork.block)
        if not count:  # an empty list: there is nothing to wait for
            self._go_on(parent)
            return
        starts = [self._matcher(self._tags.branch(structure, i)) for i in range(count)]
        rest = self._matcher(self._tags.joined(structure)).cost
        costs = [matcher.cost for matcher in starts]
        shares = share_out(parent.account.left, costs, rest, self.limits.branch_tokens)
        parent.account.left -= sum(shares)
        positions = _share_positions(parent.account, costs, rest, again=_reads_again(fork.block))
        first = len(self._branches)
        for index, (matcher, share, room) in enumerate(zip(starts, shares, positions, strict=True)):
            path = (*parent.path, parent.forks, index)
            account = TokenAccount(share, room)
            child = BranchState(first + index, path, matcher, account, parent.number)
            open_caps(child, self._caps)
            self._begin_text(child)
            self._branches.append(child)
        parent.children = tuple(range(first, first + count))
        self.transcript.fork(parent.number, parent.children)
        labels = tuple(
            values[0].text if values else str(i + 1)
            for i, values in enumerate(items if items is not None else [()] * count)
        )
        self._actions.append(ForkAction(parent.number, parent.children))
        self.events.add(
            ForkEvent(
                parent.number,
                parent.children,
                labels,
                fork.block.branch,
                parent.path,
                parent.forks,
            )
        )
        parent.forks += 1
        for number in range(first, first + count):
            if not self._branches[number].matcher.finished:  # cut already
                self._run_on(self._branches[number], ())

    def _spawn(self, parent: BranchState, block: Block) -> int:
        """The number of branches of a fork by count: as many as asked for, allowed and
        affordable."""
        count = max(self.limits.spawn or block.low, block.low)
        for limit in (block.high, self.limits.branches):
            count = count if limit is None else min(count, limit)
        structure = parent.matcher.structure
        one = self._matcher(self._tags.branch(structure, 0)).cost
        rest = self._matcher(self._tags.joined(structure)).cost
        left = parent.account.free if _reads_again(block) else parent.account.left
        return max(block.low, min(count, (left - rest) // max(one, 1)))

    def _finish(self, state: BranchState) -> None:
        if state.number == ROOT:
            self._end(EndReason.BUDGET if state.squeezed else EndReason.COMPLETED)
            return
        if state.reason is None:
            state.reason = BranchReason.BUDGET if state.squeezed else BranchReason.COMPLETED
        self.transcript.end(state.number)
        self.events.add(BranchEndEvent(state.number, state.reason, state.path))
        assert state.parent is not None
        parent = self._branches[state.parent]
        siblings = [self._branches[n] for n in parent.children]
        done = sum(s.matcher.finished for s in siblings)
        if done == len(siblings):
            self._merge(parent)
            return
        if state is siblings[-1]:
            self._hold_back(state, parent)
        if self._join.quorum is not None and done == self._join.quorum:
            for sibling in siblings:
                if not sibling.matcher.finished:
                    self._cut(sibling)

    def _hold_back(self, last: BranchState, parent: BranchState) -> None:
        """Where the model writes the first token behind the join, it draws that behind the last
        token of the last branch; so that one is fed with the join, when the others have ended."""
        fork = parent.matcher.structure.fork
        assert fork is not None
        joined = self._matcher(self._tags.joined(parent.matcher.structure))
        if _reads_again(fork.block) or joined.forced():
            return
        fed = self._actions.pop()
        assert isinstance(fed, FeedAction) and fed.branch == last.number
        *before, end = fed.tokens
        parent.held = (end,)
        if before:
            self._actions.append(FeedAction(last.number, tuple(before)))

    def _cut(self, state: BranchState) -> None:
        """Close a branch, and all that runs inside it, with the fewest tokens."""
        state.reason = BranchReason.CUT
        for number in state.children:
            child = self._branches[number]
            if not child.matcher.finished:
                self._cut(child)
        if state.number in self._live:
            self._live.remove(state.number)
        while not state.matcher.finished and not state.children:
            tokens = self._closing(state.matcher)
            self._force(state, tokens)
            self._run_on(state, tokens)
            if state.number in self._live:
                self._live.remove(state.number)
            for number in state.children:
                if not self._branches[number].matcher.finished:
                    self._cut(self._branches[number])

    def _closing(self, matcher: Matcher) -> tuple[int, ...]:
        """The fewest tokens to the matcher's next fork or end, without the model; it stays where it
        is."""
        tokens: list[int] = []
        matcher = matcher.fork()
        while not matcher.finished and matcher.structure.fork is None:
            run = matcher.forced() or [self._cheapest(matcher)]
            for token in run:
                matcher.advance(token)
            tokens += run
        return tuple(tokens)

    def _cheapest(self, matcher: Matcher) -> int:
        """A token that brings the end nearer: a plain character where any text will do."""
        vocabulary = self.bound.vocabulary
        allowed = unpack(matcher.tight(0), vocabulary.size)
        for filler in _FILLERS:
            spelled = vocabulary.spell(filler)
            if spelled is not None and len(spelled) == 1 and allowed[spelled[0]]:
                return spelled[0]
        return int(np.argmax(allowed))

    def _merge(self, parent: BranchState) -> None:
        children = [self._branches[n] for n in parent.children]
        parent.account.left += sum(child.account.left for child in children)
        fork = parent.matcher.structure.fork
        assert fork is not None
        reread = _reads_again(fork.block)
        if parent.account.positions is not None:
            left = [child.account.positions or 0 for child in children]
            rest = self._matcher(self._tags.joined(parent.matcher.structure)).cost
            parent.account.positions = (
                parent.account.positions + sum(left) if reread else rest + min(left)
            )
        if parent.held:
            self._actions.append(FeedAction(parent.children[-1], parent.held))
            parent.held = ()
        kind = DropAction if reread else JoinAction
        self._actions.append(kind(parent.number, parent.children))
        self.events.add(JoinEvent(parent.number, parent.children, parent.path))
        read = self.transcript.linear
        again = tuple(w.token for c in parent.children for w in read(c)) if reread else ()
        parent.children = ()
        if again:
            self._actions.append(FeedAction(parent.number, again))
        self._go_on(parent)

    def _go_on(self, parent: BranchState) -> None:
        """Go on behind a fork of which all branches have ended."""
        parent.matcher = self._matcher(self._tags.joined(parent.matcher.structure))
        open_caps(parent, self._caps)
        self._begin_text(parent)
        self._run_on(parent, ())

    def _end(self, reason: EndReason) -> None:
        self.ended = reason
        self._live.clear()
        self.transcript.end(ROOT)
        self._actions.append(EndAction(reason))
        self.events.add(EndEvent(reason))

    # what was written

    @property
    def written(self) -> list[WrittenToken]:
        """All tokens of the trace so far, in linear order."""
        return self.transcript.linear()

    @property
    def logprobs(self) -> list[float | None]:
        """For every token of the trace, in linear order; None where it was forced."""
        return [token.logprob for token in self.written]

    def trace(self) -> TokenTrace:
        """The trace, read back by the parser. Raises `TraceError` if it was stopped midway."""
        return parse_written(self.bound, self.prompt, self.written)


def _reads_again(block: Block) -> bool:
    """Whether the branches are read again behind their join, one after another."""
    return block.join is JoinKind.REREAD


def _share_positions(
    account: TokenAccount, costs: Sequence[int], rest: int, *, again: bool
) -> Sequence[int | None]:
    """The positions of branches with these costs, where what follows the join costs `rest`: all
    have the same where a join merges them; where they are read again they take theirs."""
    if account.positions is None:
        return [None] * len(costs)
    if not again:
        return [account.positions - rest] * len(costs)
    shares = share_out(account.positions, costs, rest, None)
    account.positions -= sum(shares)
    return shares
