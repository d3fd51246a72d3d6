"""One forward of a Hugging Face causal LM: rows of (token, position, visible columns) to logits.

The rows of all branches of all requests stand in one sequence of batch 1. Keys and values of every
row are in the log before any row attends, so one forward may hold a parent's tokens and its
children's. Attention is `LogAttention`'s; a model whose code is its own gets a mask over the whole
log instead.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from transformers import PreTrainedModel

from nprdsl.runtime.local.attention import (
    AttentionPath,
    LogAttention,
    RowGroup,
    plan_attention,
)
from nprdsl.runtime.local.attention_mask import AttentionMask, RequestRows
from nprdsl.runtime.local.kv_log import Extent, KvLog
from nprdsl.runtime.local.model_facts import attention_layers, cache_argument, layer_kinds
from nprdsl.runtime.local.trace_log import Bools, Ints, TokenRun, TraceLog


class Forward:
    """The model over one KV log of `max_kv_tokens` slots. `matrices` is what its products are made
    with."""

    def __init__(
        self,
        model: PreTrainedModel,
        max_kv_tokens: int,
        path: AttentionPath = AttentionPath.INTERFACE,
    ) -> None:
        config = model.config.get_text_config()
        kinds = layer_kinds(model)
        window = config.sliding_window if "sliding_attention" in kinds else None
        self.model = model
        self.device = model.device
        self.log = KvLog(attention_layers(model), max_kv_tokens, path)
        self.attention = LogAttention(model)
        self.mask = AttentionMask(window, model.dtype, model.device)
        self.model_s = 0.0  # seconds inside the model so far
        self._key: Hashable = None  # of the forward before
        self._per_kind = len(kinds) > 1
        own = path is AttentionPath.MODEL
        self._attending: AbstractContextManager[None] = nullcontext() if own else self.attention
        self.matrices: AbstractContextManager[None] = nullcontext()
        self._cache = cache_argument(model)
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    @torch.no_grad()
    def __call__(
        self, fed: list[RequestRows], keep: list[int], key: Hashable = None
    ) -> torch.Tensor:
        """Feeds what `arrange` gave; float32 logits `[len(keep), vocabulary]` of the rows `keep`.

        `key`: see `AttentionMask.full`. The rows' keys and values stay in the log.
        """
        groups = [rows.group for rows in fed]
        tokens, positions, slots = row_tensors(fed, self.device)
        self.log.write_to(slots, max([group.start + group.length for group in groups]))
        chosen = None if keep == list(range(groups[-1].last)) else _tensor(keep, self.device)
        options: dict[str, object] = {self._cache: self.log}
        if chosen is not None and self._keeps:
            options["logits_to_keep"] = chosen
        mask = self._masks(fed, groups, key)
        if self.model.training:  # of a trainer that shares it: nothing is dropped at random here
            self.model.eval()
        with self._attending, self.matrices:
            begin = time.perf_counter()
            output = self.model(
                input_ids=tokens,
                position_ids=positions,
                attention_mask=mask,
                use_cache=True,
                **options,
            )
            self.model_s += time.perf_counter() - begin
        logits: torch.Tensor = output.logits[0]
        if chosen is not None and not self._keeps:
            logits = logits[chosen]
        return logits.float()

    def _masks(
        self, fed: list[RequestRows], groups: list[RowGroup], key: Hashable
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """The mask of all layers, or one for each kind of layer."""
        if self.log.path is AttentionPath.MODEL:
            return self._masks_over_log(fed)
        if key is None or key != self._key:
            self.attention.plan = plan_attention(groups, self.device)
        else:
            self.attention.plan.widen(groups)
        self._key = key
        plan = self.attention.plan
        self.mask.fold = self.attention.fold
        if self.mask.window is None:
            return self.mask.full(fed, plan, key)
        sliding = self.mask.sliding(fed, plan)
        if not self._per_kind:
            return sliding
        full = self.mask.full(fed, plan, key)
        return {"full_attention": full, "sliding_attention": sliding}

    def _masks_over_log(self, fed: list[RequestRows]) -> torch.Tensor | dict[str, torch.Tensor]:
        return self._by_kind(lambda window: self.mask.over_log(fed, self.log.high, window))

    def dense_masks(self, seen: Bools, positions: Ints) -> torch.Tensor | dict[str, torch.Tensor]:
        """For a forward without the log: row sees column, `[tokens, tokens]`, at positions."""
        near = positions[:, None] - positions
        return self._by_kind(
            lambda window: self.mask.additive(seen if window is None else seen & (near < window))
        )

    def _by_kind(
        self, mask: Callable[[int | None], torch.Tensor]
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """The masks that the model takes, each made for its window."""
        if not self._per_kind:
            return mask(self.mask.window)
        return {"full_attention": mask(None), "sliding_attention": mask(self.mask.window)}

    def accept(self) -> None:
        """Nothing to do: keys and values of rows that are fed again are written again."""


def row_tensors(
    fed: list[RequestRows], device: torch.device
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
        where = _tensor(slots, device)
    return _tensor(tokens, device)[None], _tensor(positions, device)[None], where


def _tensor(numbers: list[int], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.array(numbers, dtype=np.int64)).to(device)


def arrange(fed: list[tuple[TraceLog, Extent, list[TokenRun]]]) -> list[RequestRows]:
    """Numbers the rows of a forward, request after request."""
    arranged, first = [], 0
    for log, extent, runs in fed:
        last = first + sum([len(run.tokens) for run in runs])
        width = max([run.column + len(run.tokens) for run in runs])
        group = RowGroup(first, last, extent.start, extent.length, width)
        arranged.append(RequestRows(log, runs, group))
        first = last
    return arranged
