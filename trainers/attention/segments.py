"""Attention segment by segment: each segment's queries against the keys that it sees.

All entries of a segment see the same earlier entries, and each other causally. So a trace is a
batch of ordinary causal sequences that differ in length: the keys that a segment sees, gathered,
and its own. Any variable-length kernel whose causal mask is aligned at the end takes it: flash
attention where it is installed, else torch's own, one segment after another.
What a segment sees is kept as runs of entries, few for each; keys are gathered for as many segments
at once as `ROOM` allows, so that memory stays O(L) whatever the number of branches.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AttentionInterface

from nprdsl.trainers.batch.packed_rows import Row

Places = NDArray[np.int64]

NAME: Final = "nprdsl_segments"  # the value of `attn_implementation`
ARGUMENT: Final = "segments"  # the model's keyword argument that carries the plan

ROOM: Final = 4  # keys gathered at once, in lengths of the row


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some segments that follow each other: segment s has the queries `query_ends[s]` up to
    `query_ends[s + 1]` of the part and the keys `key_ends[s]` up to `key_ends[s + 1]`, its own
    last. The keys of the part are the entries of its runs, which begin at `begins`."""

    queries: slice  # in the row
    begins: torch.Tensor  # int64 [R]
    lengths: torch.Tensor  # int64 [R]
    query_ends: torch.Tensor  # int32 [S + 1]
    key_ends: torch.Tensor  # int32 [S + 1]
    longest_query: int
    longest_key: int

    def keys(self) -> torch.Tensor:
        """int64 [K]: the entries that are the keys of the part."""
        total = int(self.key_ends[-1])
        before = self.lengths.cumsum(0) - self.lengths
        shifts = torch.repeat_interleave(self.begins - before, self.lengths, output_size=total)
        return shifts + torch.arange(total, device=self.begins.device)


Plan = tuple[Part, ...]
Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Part, float], torch.Tensor]


def plan(row: Row, device: torch.device | str = "cpu") -> Plan:
    """The plan of a row, for all layers of a model; on the model's device."""
    starts, lengths = _segments(row)
    begins, run_lengths, runs = _runs(_visible(row, starts), starts, lengths)
    counts = np.add.reduceat(run_lengths, runs[:-1])
    found = []
    for first, stop in _parts(counts, ROOM * len(row)):
        of = slice(int(runs[first]), int(runs[stop]))
        queries = np.append(starts, len(row))[first : stop + 1]
        found.append(
            Part(
                queries=slice(int(queries[0]), int(queries[-1])),
                begins=torch.from_numpy(begins[of]).to(device),
                lengths=torch.from_numpy(run_lengths[of]).to(device),
                query_ends=_tensor(queries - queries[0], device),
                key_ends=_tensor(np.append(0, np.cumsum(counts[first:stop])), device),
                longest_query=int(lengths[first:stop].max()),
                longest_key=int(counts[first:stop].max()),
            )
        )
    return tuple(found)


def _segments(row: Row) -> tuple[Places, Places]:
    """Begin and length of every run of entries of one segment."""
    new = np.flatnonzero(np.diff(row.segment) != 0) + 1
    starts = np.concatenate([[0], new]).astype(np.int64)
    return starts, np.diff(np.append(starts, len(row)))


def _visible(row: Row, starts: Places) -> NDArray[np.bool_]:
    """bool [S, S]: segment s sees segment k, or is it."""
    mirror, until = row.mirror[starts], row.until[starts]
    earlier = starts[None, :] <= starts[:, None]
    kept = starts[:, None] < until[None, :]
    found: NDArray[np.bool_] = earlier & kept & (mirror[None, :] <= mirror[:, None])
    return found


def _runs(
    sees: NDArray[np.bool_], starts: Places, lengths: Places
) -> tuple[Places, Places, Places]:
    """Neighbours that a segment sees as one run: begins, lengths, and where those of each segment
    begin among them."""
    padded = np.pad(sees, ((0, 0), (1, 1)))
    segment, opened = np.nonzero(padded[:, 1:-1] & ~padded[:, :-2])
    _, closed = np.nonzero(padded[:, 1:-1] & ~padded[:, 2:])
    ends = starts + lengths
    runs = np.searchsorted(segment, np.arange(len(starts) + 1))
    return starts[opened], ends[closed] - starts[opened], runs


def _parts(counts: Places, room: int) -> Iterator[tuple[int, int]]:
    """Segments that follow each other and have no more keys than there is room, one at least."""
    first, held = 0, 0
    for number, count in enumerate(counts.tolist()):
        if number > first and held + count > room:
            yield first, number
            first, held = number, 0
        held += count
    yield first, len(counts)


def _tensor(values: Places, device: torch.device | str) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int32)).to(device)


# -- kernels ---------------------------------------------------------------------------------------


def in_turn(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, part: Part, scale: float
) -> torch.Tensor:
    """torch's kernel for one segment after another; [L, H, D], [K, H', D] -> [L, H, D]."""
    found = torch.empty_like(query)
    queries, keys = part.query_ends.tolist(), part.key_ends.tolist()
    for number in range(len(queries) - 1):
        q = slice(queries[number], queries[number + 1])
        k = slice(keys[number], keys[number + 1])
        found[q] = _attend(query[q], key[k], value[k], scale)
    return found


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    behind = len(key) - len(query)
    causal = None
    if behind:
        causal = torch.ones(len(query), len(key), dtype=torch.bool, device=query.device)
        causal = causal.tril(behind)
    attended: torch.Tensor = torch.nn.functional.scaled_dot_product_attention(
        query.transpose(0, 1)[None],
        key.transpose(0, 1)[None],
        value.transpose(0, 1)[None],
        attn_mask=causal,
        is_causal=not behind,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return attended[0].transpose(0, 1)


def flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, part: Part, scale: float
) -> torch.Tensor:
    """Flash attention of all segments at once."""
    from flash_attn import flash_attn_varlen_func

    attended: torch.Tensor = flash_attn_varlen_func(
        query,
        key,
        value,
        part.query_ends,
        part.key_ends,
        part.longest_query,
        part.longest_key,
        softmax_scale=scale,
        causal=True,
    )
    return attended


def fastest() -> Kernel:
    """The best kernel that is installed."""
    return flash if importlib.util.find_spec("flash_attn") is not None else in_turn


# -- a model's attention ---------------------------------------------------------------------------


def register(kernel: Kernel | None = None) -> str:
    """Makes the attention known to Hugging Face; gives its name, for `attn_implementation`."""
    run = kernel or fastest()

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
        given = arguments.get(ARGUMENT)
        if given is None:
            raise ValueError(
                f"attn_implementation {NAME!r} needs the plan of the row: model(…, {ARGUMENT}=plan)"
            )
        if len(query) != 1:
            raise ValueError(f"the batch has {len(query)} rows; pack them into one")
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        queries, keys, values = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        found = []
        for part in given:
            seen = part.keys()
            found.append(run(queries[part.queries], keys[seen], values[seen], part, scale))
        return torch.cat(found)[None], None

    AttentionInterface.register(NAME, attention)
    return NAME
