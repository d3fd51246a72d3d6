"""The forward of a model with recurrent layers: a sequence of the batch for each branch that feeds.

Recurrent layers read whatever stands in one sequence as one text, so branches may not share one.
Runs of all branches of all requests that are equally long go through the model in one call, as a
batch; longer runs are cut, and a branch's first tokens come behind its parent's last. While every
branch feeds one token, that is one call a forward. Attention layers still use the KV log with its
masks; states are rows of `nprdsl.runtime.local.recurrent_state`.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum

import torch
from transformers import PreTrainedModel

from nprdsl.runtime.errors import UnsupportedModelError
from nprdsl.runtime.local.attention import LogAttention, RowGroup, plan_attention
from nprdsl.runtime.local.attention_mask import AttentionMask, RequestRows
from nprdsl.runtime.local.forward import arrange, row_tensors
from nprdsl.runtime.local.kv_log import Extent
from nprdsl.runtime.local.model_facts import arguments, cache_argument, hidden_layers
from nprdsl.runtime.local.recurrent_state import RecurrentLog, StateRow, gathered, in_one
from nprdsl.runtime.local.trace_log import BranchView, TokenRun


class Continuing(StrEnum):
    """How many tokens a sequence can take in one call, where it goes on from a state."""

    PIECES = "pieces"  # any number
    TOKENS = "tokens"  # one, since the model's code for more begins without a state


class _Waiting:
    """What is left of a run; its first token is row `first` of the forward."""

    __slots__ = ("first", "rows", "run")

    def __init__(self, rows: RequestRows, run: TokenRun, first: int) -> None:
        self.rows = rows
        self.run = TokenRun(run.branch, run.view, run.tokens, run.column, run.position)
        self.first = first


class RecurrentForward:
    """The model over one KV log of `max_kv_tokens` slots, and a row of state for each branch.
    `matrices` is what its products are made with."""

    def __init__(
        self,
        model: PreTrainedModel,
        max_kv_tokens: int,
        continuing: Continuing = Continuing.PIECES,
    ) -> None:
        accepted = arguments(model)
        self.model = model
        self.device = model.device
        self.log = RecurrentLog(hidden_layers(model), max_kv_tokens)
        self.attention = BatchAttention(model)
        self.matrices: AbstractContextManager[None] = nullcontext()
        self.model_s = 0.0  # seconds inside the model so far
        self.continuing = continuing
        self._cache = cache_argument(model)
        self._has_positions = "position_ids" in accepted
        self._keeps = "logits_to_keep" in accepted
        self._coming: dict[BranchView, StateRow] = {}  # of the last forward, not accepted yet

    @torch.no_grad()
    def __call__(
        self, fed: list[RequestRows], keep: list[int], key: Hashable = None
    ) -> torch.Tensor:
        """As `Forward`. The branches' states move on with `accept`; until then the same rows may be
        fed again. Rows of branches that were dropped are not computed."""
        self._coming = {}
        wanted: dict[int, list[int]] = {}  # the places of a row in what is kept
        for place, row in enumerate(keep):
            wanted.setdefault(row, []).append(place)
        found: list[torch.Tensor] = []
        order: list[int] = []  # of `found`
        waiting, rows = _waiting(fed), fed[-1].group.last
        while waiting:
            batch, count = self._batch(waiting)
            all_at_once = count * len(batch) == rows
            logits, places = self._call(batch, count, wanted, key if all_at_once else None)
            found.append(logits)
            order += places
            waiting = [one for one in waiting if one.run.tokens]
        if not keep:
            return torch.empty(0, 0)
        logits = found[0] if len(found) == 1 else torch.cat(found)
        in_order = sorted(range(len(order)), key=order.__getitem__)
        return logits if in_order == list(range(len(keep))) else logits[in_order]

    def accept(self) -> None:
        """The branches' states are now those behind the tokens of the last forward."""
        for view, row in self._coming.items():
            view.state = row
        self._coming = {}

    # -- one call of the model ---------------------------------------------------------------------

    def _batch(self, waiting: list[_Waiting]) -> tuple[list[_Waiting], int]:
        """What is fed together, all behind some state or all at the beginning, and how many tokens
        of each."""
        free = _unblocked(waiting)
        behind = [one for one in free if self._state(one.run.view) is not None]
        pieces = self.continuing is Continuing.PIECES
        if behind:
            return behind, min([len(one.run.tokens) for one in behind]) if pieces else 1
        count = min([len(one.run.tokens) for one in free])
        return [one for one in free if pieces or len(one.run.tokens) == count], count

    def _call(
        self, batch: list[_Waiting], count: int, wanted: dict[int, list[int]], key: Hashable
    ) -> tuple[torch.Tensor, list[int]]:
        """Feeds the first `count` tokens of each; logits `[found, vocabulary]` of rows that are
        wanted, and their places in what is kept."""
        states = [state for one in batch if (state := self._state(one.run.view)) is not None]
        assert len(states) in (0, len(batch)), "sequences that begin and others in one call"
        self.log.take(gathered(states) if states else {})
        rows, places = [], []
        for at, one in enumerate(batch):
            for token in range(count):
                for place in wanted.get(one.first + token, ()):
                    rows.append((at, token))
                    places.append(place)
        last_only = self._keeps and all(token == count - 1 for _, token in rows)
        logits = self._run_model(self._arranged(batch, count), len(batch), last_only, key)
        for at, one in enumerate(batch):
            self._coming[one.run.view] = StateRow(self.log.states, at)
        columns = [0 if last_only else token for _, token in rows]
        return logits[[at for at, _ in rows], columns].float(), places

    def _run_model(
        self, parts: list[RequestRows], sequences: int, last_only: bool, key: Hashable
    ) -> torch.Tensor:
        """Logits `[sequences, tokens or 1, vocabulary]`."""
        tokens, positions, slots = row_tensors(parts, self.device)
        groups = [rows.group for rows in parts]
        self.log.write_to(slots, max([group.start + group.length for group in groups]))
        self.attention.prepare(parts, groups, key)
        options: dict[str, object] = {self._cache: self.log}
        if self._has_positions:
            options["position_ids"] = positions.view(sequences, -1)
        if last_only:
            options["logits_to_keep"] = 1
        if self.model.training:  # of a trainer that shares it: nothing is dropped at random here
            self.model.eval()
        with self.attention, self.matrices:
            begin = time.perf_counter()
            output = self.model(input_ids=tokens.view(sequences, -1), use_cache=True, **options)
            self.model_s += time.perf_counter() - begin
        logits: torch.Tensor = output.logits
        return logits

    def _arranged(self, batch: list[_Waiting], count: int) -> list[RequestRows]:
        """The rows of the call, request after request, as the batch is."""
        runs: dict[int, list[TokenRun]] = {}
        owners: dict[int, RequestRows] = {}
        for one in batch:
            owners[id(one.rows)] = one.rows
            runs.setdefault(id(one.rows), []).append(one.run.split(count))
            one.first += count
        extents = {i: Extent(rows.group.start, rows.group.length) for i, rows in owners.items()}
        return arrange([(owners[i].log, extents[i], own) for i, own in runs.items()])

    def _state(self, view: BranchView) -> StateRow | None:
        """What a branch goes on from: its own state, or that of the nearest branch it comes from;
        None at the beginning."""
        at: BranchView | None = view
        while at is not None:
            state = self._coming.get(at, at.state)
            if state is not None:
                if at is not view and not state.alone:  # it waits for its children: no others' rows
                    state = StateRow(gathered([state]), 0)
                    if at in self._coming:
                        self._coming[at] = state
                    else:
                        at.state = state
                return state
            at = at.parent
        return None


