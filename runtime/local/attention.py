"""Attention over the KV log: each request's rows attend to that request's extent only.

Installed for the time of one forward through transformers' AttentionInterface; outside of it the
model keeps its own implementation, so a trainer can share it. Query heads that share a KV head are
folded into the query axis, so that keys and values are never repeated (2x and more at long prefixes
on a CPU).
Non-goals: which row sees which slot (see `nprdsl.runtime.local.masks`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from types import TracebackType

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

_NUMBERS = itertools.count()
# What the `_attn_implementation` property stores; its setter would cost 36 us a forward.
_NAME = "_attn_implementation_internal"
_REFUSED = {"s_aux": "attention sinks", "position_bias": "learned position biases"}


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows `first` to `last` of a forward are of one request, which uses `width` slots."""

    first: int
    last: int
    start: int
    width: int


class LogAttention:
    """One model's attention function, which the model uses inside `with attention:`.

    `groups` is to be set before. The mask it gets is additive and folded: `[1, 1, fold * rows,
    width]`, group after group, in a group `fold` copies of its rows; columns count from the start
    of the group's extent.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.name = f"nprdsl_log_{next(_NUMBERS)}"
        self.groups: list[RowGroup] = []
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
        heads, kv_heads = query.shape[1], key.shape[1]
        fold = heads // kv_heads
        parts = []
        for g in self.groups:
            rows = g.last - g.first
            folded = query.narrow(2, g.first, rows).reshape(1, kv_heads, fold * rows, -1)
            mask = attention_mask.narrow(2, fold * g.first, fold * rows).narrow(3, 0, g.width)
            k, v = key.narrow(2, g.start, g.width), value.narrow(2, g.start, g.width)
            if softcap is None:
                out = scaled_dot_product_attention(folded, k, v, attn_mask=mask, scale=scaling)
            else:
                out = _capped(folded, k, v, mask, scaling, softcap)
            parts.append(out.view(1, heads, rows, -1).transpose(1, 2))
        return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)).contiguous(), None


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
