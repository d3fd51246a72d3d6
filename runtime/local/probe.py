"""Tests, before anything is generated, whether a model honours attention masks and positions.

Some models accept both and ignore them; their branches would silently be wrong. So two branches are
tried behind one prefix: branch 2 must not change when branch 1's tokens do (the mask), must change
when its positions do, must equal the model's own plain forward over prefix and branch 2, and what
follows the join must see both. Differences are measured against what one changed prefix token does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from nprdsl.machine.actions import FeedAction, ForkAction, JoinAction
from nprdsl.runtime.errors import ErrorBoundary, UnsupportedModelError
from nprdsl.runtime.local.forward import Forward, arrange
from nprdsl.runtime.local.kv_log import Extent
from nprdsl.runtime.local.trace_log import TraceLog

_PREFIX, _FIRST, _SECOND, _AFTER = 6, 9, 5, 3  # tokens
_SLOTS = _PREFIX + _FIRST + _SECOND + _AFTER
_SHIFT = 5  # positions
_EXACT, _ROUNDING = 1e-3, 0.2  # shares of the effect of one changed prefix token


@dataclass(frozen=True, slots=True)
class _Pieces:
    prefix: tuple[int, ...]
    first: tuple[int, ...]
    second: tuple[int, ...]
    after: tuple[int, ...]


def probe(model: PreTrainedModel) -> int:
    """The width of the model's logits.

    Raises UnsupportedModelError, with the reason, where the local engine would be wrong.
    """
    name = type(model).__name__
    vocabulary = model.config.get_text_config().vocab_size
    pieces = _pieces(vocabulary)
    last = pieces.prefix[:-1] + _rotated(pieces.prefix[-1:], vocabulary)
    errors: list[Exception] = []  # of a cache, a mask or an attention that the model does not know
    with ErrorBoundary(errors.append):
        forward = Forward(model, _SLOTS)
        plain = _plain(model, pieces.prefix + pieces.second)[-_SECOND:]
        second, after = _branched(forward, pieces)
        moved, _ = _branched(forward, pieces, shift=_SHIFT)
        other_first, other_after = _branched(
            forward, replace(pieces, first=_rotated(pieces.first, vocabulary))
        )
        other_prefix, _ = _branched(forward, replace(pieces, prefix=last))
    for error in errors:
        if isinstance(error, UnsupportedModelError):
            raise error
        raise UnsupportedModelError(
            f"{name} does not run over the KV log ({type(error).__name__}: {error})"
        ) from error
    effect = _distance(second, other_prefix)
    _refuse(
        _distance(second, other_first) > _EXACT * effect,
        f"{name} lets a branch see its sibling: some layer does not honour a 4-D attention mask",
    )
    _refuse(
        _distance(second, moved) <= 1e-6 * effect,
        f"{name} ignores position_ids: branches cannot continue at their own positions",
    )
    _refuse(
        _distance(second, plain) > _ROUNDING * effect,
        f"{name} gives other logits over the KV log than in its own plain forward",
    )
    _refuse(
        _distance(after, other_after) <= 1e-6 * effect,
        f"{name} does not see the branches behind their join",
    )
    return plain.shape[-1]


def _refuse(wrong: bool, reason: str) -> None:
    if wrong:
        raise UnsupportedModelError(f"{reason}; the local engine cannot run it")


@torch.no_grad()
def _plain(model: PreTrainedModel, tokens: tuple[int, ...]) -> torch.Tensor:
    ids = torch.tensor([tokens], device=model.device)
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0]
    return logits.float()


def _branched(
    forward: Forward, pieces: _Pieces, *, shift: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits `[tokens, vocabulary]` of branch 2 and of what follows the join, in two forwards."""
    log, extent = TraceLog(_SLOTS), Extent(0, _SLOTS)
    log.apply([FeedAction(0, pieces.prefix), ForkAction(0, (1, 2)), FeedAction(1, pieces.first)])
    log.branches[2].position += shift
    log.apply([FeedAction(2, pieces.second)])
    rows = list(range(_PREFIX + _FIRST, _PREFIX + _FIRST + _SECOND))
    parts = arrange([(log, extent, log.take(_SLOTS))])
    try:
        second = forward(parts, rows)
    finally:
        _refuse(
            forward.attention.calls == 0,
            f"the attention of {type(forward.model).__name__} does not go through transformers' "
            "AttentionInterface, so it cannot be told which branch sees what",
        )
    log.apply([JoinAction(0, (1, 2)), FeedAction(0, pieces.after)])
    after = forward(arrange([(log, extent, log.take(_SLOTS))]), list(range(_AFTER)))
    return second, after


def _pieces(vocabulary: int) -> _Pieces:
    """Fixed tokens, spread over the vocabulary."""
    tokens = iter([(7919 * (i + 1)) % vocabulary for i in range(_SLOTS)])
    lengths = (_PREFIX, _FIRST, _SECOND, _AFTER)
    return _Pieces(*(tuple(next(tokens) for _ in range(length)) for length in lengths))


def _rotated(tokens: tuple[int, ...], vocabulary: int) -> tuple[int, ...]:
    """Other tokens at every place."""
    return tuple((token + vocabulary // 2) % vocabulary for token in tokens)


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())
