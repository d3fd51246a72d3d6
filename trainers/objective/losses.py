"""The losses of the three stages, over token log-probabilities.

All take flat tensors of the sampled tokens of a batch: forced tokens carry no loss and are left out
before. Each is a sum over the tokens it is given, divided by `tokens`, the number of sampled tokens
of the *whole* batch: so a batch may be cut into micro-batches in any way and order, and gradients
add up to the same. A mean inside each micro-batch would weigh tokens by the company they are in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.autograd.function import once_differentiable

from nprdsl.trainers.config.stages import ClipSection

DEFAULT_CLIP: Final = ClipSection()
_CHUNK: Final = 128  # rows of logits in float32 at a time


@dataclass(frozen=True, slots=True)
class DapoStats:
    """What a DAPO step did: shares of its tokens whose gradient a clip cut off."""

    clipped: float
    dual_clipped: float


def sft(logprobs: torch.Tensor, tokens: int) -> torch.Tensor:
    """-sum log pi / tokens; `logprobs` [N]. Scalar."""
    return -logprobs.sum() / _count(tokens)


def dapo(
    logprobs: torch.Tensor,
    old: torch.Tensor,
    advantages: torch.Tensor,
    tokens: int,
    clip: ClipSection = DEFAULT_CLIP,
) -> tuple[torch.Tensor, DapoStats]:
    """Clipped policy gradient with a token mean over the batch (arXiv:2503.14476, eq. 8), with the
    dual clip (arXiv:1912.09729, eq. 5) for negative advantages; [N] each. Scalar and shares."""
    _same_shape(logprobs, old, advantages)
    ratio = (logprobs - old).exp()
    plain = ratio * advantages
    bounded = ratio.clamp(1 - clip.low, 1 + clip.high) * advantages
    lower = torch.minimum(plain, bounded)
    gained = torch.where(advantages < 0, torch.maximum(lower, clip.dual * advantages), lower)
    with torch.no_grad():
        stats = DapoStats(
            clipped=_share(bounded < plain),
            dual_clipped=_share((advantages < 0) & (lower < clip.dual * advantages)),
        )
    return -gained.sum() / _count(tokens), stats


def papo(logprobs: torch.Tensor, advantages: torch.Tensor, tokens: int) -> torch.Tensor:
    """-(1 / sum |y|) sum pi / sg(pi) A (arXiv:2512.07461, eq. 6 and 7): no clip, so that the rare
    tag tokens keep their gradient; one optimizer step for each batch of rollouts. [N] each. Scalar,
    with the gradient of -(1 / sum |y|) sum A log pi."""
    _same_shape(logprobs, advantages)
    ratio = (logprobs - logprobs.detach()).exp()
    return -(ratio * advantages).sum() / _count(tokens)


def truncated_importance(logprobs: torch.Tensor, old: torch.Tensor, cap: float) -> torch.Tensor:
    """min(pi / pi_old, cap), [N], without a gradient: what weighs tokens that another policy drew,
    such as the same weights in an engine of lower precision (Ionides 2008)."""
    _same_shape(logprobs, old)
    return (logprobs.detach() - old).exp().clamp(max=cap)


def token_logprobs(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """log pi of `ids` [N] under `logits` [N, V], at temperature 1 with nothing masked; float32.

    What is kept for the gradient are the logits as they are; both ways are computed by chunks of
    rows, so that nothing else of the size [N, V] is made but the gradient of the logits.
    """
    logprobs: torch.Tensor = _TokenLogprobs.apply(logits, ids.long())  # type: ignore[no-untyped-call]
    return logprobs


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        norms = torch.cat([part.float().logsumexp(-1) for part in torch.split(logits, _CHUNK)])
        ctx.save_for_backward(logits, ids, norms)
        return logits.gather(-1, ids[:, None]).squeeze(-1).float() - norms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None]:
        """d log pi(id) / d logits is one at the id, less the probabilities."""
        logits, ids, norms = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        whole = (gradient, logits, ids[:, None], norms[:, None], upstream[:, None])
        for made, part, chosen, norm, each in zip(
            *(torch.split(t, _CHUNK) for t in whole), strict=True
        ):
            wide = (part.float() - norm).exp_().mul_(-each)
            made.copy_(wide.scatter_add_(1, chosen, each))
        return gradient, None


def _count(tokens: int) -> int:
    if tokens < 1:
        raise ValueError(f"a batch needs at least one sampled token, not {tokens}")
    return tokens


def _share(chosen: torch.Tensor) -> float:
    return float(chosen.float().mean()) if chosen.numel() else 0.0


def _same_shape(*tensors: torch.Tensor) -> None:
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) != 1:
        raise ValueError(f"log-probabilities and advantages differ in shape: {sorted(shapes)}")
