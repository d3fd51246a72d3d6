"""Log-probabilities of tokens straight from hidden states, without the logits of all of them.

In go the hidden states [N, H] that a model gives to its output head, the head's matrix [V, H] and
the ids [N]; out come float32 log-probabilities [N] with their gradient. Logits [N, V] would be the
largest thing in a training step (10 GB in bf16 for 32 k tokens of 152 k entries, and several copies
of them); here a few million are made at a time. A frozen matrix costs no work twice: the gradient
of the hidden states is made in the forward. A trained one has its logits made again in the
backward, unless they are few, by parts of the vocabulary: each part of its gradient is one product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

_LOGITS: Final = 1 << 25  # made at a time; in float32 128 MB, of which two or three live together
LIVING_BYTES: Final = 12 * _LOGITS  # of float32 logits, at most, beside what grows with tokens
_CPU_LOGITS: Final = 1 << 23  # near the size of caches
_KEPT: Final = 1 << 27  # so many are kept from the forward to the backward


@dataclass(frozen=True, slots=True)
class LogitMap:
    """What a model does to the output of its head: `scale` times it and, with `cap`, bent to
    cap * tanh(x / cap)."""

    scale: float = 1.0
    cap: float | None = None

    def __post_init__(self) -> None:
        if not self.scale or (self.cap is not None and self.cap <= 0):
            raise ValueError(f"a scale is not 0 and a cap above 0, not {self.scale} and {self.cap}")

    def bend_(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits, changed in place."""
        if self.scale != 1:
            logits.mul_(self.scale)
        return logits if self.cap is None else logits.div_(self.cap).tanh_().mul_(self.cap)

    def slope_(self, gradient: torch.Tensor, bent: torch.Tensor | None) -> torch.Tensor:
        """The gradient of what was bent, changed in place; `bent` is there where there is a cap."""
        if bent is not None and self.cap is not None:
            gradient.mul_(bent.div_(self.cap).square_().neg_().add_(1))
        return gradient if self.scale == 1 else gradient.mul_(self.scale)


UNBENT: Final = LogitMap()


@dataclass(frozen=True, slots=True, eq=False)
class OutputHead:
    """What makes logits of hidden states: `weight` [V, H], `bias` [V] if there is one, and what is
    done to the product. `rows` [K] are those of a frozen matrix for which `values` [K, H] stand, so
    that these alone are trained."""

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    map: LogitMap = UNBENT
    rows: torch.Tensor | None = None
    values: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if (self.rows is None) != (self.values is None):
            raise ValueError("`rows` and `values` of a head come together")
        if self.rows is not None and self.weight.requires_grad:
            raise ValueError("rows stand for those of a frozen matrix, and this one is trained")


def head_logprobs(hidden: torch.Tensor, head: OutputHead, ids: torch.Tensor) -> torch.Tensor:
    """float32 [N]: log pi of `ids` [N] by the head over `hidden` [N, H], at temperature 1 with
    nothing masked. Products are made in the precision of autocast, or else of `hidden`."""
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    ends = (head.weight, head.bias)
    trained = torch.is_grad_enabled() and any(e is not None and e.requires_grad for e in ends)
    logprobs: torch.Tensor
    if trained:
        logprobs = _Trained.apply(  # type: ignore[no-untyped-call]
            hidden, head.weight, head.bias, ids.long(), head.map, dtype
        )
    else:
        logprobs = _Frozen.apply(  # type: ignore[no-untyped-call]
            hidden, head.values, head, ids.long(), dtype, torch.is_grad_enabled()
        )
    return logprobs


