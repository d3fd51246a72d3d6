"""Draws one token from each row of logits, many rows at once.

Order: repetition, frequency and presence penalty, mask, temperature, top-k, top-p, min-p; then
inverse transform sampling with the row's own uniform number, so that a row's token depends on that
row alone. The log-probability given with a token is that of the model's own distribution:
temperature 1, nothing masked or penalised. One dense forward over the trace gives the same, so a
trainer can compare with it.

A mask is a packed int32 array, bit i % 32 of word i // 32 set where token i is allowed. It is
applied to the logits by index, not as a dense row.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import torch
from numpy.typing import NDArray

from nprdsl.runtime.drawing.penalty_counts import Seen
from nprdsl.runtime.sampling import Sampling
from nprdsl.tokens.bitmask import Mask

_DRAWN_BY = attrgetter("temperature", "top_k", "top_p", "min_p")
_HEAD = 1024  # top-p first looks at so many of the likeliest tokens, then at all
_KEPT_MASKS = 4096
_KEPT_BATCHES = 512  # sequences of masks


@dataclass(slots=True)
class Draw:
    """What one row needs: the mask int32 [ceil(V/32)], a `uniform` number in [0, 1), and `history`
    where something is penalised."""

    mask: Mask
    settings: Sampling
    uniform: float
    history: Seen | None = None


class Sampler:
    """Samples from logits of `width` tokens on `device`."""

    def __init__(self, width: int, device: torch.device) -> None:
        # MPS has no float64, which cumulative sums need: its rows are drawn on the CPU.
        self._device = torch.device("cpu") if device.type == "mps" else device
        self._moves = self._device != device
        self._masks = LogitMasks(width, self._device)

    def __call__(self, logits: torch.Tensor, draws: list[Draw]) -> tuple[list[int], list[float]]:
        """Tokens and log-probabilities, one for each row of `logits`, float32 `[B, width]`, which
        stay as they are.

        A row without a finite number gives a log-probability that is not finite.
        """
        if self._moves:
            logits = logits.to(self._device)
        raw = work = torch.log_softmax(logits, dim=-1)
        penalised = [row for row, draw in enumerate(draws) if draw.history is not None]
        if penalised:
            work = logits.clone()
            for row in penalised:
                _penalise(work[row], draws[row])
        self._masks.apply(work, [draw.mask for draw in draws])
        tokens = self._draw(work, draws)
        chosen = raw.gather(1, tokens)
        return tokens.flatten().tolist(), chosen.flatten().tolist()

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
    if settings.temperature == 0.0:
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


def _keep_top_p(work: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keeps the likeliest tokens until their sum reaches `top_p` (arXiv 1904.09751).

    Tokens as likely as the last of them stay too.
    """
    probs = work.softmax(-1)
    head = probs.topk(min(_HEAD, probs.shape[1]), dim=-1).values
    if head.shape[1] < probs.shape[1] and bool((head.sum(-1) < top_p).any()):
        head = probs.sort(dim=-1, descending=True).values
    before = head.cumsum(-1) - head
    least = head.masked_fill(before >= top_p, torch.inf).amin(-1, keepdim=True)
    return work.masked_fill(probs < least, -torch.inf)


@dataclass(frozen=True, slots=True)
class Allowance:
    """One mask as ids: those it allows, or those it forbids, whichever are fewer. `source` keeps
    the array, so that its address stands for it."""

    source: Mask
    ids: NDArray[np.int64]
    allows: bool


@dataclass(frozen=True, slots=True)
class _FlatMasks:
    """Flat indices into `[B, width]` logits for one sequence of masks."""

    allowances: tuple[Allowance, ...]  # kept, so that no other mask gets their addresses
    forbidden: torch.Tensor | None
    narrow_rows: torch.Tensor | None
    allowed: torch.Tensor | None


class LogitMasks:
    """Applies packed masks to logits of `width` tokens on `device`; tokens beyond a mask's words
    are forbidden.

    Nearly all masks forbid a few tokens or allow a few. So each is turned once into a short list of
    ids, and a batch of them into flat indices; both are kept while the automaton hands out the same
    arrays.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self.width = width
        self._device = device
        self._masks: OrderedDict[int, Allowance] = OrderedDict()
        self._batches: OrderedDict[tuple[int, ...], _FlatMasks] = OrderedDict()

    def apply(self, logits: torch.Tensor, masks: list[Mask]) -> None:
        """Sets forbidden entries of `logits` `[B, width]` to -inf, in place; one mask a row."""
        batch = self._batch(masks)
        flat = logits.view(-1)
        if batch.allowed is not None and batch.narrow_rows is not None:
            values = flat[batch.allowed]
            logits.index_fill_(0, batch.narrow_rows, -torch.inf)
            flat[batch.allowed] = values
        if batch.forbidden is not None:
            flat.index_fill_(0, batch.forbidden, -torch.inf)

    def allowance(self, mask: Mask) -> Allowance:
        """The mask as ids; the same object while the automaton gives the same array."""
        known = self._masks.get(id(mask))
        if known is None:
            known = self._masks[id(mask)] = self._read(mask)
            if len(self._masks) > _KEPT_MASKS:
                self._masks.popitem(last=False)
        return known

    def _read(self, mask: Mask) -> Allowance:
        bits = np.unpackbits(mask.view(np.uint8), bitorder="little")[: self.width]
        bits = np.pad(bits, (0, self.width - len(bits)))
        count = int(np.count_nonzero(bits))
        if count == 0:
            raise ValueError("the mask allows no token of the model")
        allows = count <= self.width - count
        return Allowance(mask, np.flatnonzero(bits == allows), allows)

    def _batch(self, masks: list[Mask]) -> _FlatMasks:
        key = tuple(map(id, masks))
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = self._compose([self.allowance(mask) for mask in masks])
            if len(self._batches) > _KEPT_BATCHES:
                self._batches.popitem(last=False)
        return batch

    def _compose(self, allowances: list[Allowance]) -> _FlatMasks:
        rows = list(enumerate(allowances))
        return _FlatMasks(
            allowances=tuple(allowances),
            forbidden=self._indices([a.ids + i * self.width for i, a in rows if not a.allows]),
            narrow_rows=self._indices([np.array([i]) for i, a in rows if a.allows]),
            allowed=self._indices([a.ids + i * self.width for i, a in rows if a.allows]),
        )

    def _indices(self, lists: list[NDArray[np.int64]]) -> torch.Tensor | None:
        if not any(len(ids) for ids in lists):
            return None
        return torch.from_numpy(np.concatenate(lists)).to(self._device)
