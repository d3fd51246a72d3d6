"""Where a model makes logits of its hidden states, taken over for the length of one forward.

In go a model and a forward of it; out come the log-probabilities of some tokens, and logits of all
of them never exist. The model's own code runs up to its output head and behind it: only the head is
another meanwhile, so wrappings of the model (FSDP, DDP, autocast) and what it does before its head
stay as they are. What it does with logits *behind* the head, a scale or a cap, is found by giving
it known numbers in their place; a model that does anything else has no such head here, nor has one
whose head is more than a matrix, and logits are to be made then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakKeyDictionary

import torch
from torch.nn import Linear, Module
from transformers import PreTrainedModel

from nprdsl.trainers.objective.head_logprobs import (
    UNBENT,
    LogitMap,
    OutputHead,
    head_logprobs,
)

_MAPS: Final[WeakKeyDictionary[PreTrainedModel, LogitMap | None]] = WeakKeyDictionary()
_REACH: Final = (-2.0, 4.0)  # powers of ten of the known numbers; a cap is met at the upper end
_CLOSE: Final = 1e-3

Forward = Callable[[torch.Tensor], torch.Tensor]


def scored_at_the_head(
    model: PreTrainedModel,
    call: Module,
    arguments: Mapping[str, object],
    queries: torch.Tensor,
    ids: torch.Tensor,
) -> torch.Tensor | None:
    """float32 [N]: log pi of `ids` [N], as predicted by the entries `queries` [N] of the flattened
    batch in a forward of `call`, which is the model or wraps it. None where this model's logits
    have to be made."""
    head = model.get_output_embeddings()
    plain = None if head is None else _weights(head)
    if head is None or plain is None:
        return None
    if model not in _MAPS:
        _MAPS[model] = _map_behind(call, arguments, head, len(plain.weight))
    bent = _MAPS[model]
    if bent is None:
        return None
    scored: list[torch.Tensor] = []

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        weights = _weights(head, bent)  # whole only now, where they are sharded
        assert weights is not None
        flat = hidden.flatten(0, -2)[queries]
        scored.append(head_logprobs(flat, weights, ids))
        return scored[0][None, :, None].clone()  # FSDP warns of views

    with _replaced(head, forward):
        left: torch.Tensor = call(**arguments).logits
    # Of no weight; wrappings that wait for the gradient of the output would not hear of any.
    return scored[0] + 0 * left.sum()


def _map_behind(
    call: Module, arguments: Mapping[str, object], head: Module, width: int
) -> LogitMap | None:
    """What the model does with the output of its head, `width` numbers for each entry; None where
    that is neither scale nor cap. The forward is the one to be scored, as masks reach a model in
    one of several ways."""
    calls, known = 0, torch.logspace(*_REACH, width)
    known[::2] *= -1

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return known.to(hidden.device).expand(1, 1, width).clone()

    with torch.no_grad(), _replaced(head, forward):
        made = call(**arguments).logits.cpu()
    if calls != 1 or made.shape[-1] != width:
        return None
    return fitted(known.double(), made.flatten(0, -2)[-1].double())


def fitted(known: torch.Tensor, made: torch.Tensor) -> LogitMap | None:
    """The map that makes `made` of `known`, float64 [V] each, whose last number is far beyond any
    cap; None where there is none."""
    scale = float((made / known).median())
    if torch.allclose(made, scale * known, rtol=_CLOSE):
        return LogitMap(_settled(scale)) if scale else None
    cap = abs(float(made[-1]))
    inside = (made.abs() > 0.01 * cap) & (made.abs() < 0.7 * cap)
    if not inside.any():
        return None
    scale = float((cap * (made[inside] / cap).atanh() / known[inside]).median())
    if not scale or not torch.allclose(made, cap * (scale * known / cap).tanh(), rtol=_CLOSE):
        return None
    return LogitMap(_settled(scale), cap)


def _settled(scale: float) -> float:
    return 1.0 if abs(scale - 1) < 1e-5 else scale


def _weights(head: Module, bent: LogitMap = UNBENT) -> OutputHead | None:
    """The matrix of a head that is no more than that, with its rows that PEFT trains."""
    if isinstance(head, Linear) and type(head).forward is Linear.forward:
        return OutputHead(head.weight, head.bias, bent)
    if "peft" not in sys.modules:
        return None
    from peft.utils.other import TrainableTokensWrapper

    if not isinstance(head, TrainableTokensWrapper):
        return None
    adapter = head.token_adapter
    own = _weights(adapter.get_base_layer(), bent)
    plain = adapter.disable_adapters or adapter.merged or not adapter.active_adapters
    if own is None or plain:
        return own
    if own.weight.requires_grad or len(adapter.active_adapters) > 1:
        return OutputHead(adapter.get_merged_weights(adapter.active_adapters), None, bent)
    (name,) = adapter.active_adapters
    rows = torch.tensor(adapter.token_indices[name], device=own.weight.device)
    values = adapter.trainable_tokens_delta[name]
    return OutputHead(own.weight, None, bent, rows, values)


@contextmanager
def _replaced(head: Module, forward: Forward) -> Iterator[None]:
    """The head with another forward; the hooks around it stay."""
    before: Any = vars(head).get("forward")
    head.forward = forward
    try:
        yield
    finally:
        if before is None:
            del head.forward
        else:
            head.forward = before
