"""The extents of the requests that run: taken, grown and given back, with what they hold.

`SlotPool` says where an extent may lie; here keys and values follow it when it moves. Slots that
are free always suffice, however they are scattered: where no free piece is long enough, the extents
are moved together.
"""

from __future__ import annotations

from typing import Any

from nprdsl.runtime.local.kv_log import Extent, KvLog, SlotPool
from nprdsl.runtime.local.requests import ScheduledRequest


class Extents:
    """Those of one log, by request."""

    def __init__(self, log: KvLog) -> None:
        self.pool = SlotPool(log.total)
        self._log = log
        self._requests: dict[int, ScheduledRequest[Any]] = {}

    @property
    def held(self) -> dict[int, int]:
        """Slots of each request, by number."""
        return {number: request.extent.length for number, request in self._requests.items()}

    def take(self, request: ScheduledRequest[Any], slots: int) -> bool:
        """An extent of `slots` or a few more, where so many are free."""
        if self.pool.free < slots:
            return False
        extent = self.pool.allocate(request.number, slots)
        if extent is None:
            self._gather(None)
            extent = self.pool.allocate(request.number, slots)
            assert extent is not None, "all that is free lies in one piece"
        self._requests[request.number] = request
        request.extent = extent
        return True

    def grow(self, request: ScheduledRequest[Any], slots: int) -> None:
        """Makes the extent `slots` long; as many as that are free or its own."""
        number, pool = request.number, self.pool
        extent = pool.extend(number, slots)
        if extent is None and (moved := pool.move(number, slots)) is not None:
            self._move(request, moved)
            return
        if extent is None:
            self._gather(number)
            extent = pool.extend(number, slots)
            assert extent is not None, "all that is free lies behind it"
        request.extent = extent

    def release(self, request: ScheduledRequest[Any]) -> None:
        del self._requests[request.number]
        self.pool.release(request.number)

    def check(self) -> None:
        """Conservation: each slot is free, or owned by one request that stays inside."""
        self.pool.check()
        assert self.pool.owners == self._requests.keys()
        for request in self._requests.values():
            ends = [run.column + len(run.tokens) for run in request.log.fed]
            assert max(ends, default=0) <= request.extent.length

    def _gather(self, before: int | None) -> None:
        for number, _, new in self.pool.gather(before):
            self._move(self._requests[number], new)

    def _move(self, request: ScheduledRequest[Any], new: Extent) -> None:
        count = min(request.log.used, request.extent.length) if request.log.fed else 0
        if count:
            self._log.copy(request.extent.start, new.start, count)
        request.extent = new
