"""The KV log of a model: one pool of slots for all requests, and the account of who owns which.

A request owns one extent: adjacent slots, given back when it ends. Inside its extent a request only
appends; forks, joins and ends of branches never move or copy keys and values, since who sees what
is a mask (see `nprdsl.runtime.local.trace_log`). Adjacent slots let attention read all that a
request has as one slice, so its cost does not depend on what the others hold. An extent that must
grow moves where it has no free neighbour (see `nprdsl.runtime.local.extents`).
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from nprdsl.runtime.local.attention import AttentionPath

_LARGE = 16  # extents that a pool must hold before much of it is spent on making them equal


@dataclass(frozen=True, slots=True)
class Extent:
    """Slots `start` to `start + length` (exclusive)."""

    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


class SlotPool:
    """The account of `total` slots: free extents in order, owned extents by request."""

    def __init__(self, total: int) -> None:
        if total < 1:
            raise ValueError(f"a pool of {total} slots holds nothing; give max_kv_tokens=1 or more")
        self.total = total
        self._free = [(0, total)]  # (start, length), ascending, never adjacent
        self._owned: dict[int, Extent] = {}

    @property
    def free(self) -> int:
        return sum(length for _, length in self._free)

    @property
    def owners(self) -> frozenset[int]:
        return frozenset(self._owned)

    def allocate(self, owner: int, length: int) -> Extent | None:
        """The lowest free extent of `length` slots or a few more, or None while there is no room.

        Where there is room, lengths are rounded up, by a quarter at most in a pool that is large
        for them, else by an eighth: requests that want nearly as much get equal extents, and attend
        together (see `nprdsl.runtime.local.attention`).
        """
        assert owner not in self._owned and length > 0
        rounded = _rounded(length, 4)
        if _LARGE * rounded > self.total:
            rounded = _rounded(length, 8)
        for wanted in (rounded, length):
            for i, (start, free) in enumerate(self._free):
                if free >= wanted:
                    rest = [(start + wanted, free - wanted)] if free > wanted else []
                    self._free[i : i + 1] = rest
                    extent = self._owned[owner] = Extent(start, wanted)
                    return extent
        return None

    def extend(self, owner: int, length: int) -> Extent | None:
        """The owner's extent made `length` slots long where it is; None without that room."""
        extent = self._owned[owner]
        for i, (start, free) in enumerate(self._free):
            if start == extent.end:
                left = extent.length + free - length
                if left < 0:
                    return None
                self._free[i : i + 1] = [(extent.start + length, left)] if left else []
                self._owned[owner] = Extent(extent.start, length)
                return self._owned[owner]
        return None

    def move(self, owner: int, length: int) -> Extent | None:
        """Another extent for the owner in place of its own, which is free then; None without
        room."""
        old = self._owned.pop(owner)
        new = self.allocate(owner, length)
        if new is None:
            self._owned[owner] = old
        else:
            self._free_again(old)
        return new

    def gather(self, before: int | None) -> list[tuple[int, Extent, Extent]]:
        """Moves extents so that all free slots lie in one piece: behind the owner `before`, or
        behind all. Gives (owner, from, to) for those that moved, to be copied in this order."""
        ascending = sorted(self._owned, key=lambda owner: self._owned[owner].start)
        split = len(ascending) if before is None else ascending.index(before) + 1
        moves, low, high = [], 0, self.total
        for owner in ascending[:split]:
            moves.append((owner, self._owned[owner], Extent(low, self._owned[owner].length)))
            low = moves[-1][2].end
        for owner in reversed(ascending[split:]):
            high -= self._owned[owner].length
            moves.append((owner, self._owned[owner], Extent(high, self._owned[owner].length)))
        self._free = [(low, high - low)] if high > low else []
        self._owned = {owner: new for owner, _, new in moves}
        return [move for move in moves if move[1] != move[2]]

    def release(self, owner: int) -> None:
        """Gives the owner's slots back, joined with free neighbours."""
        self._free_again(self._owned.pop(owner))

    def _free_again(self, extent: Extent) -> None:
        insort(self._free, (extent.start, extent.length))
        merged: list[tuple[int, int]] = []
        for start, length in self._free:
            if merged and sum(merged[-1]) == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((start, length))
        self._free = merged

    def check(self) -> None:
        """The conservation law: free and owned extents tile the pool, each slot exactly once."""
        tiles = [*self._free, *((e.start, e.length) for e in self._owned.values())]
        end = 0
        for start, length in sorted(tiles):
            assert start == end, f"slots {min(start, end)} to {max(start, end)} are lost or shared"
            end = start + length
        assert end == self.total, f"free + owned = {end} slots, but the pool has {self.total}"


