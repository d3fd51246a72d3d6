"""One forward of a Hugging Face causal LM: rows of (token, position, visible columns) to logits.

The rows of all branches of all requests stand in one sequence of batch 1. Keys and values of every
row are in the log before any row attends, so one forward may hold a parent's tokens and its
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
from nprdsl.runtime.local.attention import LogAttention, RowGroup, plan_attention
from nprdsl.runtime.local.attention_mask import AttentionMask, RequestRows
from nprdsl.runtime.local.kv_log import Extent, KvLog
from nprdsl.runtime.local.trace_log import TokenRun, TraceLog

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
        self.mask = AttentionMask(fold, window, model.dtype, model.device)
        self.model_s = 0.0  # seconds inside the model so far
        self._key: Hashable = None  # of the forward before
        self._per_kind = len(kinds) > 1
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    @torch.no_grad()
    def __call__(
        self, fed: list[RequestRows], keep: list[int], key: Hashable = None
    ) -> torch.Tensor:
        """Feeds what `arrange` gave; float32 logits `[len(keep), vocabulary]` of the rows `keep`.

        `key`: see `AttentionMask.full`. The rows' keys and values stay in the log.
        """
        groups = [rows.group for rows in fed]
        tokens, positions, slots = self._rows(fed)
        self.log.write_to(slots, max([group.start + group.length for group in groups]))
        chosen = None if keep == list(range(groups[-1].last)) else self._tensor(keep)
        options = {} if chosen is None or not self._keeps else {"logits_to_keep": chosen}
        if key is None or key != self._key:
            self.attention.plan = plan_attention(groups, self.device)
        else:
            self.attention.plan.widen(groups)
        self._key = key
        mask = self._masks(fed, key)
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

    def _masks(
        self, fed: list[RequestRows], key: Hashable
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """The mask of all layers, or one for each kind of layer."""
        plan = self.attention.plan
        if self.mask.window is None:
            return self.mask.full(fed, plan, key)
        sliding = self.mask.sliding(fed, plan)
        if not self._per_kind:
            return sliding
        full = self.mask.full(fed, plan, key)
        return {"full_attention": full, "sliding_attention": sliding}

    def _rows(
        self, fed: list[RequestRows]
    ) -> tuple[torch.Tensor, torch.Tensor, slice | torch.Tensor]:
        """Tokens and positions, int64 [1, rows], and the slots of the log, int64 [rows]."""
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        for rows in fed:
            start, runs = rows.group.start, rows.runs
            if rows.group.rows == len(runs):  # one token each, as nearly always
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
            where: slice | torch.Tensor = slice(slots[0], slots[-1] + 1)
        else:
            where = self._tensor(slots)
        return self._tensor(tokens)[None], self._tensor(positions)[None], where

    def _tensor(self, numbers: list[int]) -> torch.Tensor:
        return torch.from_numpy(np.array(numbers, dtype=np.int64)).to(self.device)


def arrange(fed: list[tuple[TraceLog, Extent, list[TokenRun]]]) -> list[RequestRows]:
    """Numbers the rows of a forward, request after request."""
    arranged, first = [], 0
    for log, extent, runs in fed:
        last = first + sum([len(run.tokens) for run in runs])
        width = runs[-1].column + len(runs[-1].tokens)  # runs are ascending
        group = RowGroup(first, last, extent.start, extent.length, width)
        arranged.append(RequestRows(log, runs, group))
        first = last
    return arranged


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
