"""KV slots of branches on SGLang's pools: which slots a branch sees, which are its own.

A branch that runs holds a row of the pool, whose entries are the slots that it sees in order; one
that waits holds no row, only the lists. A fork shares the parent's slots, a join appends those of
the children, nothing is copied or computed again. Rows are held only by branches that have
something to feed, so no branch waits for a row while it keeps another from running.
Needs pages of one token.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import torch
from sglang.srt.mem_cache.common import release_kv_cache

from nprdsl.runtime.sglang.plugin.rows import BranchReq, TraceReq

_NO_SLOTS = torch.empty(0, dtype=torch.int64)


class Holding:
    """What one branch has in the KV cache.

    `prefix` int64 `[kept]` are slots that belong to others, `own` int64 `[n]` its own as far as it
    does not run; `ids` are the tokens in both, in order. `req` is its row while it runs.
    """

    __slots__ = ("ids", "own", "prefix", "req")

    def __init__(self, prefix: torch.Tensor, ids: array[int]) -> None:
        self.prefix = prefix
        self.own = _NO_SLOTS.to(prefix.device)
        self.ids = ids
        self.req: BranchReq | None = None

    @property
    def owned(self) -> int:
        """How many slots are its own."""
        if self.req is not None:
            return int(self.req.kv.kv_committed_len) - len(self.prefix)
        return len(self.own)


class SlotPools:
    """SGLang's three stores of KV: rows, slots, and the tree of prefixes."""

    def __init__(self, rows: Any, allocator: Any, tree: Any) -> None:
        self._rows = rows
        self._allocator = allocator
        self._tree = tree

    @property
    def free_rows(self) -> int:
        return int(self._rows.available_size())

    @property
    def free_slots(self) -> int:
        """Slots that are free, or would be once cached prefixes that nobody uses are dropped."""
        return int(self._allocator.available_size()) + int(self._tree.evictable_size())

    @property
    def width(self) -> int:
        """The most tokens that a row can hold."""
        return int(self._rows.req_to_token.shape[1])

    def adopt(self, trace: TraceReq) -> tuple[Holding, Any]:
        """The trunk, from a client's request whose prompt is computed; and the lock that keeps the
        prefix that it shares with the tree."""
        kv, lock = trace.detach_kv(), trace.lock
        trace.lock = None
        row = self._rows.req_to_token[kv.req_pool_idx]
        ids = (trace.origin_input_ids + trace.output_ids)[: kv.kv_committed_len]
        holding = Holding(row[: kv.cache_protected_len].to(torch.int64).clone(), ids)
        req = BranchReq(trace, 0, ids)
        req.kv = kv
        holding.req = req
        return holding, lock

    def activate(self, trace: TraceReq, name: int, holding: Holding) -> bool:
        """Gives the branch a row; False if none is free."""
        taken = self._rows.alloc_rows(1)
        if taken is None:
            return False
        slots = torch.cat([holding.prefix, holding.own])
        count = len(slots)
        row = self._rows.req_to_token[taken[0]]
        row[:count] = slots.to(row.dtype)
        req = BranchReq(trace, name, holding.ids)
        req.kv.req_pool_idx = taken[0]
        req.kv.kv_allocated_len = req.kv.kv_committed_len = count
        req.kv.cache_protected_len = len(holding.prefix)
        holding.req = req
        return True

    def park(self, holding: Holding) -> None:
        """Gives the row of a branch back; its slots stay its own."""
        req = holding.req
        if req is None:
            return
        row = self._rows.req_to_token[req.kv.req_pool_idx]
        own = row[len(holding.prefix) : req.kv.kv_committed_len]
        holding.own = own.to(torch.int64).clone()
        self._rows.free(req)
        req.kv.mark_kv_released()
        holding.req = None

    def start(self, parent: Holding, count: int) -> list[Holding]:
        """Holdings of `count` branches that see what their parent sees."""
        assert parent.req is None, "a branch that forks gives its row back first"
        prefix = torch.cat([parent.prefix, parent.own])
        return [Holding(prefix, array("q", parent.ids)) for _ in range(count)]

    def merge(self, parent: Holding, children: Sequence[Holding]) -> None:
        """The parent sees, and owns, what its children own."""
        for child in children:
            self.park(child)
            parent.ids.extend(child.ids[len(child.prefix) :])
        parent.own = torch.cat([parent.own, *(child.own for child in children)])

    def release(self, holding: Holding) -> None:
        """Frees the slots that are the branch's own."""
        self.park(holding)
        if len(holding.own):
            self._allocator.free(holding.own)
            holding.own = holding.own[:0]

    def discard(self, trace: TraceReq) -> None:
        """Frees what a client's request holds whose prompt is not wanted any more."""
        release_kv_cache(trace, self._tree, checkpoint=False)

    def unlock(self, trace: TraceReq, lock: Any) -> None:
        """The tree may drop the shared prefix again."""
        self._tree.unlock(lock)
        self._tree.on_release(trace, checkpointed=False)
