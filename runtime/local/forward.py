"""One forward of a Hugging Face causal LM: rows of (token, position, visible columns) to logits.

All rows of all branches of all requests stand in one sequence of batch 1. The keys and values of
every row are in the log before any row attends, so one forward may hold a parent's tokens and its
children's.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Hashable

import numpy as np
import torch
from transformers import PreTrainedModel

from nprdsl.runtime.errors import UnsupportedModelError
from nprdsl.runtime.local.attention import LogAttention
from nprdsl.runtime.local.attention_batches import RowGroup, Seating, seating
from nprdsl.runtime.local.kv_log import Extent, KvLog
from nprdsl.runtime.local.masks import MaskBuilder, Part
from nprdsl.runtime.local.trace_log import Run, TraceLog

KNOWN_LAYERS = frozenset({"full_attention", "sliding_attention"})


class Forward:
    """The model over one KV log of `max_kv_tokens` slots."""

    def __init__(self, model: PreTrainedModel, max_kv_tokens: int) -> None:
        config = model.config.get_text_config()
        kinds = _layer_kinds(model)
        window = config.sliding_window if "sliding_attention" in kinds else None
        heads = _heads(model)
        self.model = model
        self.device = model.device
        self.log = KvLog(config.num_hidden_layers, max_kv_tokens)
        self.attention = LogAttention(model)
        fold = heads // (config.to_dict().get("num_key_value_heads") or heads)
        self.masks = MaskBuilder(fold, window, model.dtype, model.device)
        self.model_s = 0.0  # seconds inside the model so far
        self._per_kind = len(kinds) > 1
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    @torch.no_grad()
    def __call__(self, parts: list[Part], keep: list[int], key: Hashable = None) -> torch.Tensor:
        """Feeds the parts; gives float32 logits `[len(keep), vocabulary]` of the rows `keep`.

        `key` as in `MaskBuilder.full`. The rows' keys and values stay in the log.
        """
        rows = parts[-1].group.last
        tokens, positions, slots = self._rows(parts)
        self.log.place(slots, max(p.group.start + p.group.length for p in parts))
        chosen = None if keep == list(range(rows)) else self._tensor(keep)
        options = {} if chosen is None or not self._keeps else {"logits_to_keep": chosen}
        groups = [part.group for part in parts]
        seats = self.attention.seating = seating(groups, self.device, self.attention.seating)
        mask = self._mask(parts, seats, key)
        with self.attention:
            begin = time.perf_counter()
            output = self.model(
                input_ids=tokens,
                position_ids=positions,
                attention_mask=mask,
                past_key_values=self.log,
                use_cache=True,
                **options,
            )
            self.model_s += time.perf_counter() - begin
        logits: torch.Tensor = output.logits[0]
        if chosen is not None and not self._keeps:
            logits = logits[chosen]
        return logits.float()

    def _mask(
        self, parts: list[Part], seats: Seating, key: Hashable
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        if self.masks.window is None:
            return self.masks.full(parts, seats, key)
        sliding = self.masks.sliding(parts, seats)
        if not self._per_kind:
            return sliding
        full = self.masks.full(parts, seats, key)
        return {"full_attention": full, "sliding_attention": sliding}

    def _rows(self, parts: list[Part]) -> tuple[torch.Tensor, torch.Tensor, slice | torch.Tensor]:
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        for part in parts:
            start, runs = part.group.start, part.runs
            if part.group.rows == len(runs):  # one token each, as nearly always
                tokens += [run.tokens[0] for run in runs]
                positions += [run.position for run in runs]
                slots += [start + run.column for run in runs]
                continue
            for run in runs:
                count, column = len(run.tokens), start + run.column
                tokens.extend(run.tokens)
                positions.extend(range(run.position, run.position + count))
                slots.extend(range(column, column + count))
        if slots[-1] - slots[0] == len(slots) - 1 and slots == list(range(slots[0], slots[-1] + 1)):
            place: slice | torch.Tensor = slice(slots[0], slots[-1] + 1)
        else:
            place = self._tensor(slots)
        return self._tensor(tokens)[None], self._tensor(positions)[None], place

    def _tensor(self, numbers: list[int]) -> torch.Tensor:
        return torch.from_numpy(np.array(numbers, dtype=np.int64)).to(self.device)


def arrange(fed: list[tuple[TraceLog, Extent, list[Run]]]) -> list[Part]:
    """Numbers the rows of a forward: one part for each request that feeds."""
    parts, first = [], 0
    for log, extent, runs in fed:
        last = first + sum([len(run.tokens) for run in runs])
        width = max([run.column + len(run.tokens) for run in runs])
        group = RowGroup(first, last, extent.start, extent.length, width)
        parts.append(Part(log, runs, group))
        first = last
    return parts


def _layer_kinds(model: PreTrainedModel) -> frozenset[str]:
    """`full_attention` and `sliding_attention`, as the configuration has
    them; others are refused.
    """
    settings = model.config.get_text_config().to_dict()
    declared = settings.get("layer_types")
    if declared is None:
        windowed = settings.get("sliding_window") and settings.get("use_sliding_window", True)
        declared = ["sliding_attention" if windowed else "full_attention"]
    kinds = frozenset(declared)
    if strange := sorted(kinds - KNOWN_LAYERS):
        raise UnsupportedModelError(
            f"{type(model).__name__} has layers of the kind {', '.join(strange)}; the local engine "
            "runs full and sliding-window attention only, because other layers mix the branches"
        )
    return kinds


def _heads(model: PreTrainedModel) -> int:
    """Query heads of a layer; an attribute that families spell in their own ways."""
    try:
        count: int = model.config.get_text_config().num_attention_heads
    except AttributeError:
        message = f"{type(model).__name__} has no attention layers"
        raise UnsupportedModelError(message) from None
    return count