def _rounded(length: int, steps: int) -> int:
    """Up to one of `steps` lengths between each power of two and the next."""
    step = max(1, (1 << length.bit_length() - 1) // steps)
    return -(-length // step) * step


KeysAndValues = tuple[torch.Tensor, torch.Tensor]  # of adjacent slots, [1, heads, slots, head_dim]


@dataclass(frozen=True, slots=True, eq=False)
class KvPiece:
    """What adjacent slots held, outside of the log: keys and values of every layer, None of one
    without attention."""

    layers: tuple[KeysAndValues | None, ...]

    @property
    def length(self) -> int:
        return next(entries[0].shape[2] for entries in self.layers if entries is not None)

    def cut(self, at: int) -> tuple[KvPiece, KvPiece]:
        """The first `at` slots and the rest, in memory of their own."""
        return self._part(slice(at)), self._part(slice(at, None))

    def _part(self, at: slice) -> KvPiece:
        def cut(entries: torch.Tensor) -> torch.Tensor:
            return entries[:, :, at].clone()

        pairs = [one and (cut(one[0]), cut(one[1])) for one in self.layers]
        return KvPiece(tuple(pairs))


class LogLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer: `[1, heads, capacity, head_dim]`, written in place.

    Memory begins as zeros: a slot that a mask hides is multiplied by 0, which NaN would survive.
    """

    is_sliding = False

    def __init__(self, log: KvLog) -> None:
        super().__init__()
        self._log = log

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        if key_states.shape[0] != 1:
            raise ValueError(f"the log has one row, the model sent {key_states.shape[0]}")
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = self._zeros(key_states)
        self.values = self._zeros(value_states)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the rows `[1, heads, rows, head_dim]` into the log's current slots; gives what
        attention reads: the whole, or where the model attends itself the slots below `high`.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        if self.keys.shape[2] < self._log.capacity:
            self.keys, self.values = self._grown(self.keys), self._grown(self.values)
        slots = self._log.slots
        if isinstance(slots, slice) or self.device.type == "mps":  # MPS may lack index_copy_
            self.keys[:, :, slots] = key_states
            self.values[:, :, slots] = value_states
        else:
            self.keys.index_copy_(2, slots, key_states)
            self.values.index_copy_(2, slots, value_states)
        if self._log.path is AttentionPath.MODEL:
            return self.keys[:, :, : self._log.high], self.values[:, :, : self._log.high]
        return self.keys, self.values

    def clear(self, extent: Extent) -> None:
        """Zeros a failed request's entries, which may not be finite."""
        if self.keys is not None and self.values is not None:
            self.keys[:, :, extent.start : extent.end] = 0
            self.values[:, :, extent.start : extent.end] = 0

    def copy(self, source: int, target: int, count: int) -> None:
        """Copies the entries of `count` slots; the two may overlap."""
        self.write(target, self.read(source, count))

    def read(self, start: int, count: int) -> KeysAndValues | None:
        """Copies of the keys and values of `count` slots. A layer without attention, or one that a
        configuration counts and the model does not have, has none."""
        if self.keys is None or self.values is None:
            return None
        at = slice(start, start + count)
        return self.keys[:, :, at].clone(), self.values[:, :, at].clone()

    def write(self, start: int, entries: KeysAndValues | None) -> None:
        if entries is None:
            return
        assert self.keys is not None and self.values is not None
        if self.keys.shape[2] < self._log.capacity:
            self.keys, self.values = self._grown(self.keys), self._grown(self.values)
        at = slice(start, start + entries[0].shape[2])
        self.keys[:, :, at], self.values[:, :, at] = entries

    def _zeros(self, like: torch.Tensor) -> torch.Tensor:
        return like.new_zeros(1, like.shape[1], self._log.capacity, like.shape[3])

    def _grown(self, old: torch.Tensor) -> torch.Tensor:
        new = self._zeros(old)
        new[:, :, : old.shape[2]] = old
        return new

    def get_seq_length(self) -> int:
        return self._log.high

    def get_max_length(self) -> int:
        return -1

    def get_max_cache_shape(self) -> int:  # an older name of the same
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._log.high, 0


class KvLog(Cache):  # type: ignore[misc]
    """The layers of a model over one pool. `slots` says where the rows of the coming forward go."""

    def __init__(
        self,
        num_layers: int,
        total: int,
        path: AttentionPath = AttentionPath.INTERFACE,
        *,
        first_capacity: int = 1024,
    ) -> None:
        self.total = total
        self.path = path
        self.capacity = min(first_capacity, total)
        self.high = 0  # one past the highest slot ever written
        self.slots: slice | torch.Tensor = slice(0, 0)
        self._layers = [self._new_layer() for _ in range(num_layers)]
        super().__init__(layers=list(self._layers))

    def _new_layer(self) -> LogLayer:
        return LogLayer(self)

    def write_to(self, slots: slice | torch.Tensor, high: int) -> None:
        """The coming forward writes to `slots`, all below `high`; memory doubles when it must."""
        self._reach(high)
        self.slots = slots

    @property
    def written(self) -> bool:
        """The model has put keys and values into the log."""
        return any(layer.is_initialized for layer in self._layers)

    def clear(self, extent: Extent) -> None:
        for layer in self._layers:
            layer.clear(extent)

    def copy(self, source: int, target: int, count: int) -> None:
        """Copies what `count` slots hold to others, in all layers."""
        self._reach(target + count)
        for layer in self._layers:
            layer.copy(source, target, count)

    def read(self, start: int, count: int) -> KvPiece:
        """Copies of what `count` slots hold."""
        return KvPiece(tuple([layer.read(start, count) for layer in self._layers]))

    def write(self, start: int, piece: KvPiece) -> None:
        """Writes a piece into the slots from `start` on."""
        self._reach(start + piece.length)
        for layer, entries in zip(self._layers, piece.layers, strict=True):
            layer.write(start, entries)

    def _reach(self, high: int) -> None:
        """Slots below `high` will be used; memory doubles when it must."""
        assert high <= self.total
        while self.capacity < high:
            self.capacity = min(2 * self.capacity, self.total)
        self.high = max(self.high, high)
