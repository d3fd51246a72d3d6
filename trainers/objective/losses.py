"""The losses of the three stages, over token log-probabilities.

All take flat tensors of the sampled tokens of a batch: forced tokens carry no loss and are left out
before. Each is a sum over the tokens it is given, divided by `tokens`, the number of sampled tokens
of the *whole* batch: so a batch may be cut into micro-batches in any way and order, and gradients
add up to the same. A mean inside each micro-batch would weigh tokens by the company they are in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from nprdsl.trainers.config.stages import ClipSection

DEFAULT_CLIP: Final = ClipSection()


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


def token_logprobs(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """log pi of `ids` [N] under `logits` [N, V], at temperature 1 with nothing masked; float32."""
    wide = logits.float()
    chosen = wide.gather(-1, ids[:, None].long()).squeeze(-1)
    return chosen - wide.logsumexp(-1)


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
