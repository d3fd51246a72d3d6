"""Who may use the KV pool: a request for a trace starts only when all that it can ever feed is kept
for it.

So a fork never waits for memory, and nothing can deadlock: what is reserved is hidden from SGLang's
admission of plain requests, and plain requests that have grown into it are put back (SGLang's own
retraction) before a branch would miss a slot. Branches are never put back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nprdsl.runtime.sglang.plugin.kv_slots import SlotPools
from nprdsl.runtime.sglang.plugin.rows import BranchReq
from nprdsl.runtime.sglang.plugin.trace_request import Conductor, Stage


class Reserve:
    """The account of what is kept for requests that were let in."""

    def __init__(self, pools: SlotPools) -> None:
        self._pools = pools
        self.admitted: list[Conductor] = []

    @property
    def outstanding(self) -> int:
        """Slots that are promised and not taken yet."""
        return sum(max(0, c.slots - c.owned) for c in self.admitted)

    @property
    def hidden(self) -> int:
        """What SGLang's admission may not count on. A prompt that it admits itself it may."""
        queued = sum(c.forest.prompt for c in self.admitted if c.stage is Stage.PROMPT)
        return max(0, self.outstanding - queued)

    def fits(self, conductor: Conductor, besides: int) -> bool:
        """Whether the request can start now, with `besides` slots needed by plain prompts."""
        free = self._pools.free_slots - self.outstanding - besides
        return free >= conductor.slots

    def may_decode(self, wanted: int, reqs: Iterable[Any]) -> bool:
        """Whether a decode step of `wanted` slots leaves what is promised."""
        if not self.admitted:
            return True
        branches = sum(isinstance(req, BranchReq) for req in reqs)
        return self._pools.free_slots >= wanted + self.outstanding - branches