def _waiting(fed: list[RequestRows]) -> list[_Waiting]:
    """All runs of branches that live, request after request."""
    waiting = []
    for rows in fed:
        first = rows.group.first
        for run in rows.runs:
            if rows.log.branches.get(run.branch) is run.view:
                waiting.append(_Waiting(rows, run, first))
            first += len(run.tokens)
    return waiting


def _unblocked(waiting: list[_Waiting]) -> list[_Waiting]:
    """Those with nothing to feed before them, on their branch or on one that it comes from."""
    before: set[BranchView] = set()
    free = []
    for one in waiting:
        at: BranchView | None = one.run.view
        while at is not None and at not in before:
            at = at.parent
        if at is None:
            free.append(one)
        before.add(one.run.view)
    return free


class BatchAttention(LogAttention):
    """`LogAttention` for a batch of sequences, which attend as rows one behind the other.

    The model is given no mask: its recurrent layers would read it in ways of their own. Attention
    has its mask from here; where the model says that a layer has a window, from `sliding_window`.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self.windows: set[int] = set()  # of the calls so far
        self._dtype, self._device = model.dtype, model.device
        self._full = AttentionMask(None, model.dtype, model.device)
        self._masks_of: dict[int | None, torch.Tensor] = {}  # of the call, by window
        self._parts: list[RequestRows] = []
        self._key: Hashable = None

    def prepare(self, parts: list[RequestRows], groups: list[RowGroup], key: Hashable) -> None:
        """For the coming call of the model. `key`: see `AttentionMask.full`."""
        if key is None or key != self._key:
            self.plan = plan_attention(groups, self._device)
        else:
            self.plan.widen(groups)
        self._key = key
        self._parts = parts
        self._masks_of = {}

    def attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        softcap: float | None = None,
        s_aux: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        **others: object,
    ) -> tuple[torch.Tensor, None]:
        """`query` `[sequences, heads, tokens, dim]`, `key` and `value` as in `LogAttention`.

        Gives `[sequences, tokens, heads, dim]`. Raises UnsupportedModelError for a mask of the
        model's own.
        """
        if attention_mask is not None:
            raise UnsupportedModelError("attention has a mask of the model's own")
        sequences, _, tokens, _ = query.shape
        window = others.get("sliding_window")
        output, _ = super().attend(
            module,
            in_one(query),
            key,
            value,
            self._mask(window if isinstance(window, int) else None),
            scaling=scaling,
            softcap=softcap,
            s_aux=s_aux,
            position_bias=position_bias,
        )
        return output.view(sequences, tokens, *output.shape[2:]), None

    def _mask(self, window: int | None) -> torch.Tensor:
        """The mask of layers with that window, made once a call."""
        if window not in self._masks_of:
            if window is None:
                self._full.fold = self.fold
                mask = self._full.full(self._parts, self.plan, self._key)
            else:
                self.windows.add(window)
                sliding = AttentionMask(window, self._dtype, self._device)
                mask = sliding.sliding(self._parts, self.plan)
            self._masks_of[window] = mask
        return self._masks_of[window]
