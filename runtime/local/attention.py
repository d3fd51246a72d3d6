"""Attention over the KV log: the rows of each request attend to that request's extent only.

Installed for the time of one forward through transformers' AttentionInterface; outside of it the
model keeps its own implementation, so a trainer can share it.

Requests whose extents are equally long and evenly spaced attend in one call: their keys are then
one strided view of the log, so a forward of a hundred requests costs a few calls instead of a
hundred, and no key or value is copied. In such a call every extent gets equally many rows, the
missing ones padded and masked. Requests that feed many rows (prompts) attend alone, since they
would pad all others to their size. Query heads that share a KV head are folded into the query axis,
so that keys and values need not be repeated (2x and more at long prefixes on a CPU). How many share
one is read from the tensors of each call, since configurations say it in many ways, and some models
have layers that differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from nprdsl.runtime.errors import UnsupportedModelError

MOST_SHARED_ROWS: Final = 16  # of a request that attends together with others
FARTHEST: Final = 2  # extent lengths between the starts of neighbours in one call

_NUMBERS = itertools.count()
# What the `_attn_implementation` property stores; its setter would cost 36 us a forward.
_NAME = "_attn_implementation_internal"


class AttentionPath(StrEnum):
    """Who computes attention over the log."""

    INTERFACE = "interface"  # `LogAttention`, through transformers' AttentionInterface
    MODEL = "model"  # the model's own code, with a mask over all slots: its cost grows with them


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows `first` to `last` (exclusive) of a forward are of one request, which has used `width`
    slots of the `length` from `start` on."""

    first: int
    last: int
    start: int
    length: int
    width: int

    @property
    def rows(self) -> int:
        return self.last - self.first


@dataclass(slots=True)
class AttentionCall:
    """One call of the attention function: over `count` extents of `length` slots from `start` on,
    of which the first `width` are read. Each extent has `rows` padded rows; those of the call are
    numbered from `first` on."""

    start: int
    length: int
    count: int
    width: int
    rows: int
    first: int

    @property
    def end(self) -> int:
        """One past its last padded row."""
        return self.first + self.count * self.rows


@dataclass(frozen=True, slots=True, eq=False)
class AttentionPlan:
    """The calls of a forward, in every layer the same.

    `members[c]` are the groups of call c. Group i begins at the padded row `first[i]`, and has
    `rows[i]` of them. `row_of` int64 [padded rows] and `padded_of` int64 [rows] lead from padded
    rows to rows and back; both are None where they are the same.
    """

    calls: tuple[AttentionCall, ...] = ()
    members: tuple[tuple[int, ...], ...] = ()
    first: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    row_of: torch.Tensor | None = None
    padded_of: torch.Tensor | None = None

    def widen(self, groups: Sequence[RowGroup]) -> None:
        """For a forward of the same groups, which have only grown wider."""
        for call, members in zip(self.calls, self.members, strict=True):
            call.width = max([groups[i].width for i in members])


def plan_attention(groups: Sequence[RowGroup], device: torch.device) -> AttentionPlan:
    """Which of the groups attend in one call, and where their rows are padded."""
    calls: list[AttentionCall] = []
    first, rows = [0] * len(groups), [0] * len(groups)
    together = tuple(map(tuple, _together(groups)))
    for members in together:
        lowest, highest = groups[members[0]], groups[members[-1]]
        call = AttentionCall(
            start=lowest.start,
            length=lowest.length,
            count=(highest.start - lowest.start) // lowest.length + 1,
            width=max(groups[i].width for i in members),
            rows=max(groups[i].rows for i in members),
            first=calls[-1].end if calls else 0,
        )
        calls.append(call)
        for i in members:
            extent = (groups[i].start - lowest.start) // lowest.length
            first[i], rows[i] = call.first + extent * call.rows, call.rows
    total = calls[-1].end
    padded_of = np.concatenate(
        [np.arange(f, f + g.rows) for f, g in zip(first, groups, strict=True)]
    )
    there = back = None
    if total != len(padded_of) or (padded_of != np.arange(total)).any():
        row_of = np.zeros(total, np.int64)
        row_of[padded_of] = np.arange(len(padded_of))
        there, back = (torch.from_numpy(numbers).to(device) for numbers in (row_of, padded_of))
    return AttentionPlan(tuple(calls), together, tuple(first), tuple(rows), there, back)


def _together(groups: Sequence[RowGroup]) -> Iterator[list[int]]:
    """The groups of each call, ascending by their slots.

    Groups of one call have rows of the same power of two, since all are padded to the most. What
    decides here may not change while the same branches feed: masks grow in place.
    """
    alike: dict[tuple[int, int, int], list[int]] = {}
    for i, group in enumerate(groups):
        if group.rows > MOST_SHARED_ROWS:
            yield [i]
        else:
            kind = (group.length, group.start % group.length, group.rows.bit_length())
            alike.setdefault(kind, []).append(i)
    for members in alike.values():
        members.sort(key=lambda i: groups[i].start)
        near = members[:1]
        for before, after in pairwise(members):
            if groups[after].start - groups[before].start > FARTHEST * groups[after].length:
                yield near
                near = []
            near.append(after)
        yield near


