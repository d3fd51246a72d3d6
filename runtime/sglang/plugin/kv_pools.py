"""KV slots of branches in SGLang's memory pools: forks share slots, joins concatenate them.

SGLang keeps a KV slot per token, and for each request in a batch a row that lists its slots in
order. A branch that has something to feed holds a row; one that waits holds only the list of its
slots (`BranchKV`), so no branch that waits keeps a row from one that could run. A fork gives each
child the list of what its parent sees; a join appends the children's own slots to the parent's. KV
is neither copied nor computed again. Needs KV pages of one token.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import torch
from sglang.srt.mem_cache.common import release_kv_cache

from nprdsl.runtime.sglang.plugin.req_types import BranchReq, TraceReq

_NO_SLOTS = torch.empty(0, dtype=torch.int64)


class BranchKV:
    """The KV slots of one branch.

    `prefix` int64 [P]: slots that it sees but that belong to its parents or to the prefix cache.
    `own` int64 [N]: its own slots, while it holds no row. `ids`: the tokens in both, in order.
    `req`: the request whose row it holds, None while it waits.
    """

    __slots__ = ("ids", "own", "prefix", "req")

    def __init__(self, prefix: torch.Tensor, ids: array[int]) -> None:
        self.prefix = prefix
        self.own = _NO_SLOTS.to(prefix.device)
        self.ids = ids
        self.req: BranchReq | None = None

    @property
    def owned(self) -> int:
        """The number of its own slots."""
        if self.req is not None:
            return int(self.req.kv.kv_committed_len) - len(self.prefix)
        return len(self.own)


class KVPools:
    """SGLang's memory for KV: rows, slots, and the radix tree of cached prefixes."""

    def __init__(self, rows: Any, allocator: Any, tree: Any) -> None:
        self._rows = rows
        self._allocator = allocator
        self._tree = tree

    @property
    def free_rows(self) -> int:
        return int(self._rows.available_size())

    @property
    def free_slots(self) -> int:
        """Slots that are free, or hold cached prefixes that no request uses."""
        return int(self._allocator.available_size()) + int(self._tree.evictable_size())

    @property
    def row_length(self) -> int:
        """The most tokens that a row can hold."""
        return int(self._rows.req_to_token.shape[1])

    def adopt(self, trace: TraceReq) -> tuple[BranchKV, Any]:
        """Makes the row of a request whose prompt is computed the row of its root branch; also
        gives the lock that keeps the prefix that it shares with the tree."""
        kv, lock = trace.detach_kv(), trace.lock
        trace.lock = None
        row = self._rows.req_to_token[kv.req_pool_idx]
        ids = (trace.origin_input_ids + trace.output_ids)[: kv.kv_committed_len]
        branch = BranchKV(row[: kv.cache_protected_len].to(torch.int64).clone(), ids)
        branch.req = BranchReq(trace, 0, ids)
        branch.req.kv = kv
        return branch, lock

    def take_row(self, trace: TraceReq, number: int, branch: BranchKV) -> BranchReq | None:
        """Puts the branch of that number into a row; None if no row is free."""
        taken = self._rows.alloc_rows(1)
        if taken is None:
            return None
        slots = torch.cat([branch.prefix, branch.own])
        count = len(slots)
        row = self._rows.req_to_token[taken[0]]
        row[:count] = slots.to(row.dtype)
        branch.req = req = BranchReq(trace, number, branch.ids)
        req.kv.req_pool_idx = taken[0]
        req.kv.kv_allocated_len = req.kv.kv_committed_len = count
        req.kv.cache_protected_len = len(branch.prefix)
        return req

    def give_row_back(self, branch: BranchKV) -> None:
        """Frees the row of a branch, if it holds one; the slots stay its own."""
        req = branch.req
        if req is None:
            return
        row = self._rows.req_to_token[req.kv.req_pool_idx]
        own = row[len(branch.prefix) : req.kv.kv_committed_len]
        branch.own = own.to(torch.int64).clone()
        self._rows.free(req)
        req.kv.mark_kv_released()
        branch.req = None

    def fork(self, parent: BranchKV, count: int) -> list[BranchKV]:
        """`count` branches that see what their parent sees, and own nothing yet."""
        assert parent.req is None, "a branch that forks gives its row back first"
        prefix = torch.cat([parent.prefix, parent.own])
        return [BranchKV(prefix, array("q", parent.ids)) for _ in range(count)]

    def merge(self, parent: BranchKV, children: Sequence[BranchKV]) -> None:
        """The parent sees and owns its children's own slots from now on, in their order."""
        for child in children:
            self.give_row_back(child)
            parent.ids.extend(child.ids[len(child.prefix) :])
        parent.own = torch.cat([parent.own, *(child.own for child in children)])

    def release(self, branch: BranchKV) -> None:
        """Frees the row of a branch and its own slots."""
        self.give_row_back(branch)
        if len(branch.own):
            self._allocator.free(branch.own)
            branch.own = branch.own[:0]

    def discard(self, trace: TraceReq) -> None:
        """Frees what a request holds whose prompt SGLang was computing."""
        release_kv_cache(trace, self._tree, checkpoint=False)

    def unlock(self, trace: TraceReq, lock: Any) -> None:
        """Lets the tree drop the prefix that the trace shared with it."""
        self._tree.unlock(lock)
        self._tree.on_release(trace, checkpointed=False)
