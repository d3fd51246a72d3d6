"""Whose turn it is, of traces and plain requests that both wait for memory.

Each kind has a clock that runs while requests of it are let in: by the slots that a request may
take, divided by the weight of its kind. The kind whose clock is behind is next, so that memory is
shared by weight however many requests of the other kind wait, and neither starves. A kind of which
nothing waits saves up nothing: its clock is set to the present when it comes back. This is
start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996) over two flows.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class RequestKind(StrEnum):
    TRACE = "trace"
    PLAIN = "plain"


class Turns:
    """`trace_share`: the weight of traces, from 0 to 1; None: each kind has the weight of its
    requests that wait, so that all requests count alike."""

    def __init__(self, trace_share: float | None = None) -> None:
        self._share = trace_share
        self._clocks = dict.fromkeys(RequestKind, 0.0)
        self._present = 0.0  # where the clock stood of the kind that was let in last
        self._waiting = dict.fromkeys(RequestKind, 0)

    def wait(self, waiting: Mapping[RequestKind, int]) -> None:
        """Tells how many requests of each kind wait now."""
        for kind, count in waiting.items():
            if count and not self._waiting[kind]:
                self._clocks[kind] = max(self._clocks[kind], self._present)
            self._waiting[kind] = count

    @property
    def due(self) -> RequestKind:
        """The kind that is next; traces where nothing waits."""
        waiting = [kind for kind, count in self._waiting.items() if count]
        weighty = [kind for kind in waiting if self._weight(kind)]
        kinds = weighty or waiting or [RequestKind.TRACE]
        return min(kinds, key=lambda kind: self._clocks[kind])

    def let_in(self, kind: RequestKind, slots: int) -> None:
        """A request of that kind has been let in, which may take so many slots."""
        if self._weight(kind):
            self._present = max(self._present, self._clocks[kind])
        self.takes(kind, slots)
        self._waiting[kind] = max(0, self._waiting[kind] - 1)

    def takes(self, kind: RequestKind, slots: int) -> None:
        """Requests of that kind that were let in may take so many slots more, or fewer."""
        weight = self._weight(kind)
        if weight:
            self._clocks[kind] += slots / weight

    def _weight(self, kind: RequestKind) -> float:
        if self._share is not None:
            return self._share if kind is RequestKind.TRACE else 1.0 - self._share
        total = sum(self._waiting.values())
        return max(self._waiting[kind], 1) / max(total, 1)
