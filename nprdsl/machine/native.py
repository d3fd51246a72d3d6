"""A machine that constrains nothing: forks and joins follow the tags that the model itself writes.

It shows what a model has learnt of its schema. The masks allow every token; only the headers of
branches and what begins behind a join are supplied, as an engine for models trained on one format
does (arXiv:2512.07461, section 2.5). The first token that the schema forbids ends the trace, and so
does a budget that is spent before the model has ended. Between elements the model may write any
white space, as everywhere where traces are checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from nprdsl.machine.actions import ALL, ROOT, Action, JoinPolicy
from nprdsl.machine.branch_state import BranchState
from nprdsl.machine.budget import DEFAULT_LIMITS, LimitError, Limits
from nprdsl.machine.machine import Machine
from nprdsl.machine.transcript import Alternatives, WrittenToken
from nprdsl.masks.automaton import GlueMode
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.masks.matcher import Matcher
from nprdsl.structure.events import EndReason
from nprdsl.tokens.bitmask import Mask, pack


class NativeMachine(Machine):
    """One generation of a model that nothing constrains.

    `ended` is COMPLETED where the model has brought a legal trace to its end, ILLEGAL behind the
    first token that may not stand where it does (the transcript ends with it), BUDGET where the
    trace or a branch has spent its budget before. Raises LimitError, also for what takes masks:
    `rule_tokens`, `text_tokens`, and joins that do not wait for all.
    """

    constrained: ClassVar[bool] = False

    def __init__(
        self,
        bound: BoundSchema,
        prompt: Sequence[int] = (),
        limits: Limits = DEFAULT_LIMITS,
        join: JoinPolicy = ALL,
    ) -> None:
        kept = {
            "rule_tokens": bool(limits.rule_tokens),
            "text_tokens": limits.text_tokens is not None,
            "a join that does not wait for all": join != ALL,
        }
        for what in (name for name, given in kept.items() if given):
            raise LimitError(f"nothing is masked, so {what} cannot be kept: leave it out")
        super().__init__(bound, prompt, limits)
        size = bound.vocabulary.size
        self._every = pack(np.ones(size, np.bool_), (size + 31) // 32)
        self._every.setflags(write=False)

    def mask(self, branch: int) -> Mask:
        """int32 [ceil(V/32)]: every token."""
        return self._every

    def advance(
        self,
        branch: int,
        token: int,
        logprob: float | None = None,
        alternatives: Alternatives = (),
    ) -> list[Action]:
        """Take the token that a live branch sampled, whatever it is."""
        state = self._branches[branch]
        if not state.matcher.accepts(token):
            self.transcript.write(branch, WrittenToken(token, True, logprob, alternatives))
            self.events.drew(branch, state.matcher.structure, token, logprob)
            self._end(EndReason.ILLEGAL)
            return self._drain()
        actions = super().advance(branch, token, logprob, alternatives)
        if branch in self._live and not state.account.free:
            self._end(EndReason.BUDGET)
        return actions + self._drain()

    def _forced(self, state: BranchState, pending: tuple[int, ...]) -> tuple[int, ...]:
        """Headers of branches, and what begins behind a join; from there on glue is any white
        space. What is supplied has it as it is emitted, and costs are those of that."""
        if pending:
            return ()
        begins = state.number != ROOT or state.forks > 0
        supplied = super()._forced(state, pending) if begins else ()
        free = self.bound.automaton(GlueMode.ANY)
        state.matcher = Matcher(free, free.enter(state.matcher.structure))
        return supplied

    def _chooses(self, state: BranchState) -> bool:
        return state.matcher.structure.fork is None and not state.matcher.finished

    def _spent(self, state: BranchState) -> bool:
        return not state.account.free

    def _run_on(self, state: BranchState, pending: tuple[int, ...]) -> None:
        if self.ended is None:  # a sibling may have ended the trace
            super()._run_on(state, pending)

    def _wait(self, state: BranchState) -> None:
        if state.account.free:
            super()._wait(state)
        else:
            self._end(EndReason.BUDGET)

    def _fork(self, parent: BranchState) -> None:
        if parent.account.free >= self._matcher(parent.matcher.structure).cost:
            super()._fork(parent)
        else:  # the branches could not all come to an end
            self._end(EndReason.BUDGET)
