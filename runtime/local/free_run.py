"""A request without a language: the model goes on after a prompt as it likes, on one branch.

It is scheduled like any other request, so that plain text is sampled in the same forwards, with the
same settings and seeds, as traces are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nprdsl.machine.actions import ROOT, Action, EndAction, FeedAction
from nprdsl.runtime.drawing.mask_application import Packed
from nprdsl.structure.events import EndEvent, EndReason, Event


def any_token(width: int) -> Packed:
    """The mask that allows the tokens 0 to `width` - 1, int32 [ceil(width/32)]."""
    bits = np.zeros(-(-width // 32) * 32, np.uint8)
    bits[:width] = 1
    return np.packbits(bits, bitorder="little").view(np.int32)


class FreeRun:
    """Up to `max_tokens` tokens, or to the end token `eos`, which is the last one then; `eos` None
    never comes. `allowed` is shared by all requests (see `any_token`)."""

    def __init__(self, allowed: Packed, max_tokens: int, eos: int | None) -> None:
        self.ended: EndReason | None = None
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self._allowed = allowed
        self._max_tokens = max_tokens
        self._eos = eos
        self._events: list[Event] = []

    @property
    def live(self) -> tuple[int, ...]:
        return () if self.ended else (ROOT,)

    def start(self) -> Sequence[Action]:
        return ()

    def advance(self, branch: int, token: int, logprob: float | None = None) -> Sequence[Action]:
        assert branch == ROOT and logprob is not None
        self.token_ids.append(token)
        self.logprobs.append(logprob)
        if token == self._eos:
            return self._end(EndReason.COMPLETED)
        if len(self.token_ids) == self._max_tokens:
            return self._end(EndReason.BUDGET)
        return (FeedAction(ROOT, (token,)),)

    def abort(self) -> Sequence[Action]:
        return self._end(EndReason.ABORTED)

    def fail(self) -> Sequence[Action]:
        return self._end(EndReason.FAILED)

    def mask(self, branch: int) -> Packed:
        return self._allowed

    def rule(self, branch: int) -> str:
        return ""

    def path(self, branch: int) -> tuple[int, ...]:
        return ()

    def position_in_branch(self, branch: int) -> int:
        return len(self.token_ids)

    def drain_events(self) -> Sequence[Event]:
        events, self._events = self._events, []
        return events

    def _end(self, reason: EndReason) -> Sequence[Action]:
        if self.ended is not None:
            return ()
        self.ended = reason
        self._events.append(EndEvent(reason))
        return (EndAction(reason),)
