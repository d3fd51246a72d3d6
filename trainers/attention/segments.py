"""Attention segment by segment: each segment's queries against the keys that it sees.

All entries of a segment see the same earlier entries, and each other causally. So a training row is
a batch of ordinary causal sequences that differ in length: the keys that a segment sees, and its
own. A plan, computed once for a row, says which keys those are; in every layer of a model they are
gathered for some segments at a time, and a variable-length kernel whose causal mask is aligned at
the end does the rest: flash attention where it is installed, else PyTorch's own, one segment after
another. Memory stays O(L), whatever the number of branches.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AttentionInterface

from nprdsl.trainers.batch.training_rows import TrainingRow

NAME: Final = "nprdsl_segments"  # the value of `attn_implementation`
ARGUMENT: Final = "segments"  # the model's keyword argument that carries the plan
ROOM: Final = 4  # keys gathered at once, in lengths of the row

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class SegmentGroup:
    """Neighbouring segments whose keys are gathered together, in one call of the kernel.

    Segment s has the queries `query_ends[s]` up to `query_ends[s + 1]` of the group and the keys
    `key_ends[s]` up to `key_ends[s + 1]`, its own last. What a segment sees is kept as runs of
    neighbouring entries, few for each: run r has `lengths[r]` entries from `begins[r]` on.
    """

    queries: slice  # in the row
    begins: torch.Tensor  # int64 [R]
    lengths: torch.Tensor  # int64 [R]
    query_ends: torch.Tensor  # int32 [S + 1]
    key_ends: torch.Tensor  # int32 [S + 1]
    longest_query: int
    longest_key: int

    def keys(self) -> torch.Tensor:
        """int64 [K]: the entries that are the keys of the group."""
        total = int(self.key_ends[-1])
        before = self.lengths.cumsum(0) - self.lengths
        shifts = torch.repeat_interleave(self.begins - before, self.lengths, output_size=total)
        return shifts + torch.arange(total, device=self.begins.device)

    def to(self, device: torch.device | str, **options: object) -> SegmentGroup:
        """The group on another device, as Accelerate moves what a collator gives."""
        names = ("begins", "lengths", "query_ends", "key_ends")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


Plan = tuple[SegmentGroup, ...]
Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, SegmentGroup, float], torch.Tensor]


def plan(row: TrainingRow, device: torch.device | str = "cpu") -> Plan:
    """The plan of a row, for all layers of a model; on the model's device."""
    starts = np.append(0, np.flatnonzero(np.diff(row.segment)) + 1)
    bounds = np.append(starts, len(row))
    begins, lengths, runs = _runs(row.visible(starts), bounds)
    counts = np.add.reduceat(lengths, runs[:-1])
    groups = []
    for first, stop in _grouped(counts, ROOM * len(row)):
        of = slice(int(runs[first]), int(runs[stop]))
        queries = bounds[first : stop + 1]
        groups.append(
            SegmentGroup(
                queries=slice(int(queries[0]), int(queries[-1])),
                begins=torch.from_numpy(begins[of]).to(device),
                lengths=torch.from_numpy(lengths[of]).to(device),
                query_ends=_tensor(queries - queries[0], device),
                key_ends=_tensor(np.append(0, np.cumsum(counts[first:stop])), device),
                longest_query=int(np.diff(queries).max()),
                longest_key=int(counts[first:stop].max()),
            )
        )
    return tuple(groups)


def _runs(sees: NDArray[np.bool_], bounds: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    """Neighbouring segments that a segment sees, as one run of entries: begins and lengths of all
    runs, and where those of each segment begin among them.

    `sees` bool [S, S]: segment s sees segment k, or is it. `bounds` [S + 1]: where segments begin.
    """
    padded = np.pad(sees, ((0, 0), (1, 1)))
    segment, opened = np.nonzero(padded[:, 1:-1] & ~padded[:, :-2])
    _, closed = np.nonzero(padded[:, 1:-1] & ~padded[:, 2:])
    runs = np.searchsorted(segment, np.arange(len(bounds)))
    return bounds[opened], bounds[closed + 1] - bounds[opened], runs


def _grouped(counts: Int64s, room: int) -> Iterator[tuple[int, int]]:
    """Neighbouring segments that have no more keys together than `room`, one at least."""
    first, held = 0, 0
    for number, count in enumerate(counts.tolist()):
        if number > first and held + count > room:
            yield first, number
            first, held = number, 0
        held += count
    yield first, len(counts)


def _tensor(values: Int64s, device: torch.device | str) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int32)).to(device)


# -- kernels ---------------------------------------------------------------------------------------


def in_turn(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, group: SegmentGroup, scale: float
) -> torch.Tensor:
    """torch's kernel for one segment after another; [L, H, D], [K, H', D] -> [L, H, D]."""
    attended = torch.empty_like(query)
    queries, keys = group.query_ends.tolist(), group.key_ends.tolist()
    for number in range(len(queries) - 1):
        q = slice(queries[number], queries[number + 1])
        k = slice(keys[number], keys[number + 1])
        attended[q] = _attend(query[q], key[k], value[k], scale)
    return attended


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    behind = len(key) - len(query)
    causal = None
    if behind:
        causal = torch.ones(len(query), len(key), dtype=torch.bool, device=query.device)
        causal = causal.tril(behind)
    q, k, v = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
    grouped = query.shape[1] != key.shape[1]
    attended: torch.Tensor = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=causal, is_causal=not behind, scale=scale, enable_gqa=grouped
    )
    return attended[0].transpose(0, 1)


def flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, group: SegmentGroup, scale: float
) -> torch.Tensor:
    """Flash attention of all segments at once."""
    from flash_attn import flash_attn_varlen_func

    attended: torch.Tensor = flash_attn_varlen_func(
        query,
        key,
        value,
        group.query_ends,
        group.key_ends,
        group.longest_query,
        group.longest_key,
        softmax_scale=scale,
        causal=True,
    )
    return attended


# -- a model's attention ---------------------------------------------------------------------------


def register(kernel: Kernel | None = None) -> str:
    """Makes this attention known to Hugging Face models; gives its name, for
    `attn_implementation`. The forward of such a model needs the argument `segments`, the plan. By
    default the kernel is the fastest that is installed."""
    installed = flash if importlib.util.find_spec("flash_attn") is not None else in_turn
    run = kernel or installed

    def attention(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: object,
        scaling: float | None = None,
        **arguments: Any,
    ) -> tuple[torch.Tensor, None]:
        """[1, H, L, D] -> [1, L, H, D]."""
        groups = arguments.get(ARGUMENT)
        if groups is None:
            raise ValueError(
                f"attn_implementation {NAME!r} needs the plan of the row: model(…, {ARGUMENT}=plan)"
            )
        if len(query) != 1:
            raise ValueError(f"the batch has {len(query)} rows; pack them into one")
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        queries, keys, values = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        attended = []
        for group in groups:
            seen = group.keys()
            attended.append(run(queries[group.queries], keys[seen], values[seen], group, scale))
        return torch.cat(attended)[None], None

    AttentionInterface.register(NAME, attention)
    return NAME
