"""The states of recurrent layers, and the cache of a model that has such layers.

A recurrent layer (state space, linear attention, short convolution) folds all tokens that it has
read into tensors of fixed size. So each branch has a row of state: a fork copies its parent's, and
a `reread` join goes on from the parent's. States of several branches cannot be merged, as keys and
values can. A forward takes copies of the rows it needs and leaves new ones; so one that fails has
changed nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final, NamedTuple

import torch

from nprdsl.runtime.local.kv_log import KvLog, LogLayer

CONVOLUTION: Final = "convolution"
RECURRENT: Final = "recurrent"

Place = tuple[int, str, int]  # layer, kind of state, and which one, where a layer has several
States = dict[Place, torch.Tensor]  # each `[rows, ...]`


class StateRow(NamedTuple):
    """What the recurrent layers know after some token: row `row` of every tensor."""

    states: States
    row: int

    @property
    def alone(self) -> bool:
        """No other rows stay in memory because of this one."""
        return all(len(tensor) == 1 for tensor in self.states.values())


def gathered(rows: Sequence[StateRow]) -> States:
    """Copies of these rows, in their order, in memory of their own."""
    together = [list(members) for _, members in groupby(rows, key=lambda row: id(row.states))]
    parts = [(members[0].states, [row for _, row in members]) for members in together]
    copies: States = {}
    for place in parts[0][0]:
        pieces = [states[place][numbers] for states, numbers in parts]
        copies[place] = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    return copies


class BatchLayer(LogLayer):
    """Keys and values of one layer, which come in sequences of equal lengths and are written to
    the log one sequence behind the other."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes `[sequences, heads, tokens, head_dim]`; gives the whole log, in one sequence."""
        return super().update(in_one(key_states), in_one(value_states))


def in_one(sequences: torch.Tensor) -> torch.Tensor:
    """`[sequences, heads, tokens, dim]` as `[1, heads, sequences * tokens, dim]`."""
    if len(sequences) == 1:
        return sequences
    return sequences.transpose(0, 1).flatten(1, 2)[None]


class RecurrentLog(KvLog):
    """A KV log whose layers may keep `states` too, a row for each sequence of the coming forward.

    `states` is empty where the sequences begin. After the forward it holds what the model has left.
    """

    def __init__(self, num_layers: int, total: int) -> None:
        super().__init__(num_layers, total)
        self.states: States = {}
        self._widths: dict[Place, int] = {}  # tokens that a convolution remembers
        self._begun = False

    def _new_layer(self) -> LogLayer:
        return BatchLayer(self)

    def take(self, states: States) -> None:
        """The coming forward goes on from these; it may write into them."""
        self.states = states
        self._begun = bool(states)

    # -- what the model calls ----------------------------------------------------------------------

    def has_previous_state(
        self, layer_idx: int | None = None, state_idx: int | None = None
    ) -> bool:
        return self._begun

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> torch.Tensor | None:
        return self.states.get((layer_idx, CONVOLUTION, state_idx))

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> torch.Tensor | None:
        return self.states.get((layer_idx, RECURRENT, state_idx))

    def update_conv_state(
        self,
        conv_states: torch.Tensor,
        layer_idx: int,
        state_idx: int = 0,
        conv_kernel_size: int | None = None,
        **others: object,
    ) -> torch.Tensor:
        """Keeps the last columns of `[sequences, channels, tokens]`, as many as the model has asked
        for at first; gives all that it can read, zeros where nothing is before."""
        place = (layer_idx, CONVOLUTION, state_idx)
        width = self._widths.setdefault(place, conv_kernel_size or conv_states.shape[-1])
        before = self.states.get(place)
        if before is not None:
            readable = torch.cat((before, conv_states), -1)
        else:
            missing = max(0, width - conv_states.shape[-1])
            readable = torch.nn.functional.pad(conv_states, (missing, 0))
        self.states[place] = readable[..., readable.shape[-1] - width :].clone()
        return readable

    def update_recurrent_state(
        self,
        recurrent_states: torch.Tensor,
        layer_idx: int,
        state_idx: int = 0,
        **others: object,
    ) -> torch.Tensor:
        self.states[layer_idx, RECURRENT, state_idx] = recurrent_states
        return recurrent_states
