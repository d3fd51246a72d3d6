"""Draws one token from each row of logits, many rows at once.

Order: repetition, frequency and presence penalty, mask, avoided runs, temperature, top-k, top-p,
min-p; then inverse transform sampling with the row's own uniform number, so that a row's token
depends on that row alone. The log-probability given with a token is that of the model's own
distribution: temperature 1, nothing masked or penalised. One dense forward over the trace gives the
same, so a trainer can compare with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

import torch

from nprdsl.machine.transcript import Alternatives
from nprdsl.masks.logit_masks import LogitMasks
from nprdsl.runtime.drawing.penalty_counts import Seen
from nprdsl.runtime.sampling import GREEDY_BELOW, Sampling
from nprdsl.tokens.bitmask import Mask

_DRAWN_BY = attrgetter("temperature", "top_k", "top_p", "min_p")
_HEAD = 1024  # top-p first looks at so many of the likeliest tokens, then at all


@dataclass(slots=True)
class Draw:
    """What one row needs: the mask int32 [ceil(V/32)], a `uniform` number in [0, 1), and `history`
    where something is penalised. Tokens that are `banned` are drawn only where the mask leaves no
    other."""

    mask: Mask
    settings: Sampling
    uniform: float
    history: Seen | None = None
    banned: tuple[int, ...] = ()


class Sampler:
    """Samples from logits of `width` tokens on `device`."""

    def __init__(self, width: int, device: torch.device) -> None:
        # MPS has no float64, which cumulative sums need: its rows are drawn on the CPU.
        self._device = torch.device("cpu") if device.type == "mps" else device
        self._moves = self._device != device
        self._masks = LogitMasks(width, self._device)

    def __call__(
        self, logits: torch.Tensor, draws: list[Draw]
    ) -> tuple[list[int], list[float], list[Alternatives]]:
        """Tokens, log-probabilities and the alternatives that are asked for, one for each row of
        `logits`, float32 `[B, width]`, which stay as they are.

        A row without a finite number gives a log-probability that is not finite.
        """
        if self._moves:
            logits = logits.to(self._device)
        raw = work = torch.log_softmax(logits, dim=-1)
        likeliest = _likeliest(raw, draws)
        penalised = [row for row, draw in enumerate(draws) if draw.history is not None]
        if penalised:
            work = logits.clone()
            for row in penalised:
                _penalise(work[row], draws[row])
        self._masks.apply(work, [draw.mask for draw in draws])
        for row, draw in enumerate(draws):
            if draw.banned:
                _ban(work[row], draw.banned)
        tokens = self._draw(work, draws)
        chosen = raw.gather(1, tokens)
        return tokens.flatten().tolist(), chosen.flatten().tolist(), likeliest

    def _draw(self, work: torch.Tensor, draws: list[Draw]) -> torch.Tensor:
        """`[B, 1]` tokens; rows with equal settings are drawn together."""
        groups: dict[tuple[float, ...], list[int]] = {}
        for row, draw in enumerate(draws):
            groups.setdefault(_DRAWN_BY(draw.settings), []).append(row)
        if len(groups) == 1:
            return _pick(work, draws)
        tokens = torch.empty(len(draws), 1, dtype=torch.long, device=work.device)
        for rows in groups.values():
            index = torch.tensor(rows, device=work.device)
            tokens[index] = _pick(work[index], [draws[row] for row in rows])
        return tokens


def _pick(work: torch.Tensor, draws: list[Draw]) -> torch.Tensor:
    """`[B, 1]` tokens of rows with equal settings; `work` `[B, width]` is left as it is."""
    settings = draws[0].settings
    if settings.temperature < GREEDY_BELOW:
        return work.argmax(-1, keepdim=True)
    if settings.temperature != 1.0:
        work = work / settings.temperature
    if 0 < settings.top_k < work.shape[1]:
        least = work.topk(settings.top_k, dim=-1).values[:, -1:]
        work = work.masked_fill(work < least, -torch.inf)
    if settings.top_p < 1.0:
        work = _keep_top_p(work, settings.top_p)
    if settings.min_p > 0.0:
        probs = work.softmax(-1)
        least = settings.min_p * probs.amax(-1, keepdim=True)
        work = work.masked_fill(probs < least, -torch.inf)
    mass = work.softmax(-1, dtype=torch.float64).cumsum(-1)
    numbers = torch.tensor([[draw.uniform] for draw in draws], dtype=torch.float64)
    targets = mass[:, -1:] * numbers.to(work.device)
    tokens = torch.searchsorted(mass, targets, right=True)
    return tokens.clamp_(max=work.shape[1] - 1)  # beyond it only where a row is not finite


def _likeliest(raw: torch.Tensor, draws: list[Draw]) -> list[Alternatives]:
    """So many of each row's likeliest tokens as it asks for, masked or not."""
    kept = [draw.settings.alternatives for draw in draws]
    if not any(kept):
        return [()] * len(draws)
    values, ids = (found.tolist() for found in raw.topk(min(max(kept), raw.shape[1]), dim=-1))
    return [
        tuple((i, p) for i, p in zip(*row, strict=True) if math.isfinite(p))[:count]
        for count, row in zip(kept, zip(ids, values, strict=True), strict=True)
    ]


def _penalise(logits: torch.Tensor, draw: Draw) -> None:
    if draw.history is None:
        return
    settings, ids = draw.settings, torch.from_numpy(draw.history.ids).to(logits.device)
    seen, penalty = logits[ids], settings.repetition_penalty
    if penalty != 1.0:
        seen = torch.where(seen > 0, seen / penalty, seen * penalty)
    if settings.frequency_penalty:
        counts = torch.from_numpy(draw.history.counts).to(logits.device, logits.dtype)
        seen = seen - settings.frequency_penalty * counts
    logits[ids] = seen - settings.presence_penalty


def _ban(logits: torch.Tensor, tokens: Iterable[int]) -> None:
    """Leaves `logits` `[width]` as they are where nothing else can be drawn."""
    known = [token for token in tokens if token < len(logits)]
    ids = torch.tensor(known, dtype=torch.long, device=logits.device)
    others = logits.index_fill(0, ids, -torch.inf)
    if bool(others.max() > -torch.inf):
        logits.copy_(others)


def _keep_top_p(work: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keeps the likeliest tokens until their sum reaches `top_p` (arXiv 1904.09751).

    Tokens as likely as the last of them stay too.
    """
    probs = work.softmax(-1)
    head = probs.topk(min(_HEAD, probs.shape[1]), dim=-1).values
    if head.shape[1] < probs.shape[1] and bool((head.sum(-1) < top_p).any()):
        head = probs.sort(dim=-1, descending=True).values
    before = head.cumsum(-1) - head
    reached = before >= max(top_p, torch.finfo(before.dtype).tiny)  # the first one stays
    least = head.masked_fill(reached, torch.inf).amin(-1, keepdim=True)
    return work.masked_fill(probs < least, -torch.inf)