class _Frozen(torch.autograd.Function):
    """Keeps d log pi / d hidden, which is all that a frozen matrix leaves to be done."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        values: torch.Tensor | None,
        head: OutputHead,
        ids: torch.Tensor,
        dtype: torch.dtype,
        differentiable: bool,
    ) -> torch.Tensor:
        wanted = differentiable and any(ctx.needs_input_grad[:2])
        inputs = hidden.to(dtype)
        logprobs = hidden.new_empty(len(ids), dtype=torch.float32)
        slopes = torch.empty_like(inputs) if wanted else None
        of_rows = inputs.new_empty(len(ids), 0 if head.rows is None else len(head.rows))
        with torch.autocast(hidden.device.type, enabled=False):
            matrix, own = head.weight.to(dtype), None if values is None else values.to(dtype)
            for part in _parts(len(ids), len(matrix), hidden.device):
                logits = _logits(inputs[part], matrix, head.bias, head.map)
                if own is not None:
                    bias = None if head.bias is None else head.bias[head.rows]
                    logits[:, head.rows] = _logits(inputs[part], own, bias, head.map)
                logprobs[part], gradient = _scored(logits, ids[part], head.map, wanted)
                if slopes is None or gradient is None:
                    continue
                if own is not None:
                    of_rows[part] = gradient[:, head.rows].to(dtype)
                    gradient[:, head.rows] = 0
                slopes[part] = gradient.to(dtype) @ matrix
                if own is not None:
                    slopes[part] += of_rows[part] @ own
        ctx.save_for_backward(slopes, of_rows, None if values is None else inputs)
        ctx.dtypes = hidden.dtype, None if values is None else values.dtype
        return logprobs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        slopes, of_rows, inputs = ctx.saved_tensors
        to_hidden, to_values = ctx.dtypes
        each = upstream[:, None]
        of_hidden = (slopes * each).to(to_hidden) if ctx.needs_input_grad[0] else None
        of_values = None
        if ctx.needs_input_grad[1]:
            of_values = ((of_rows * each).T @ inputs.float()).to(to_values)
        return of_hidden, of_values, None, None, None, None


class _Trained(torch.autograd.Function):
    """Keeps d log pi / d logits where they are few; else the norms, and makes logits again."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        ids: torch.Tensor,
        bent: LogitMap,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        inputs, matrix = hidden.to(dtype), weight.to(dtype)
        logprobs = hidden.new_empty(len(ids), dtype=torch.float32)
        norms = torch.empty_like(logprobs)
        few = len(ids) * len(weight) <= _KEPT
        kept = inputs.new_empty(len(ids), len(weight)) if few else None
        with torch.autocast(hidden.device.type, enabled=False):
            for part in _parts(len(ids), len(weight), hidden.device):
                logits = _logits(inputs[part], matrix, bias, bent)
                norms[part] = logits.gather(1, ids[part, None]).squeeze(1)
                logprobs[part], gradient = _scored(logits, ids[part], bent, few)
                if kept is not None and gradient is not None:
                    kept[part] = gradient
        norms -= logprobs
        ctx.save_for_backward(hidden, weight, bias, ids, norms, kept)
        ctx.bent, ctx.dtype = bent, dtype
        return logprobs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, ids, norms, kept = ctx.saved_tensors
        inputs, dtype, each = hidden.to(ctx.dtype), ctx.dtype, upstream[:, None]
        with torch.autocast(hidden.device.type, enabled=False):
            if kept is not None:
                of_hidden = (kept @ weight.to(dtype)) * each
                of_weight = (kept.T @ (inputs * each).to(dtype)).to(weight.dtype)
                of_bias = None if bias is None else (kept.T @ upstream.to(dtype)).to(bias.dtype)
                return of_hidden.to(hidden.dtype), of_weight, of_bias, None, None, None
            of_hidden = torch.zeros_like(hidden, dtype=torch.float32)
            of_weight = torch.empty_like(weight)
            of_bias = None if bias is None else torch.empty_like(bias)
            for part in _parts(len(weight), len(ids), hidden.device):
                matrix = weight[part].to(dtype)
                logits = _logits(inputs, matrix, None if bias is None else bias[part], ctx.bent)
                copy = None if ctx.bent.cap is None else logits.clone()
                gradient = logits.sub_(norms[:, None]).exp_().mul_(-each)
                inside = (ids >= part.start) & (ids < part.stop)
                chosen = (ids - part.start).clamp_(0, len(matrix) - 1)
                gradient.scatter_add_(1, chosen[:, None], (upstream * inside)[:, None])
                ctx.bent.slope_(gradient, copy)
                narrow = gradient.to(dtype)
                of_hidden += narrow @ matrix
                of_weight[part] = narrow.T @ inputs
                if of_bias is not None:
                    of_bias[part] = gradient.sum(0)
        return of_hidden.to(hidden.dtype), of_weight, of_bias, None, None, None


def _scored(
    logits: torch.Tensor, ids: torch.Tensor, bent: LogitMap, wanted: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """log pi of `ids` [R] under logits [R, V], which are used up, and its gradient for the output
    of the head if that is wanted: one at the id, less the probabilities."""
    chosen = ids[:, None]
    picked = logits.gather(1, chosen)
    copy = logits.clone() if wanted and bent.cap is not None else None
    largest = logits.amax(1, keepdim=True)
    sums = logits.sub_(largest).exp_().sum(1, keepdim=True)
    logprobs = (picked - largest - sums.log()).squeeze(1)
    if not wanted:
        return logprobs, None
    gradient = logits.mul_(sums.reciprocal_().neg_())
    gradient.scatter_add_(1, chosen, torch.ones_like(picked))
    return logprobs, bent.slope_(gradient, copy)


def _parts(lines: int, width: int, device: torch.device) -> Iterator[slice]:
    """Slices of `lines`, each of which has about as many logits as may live at a time."""
    size = max(1, (_CPU_LOGITS if device.type == "cpu" else _LOGITS) // max(width, 1))
    for begin in range(0, lines, size):
        yield slice(begin, min(begin + size, lines))


def _logits(
    inputs: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor | None, bent: LogitMap
) -> torch.Tensor:
    """float32 [rows of `inputs`, rows of `matrix`]."""
    logits = linear(inputs, matrix).float()  # a new tensor: what follows may write to it
    return bent.bend_(logits if bias is None else logits.add_(bias.float()))