class LogAttention:
    """One model's attention function, which the model uses inside `with attention:`.

    `plan` is to be set before. The mask it gets is additive and folded: `[1, 1, fold * padded rows,
    width]`, extent after extent, in an extent `fold` copies of its rows; columns count from the
    start of the extent. Any `fold` will do; that of the tensors, which `fold` has after the first
    call, saves a copy. `calls` counts how often the model has called it inside the block.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.name = f"nprdsl_log_{next(_NUMBERS)}"
        self.plan = AttentionPlan()
        self.calls = 0
        self.fold = 1  # query heads of a KV head in the last call
        self._settings = [vars(config) for config in _configs(model)]
        self._before: list[str] = []
        AttentionInterface.register(self.name, self.attend)

    def __enter__(self) -> None:
        self._before = [setting[_NAME] for setting in self._settings]
        self.calls = 0
        for setting in self._settings:
            setting[_NAME] = self.name

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for setting, name in zip(self._settings, self._before, strict=True):
            setting[_NAME] = name

    def attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor,
        scaling: float | None = None,
        softcap: float | None = None,
        s_aux: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        **others: object,
    ) -> tuple[torch.Tensor, None]:
        """`query` `[1, heads, rows, dim]`, `key` and `value` `[1, kv_heads, capacity, dim]`; the
        sinks `s_aux` `[heads]` are scores of an entry without a value.

        Gives `[1, rows, heads, dim]`. Raises UnsupportedModelError for biases of positions.
        """
        if position_bias is not None:
            raise UnsupportedModelError("learned position biases are not supported")
        self.calls += 1
        self.fold = query.shape[1] // key.shape[1]
        rows, back = self.plan.row_of, self.plan.padded_of
        padded = query if rows is None else query.index_select(2, rows)
        outputs = [
            _attend(call, padded, key, value, mask, scaling, softcap, s_aux)
            for call, mask in zip(self.plan.calls, self._masks(attention_mask), strict=True)
        ]
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        if back is not None:
            output = output.index_select(0, back)
        return output[None].contiguous(), None

    def _masks(self, mask: torch.Tensor) -> Iterator[torch.Tensor]:
        """Each call's part of the mask, `[count, 1, fold * rows, width]` with the tensors' fold."""
        given = mask.shape[2] // self.plan.calls[-1].end
        for call in self.plan.calls:
            own = mask[0, 0].narrow(0, given * call.first, given * call.count * call.rows)
            own = own.view(call.count, 1, given * call.rows, -1).narrow(3, 0, call.width)
            if given != self.fold:
                own = own[:, :, : call.rows].repeat(1, 1, self.fold, 1)
            yield own


def _attend(
    call: AttentionCall,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    hidden: torch.Tensor,
    scaling: float | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """What the padded rows of one call read, `[padded rows, heads, dim]`."""
    heads, kv_heads, dim = query.shape[1], key.shape[1], query.shape[3]
    fold, count, rows = heads // kv_heads, call.count, call.rows
    total = count * rows
    own = query[0].narrow(1, call.first, total).view(kv_heads, fold, count, rows, dim)
    folded = own.permute(2, 0, 1, 3, 4).reshape(count, kv_heads, fold * rows, dim)
    k, v = _entries(call, key), _entries(call, value)
    if softcap is None and sinks is None:
        out = scaled_dot_product_attention(folded, k, v, attn_mask=hidden, scale=scaling)
    else:
        if sinks is not None:
            sinks = sinks.view(1, kv_heads, fold, 1).expand(count, -1, -1, rows)
            sinks = sinks.reshape(count, kv_heads, fold * rows, 1)
        out = _scored(folded, k, v, hidden, scaling, softcap, sinks)
    return out.view(count, heads, rows, -1).transpose(1, 2).reshape(total, heads, -1)


def _entries(call: AttentionCall, log: torch.Tensor) -> torch.Tensor:
    """The keys or values of a call's extents, `[count, kv_heads, width, dim]`: a view of the
    log."""
    if call.count == 1:
        return log.narrow(2, call.start, call.width)
    extents = log[0].narrow(1, call.start, call.count * call.length)
    by_extent = extents.view(log.shape[1], call.count, call.length, log.shape[3])
    return by_extent.narrow(2, 0, call.width).transpose(0, 1)


def _scored(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention that SDPA lacks: scores squashed to +-softcap (Gemma 2, arXiv 2408.00118), and
    sinks that take their share of every row's softmax (GPT-OSS, arXiv 2508.10925)."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query @ key.transpose(2, 3) * (scale if softcap is None else scale / softcap)
    if softcap is not None:
        scores = torch.tanh(scores) * softcap
    scores = scores + mask
    if sinks is not None:
        scores = torch.cat((scores, sinks.to(scores.dtype)), -1)
    shares = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    return shares[..., : key.shape[2]] @ value


@contextmanager
def implementation(model: PreTrainedModel, name: str) -> Iterator[None]:
    """The model uses the attention function of that name inside the block."""
    settings = [vars(config) for config in _configs(model)]
    before = [setting[_NAME] for setting in settings]
    for setting in settings:
        setting[_NAME] = name
    try:
        yield
    finally:
        for setting, old in zip(settings, before, strict=True):
            setting[_NAME] = old


def _configs(model: PreTrainedModel) -> tuple[PreTrainedConfig, ...]:
    """Every configuration object that some part of the model reads its implementation from."""
    parts = [m.config for m in model.modules() if isinstance(m, PreTrainedModel)]
    parts.append(model.config.get_text_config())
    return tuple({id(config): config for config in parts}.values())
