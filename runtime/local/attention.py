"""Attention over the KV log: each request's rows attend to that request's extent only.

Installed for the time of one forward through transformers' AttentionInterface; outside of it the
model keeps its own implementation, so a trainer can share it. Query heads that share a KV head are
folded into the query axis, so that keys and values are never repeated (2x and more at long prefixes
on a CPU).
"""

from __future__ import annotations

import itertools
from types import TracebackType

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from nprdsl.runtime.local.attention_batches import NOBODY, Lanes

_NUMBERS = itertools.count()
# What the `_attn_implementation` property stores; its setter would cost 36 us a forward.
_NAME = "_attn_implementation_internal"
_REFUSED = {"s_aux": "attention sinks", "position_bias": "learned position biases"}


class LogAttention:
    """One model's attention function, which the model uses inside `with attention:`.

    `seating` is to be set before. The mask it gets is additive and folded: `[1, 1, fold * seats,
    width]`, lane after lane, in a lane `fold` copies of its seats; columns count from the start of
    the lane's extent.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.name = f"nprdsl_log_{next(_NUMBERS)}"
        self.seating = NOBODY
        self.calls = 0
        self._settings = [vars(config) for config in _configs(model)]
        self._before: list[str] = []
        AttentionInterface.register(self.name, self.attend)

    def __enter__(self) -> None:
        self._before = [setting[_NAME] for setting in self._settings]
        self.calls = 0
        for setting in self._settings:
            setting[_NAME] = self.name

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
        **others: object,
    ) -> tuple[torch.Tensor, None]:
        """`query` `[1, heads, rows, dim]`, `key` and `value` `[1, kv_heads, capacity, dim]`.

        Gives `[1, rows, heads, dim]`. Raises NotImplementedError for attention it does not know.
        """
        for name, what in _REFUSED.items():
            if others.get(name) is not None:
                raise NotImplementedError(f"{what} (`{name}`) are not supported")
        self.calls += 1
        rows = self.seating.row_of
        seated = query if rows is None else query.index_select(2, rows)
        parts = [
            _attend(lanes, seated, key, value, attention_mask, scaling, softcap)
            for lanes in self.seating.lanes
        ]
        out = parts[0] if len(parts) == 1 else torch.cat(parts)
        seats = self.seating.seat_of
        return (out if seats is None else out.index_select(0, seats))[None], None


def _attend(
    lanes: Lanes,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float | None,
    softcap: float | None,
) -> torch.Tensor:
    """What the seats of some lanes read, `[seats, heads, dim]`."""
    heads, kv_heads, dim = query.shape[1], key.shape[1], query.shape[3]
    fold, count, rows = heads // kv_heads, lanes.count, lanes.rows
    own = query[0].narrow(1, lanes.seat, lanes.seats).view(kv_heads, fold, count, rows, dim)
    folded = own.permute(2, 0, 1, 3, 4).reshape(count, kv_heads, fold * rows, dim)
    hidden = mask[0, 0].narrow(0, fold * lanes.seat, fold * lanes.seats)
    hidden = hidden.view(count, 1, fold * rows, -1).narrow(3, 0, lanes.width)
    k, v = _entries(lanes, key), _entries(lanes, value)
    if softcap is None:
        out = scaled_dot_product_attention(folded, k, v, attn_mask=hidden, scale=scaling)
    else:
        out = _capped(folded, k, v, hidden, scaling, softcap)
    return out.view(count, heads, rows, dim).transpose(1, 2).reshape(lanes.seats, heads, dim)


def _entries(lanes: Lanes, log: torch.Tensor) -> torch.Tensor:
    """The entries of all lanes, `[count, kv_heads, width, dim]`: a view of the log."""
    if lanes.count == 1:
        return log.narrow(2, lanes.start, lanes.width)
    extents = log[0].narrow(1, lanes.start, lanes.count * lanes.length)
    by_lane = extents.view(log.shape[1], lanes.count, lanes.length, log.shape[3])
    return by_lane.narrow(2, 0, lanes.width).transpose(0, 1)


def _capped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float | None,
    softcap: float,
) -> torch.Tensor:
    """Attention with scores squashed to +-softcap (Gemma 2, arXiv 2408.00118), which SDPA lacks."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.tanh(query @ key.transpose(2, 3) * (scale / softcap)) * softcap + mask
    return scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value


def _configs(model: PreTrainedModel) -> tuple[PreTrainedConfig, ...]:
    """Every configuration object that some part of the model reads its implementation from."""
    parts = [m.config for m in model.modules() if isinstance(m, PreTrainedModel)]
    parts.append(model.config.get_text_config())
    return tuple({id(config): config for config in parts}.values())
