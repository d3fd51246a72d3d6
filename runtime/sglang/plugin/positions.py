"""Positions of branches: a token stands at its branch's position, not at its place in the row.

After a join a row is longer than the longest path through it, by the same amount for all that
follows; so each row has one shift.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nprdsl.runtime.sglang.plugin.rows import BranchReq
from nprdsl.runtime.sglang.plugin.trace_scheduler import TraceScheduler


def shift(traces: TraceScheduler, reqs: Sequence[Any], forward: Any) -> None:
    """Corrects `forward.positions` `[tokens]`, whose rows are `reqs` in order."""
    shifts, wanted = [], False
    for req in reqs:
        conductor = traces.conductor(req)
        by = 0
        if conductor is not None:
            wanted = wanted or conductor.request.positions
            if isinstance(req, BranchReq):
                by = conductor.shift(req)
        shifts.append(by)
    if any(shifts):
        amounts = torch.tensor(shifts, dtype=forward.positions.dtype)
        amounts = amounts.to(forward.positions.device, non_blocking=True)
        if not forward.forward_mode.is_decode():
            amounts = torch.repeat_interleave(amounts, forward.extend_seq_lens.long())
        forward.positions = forward.positions - amounts
    if wanted:
        _note(traces, reqs, forward)


def _note(traces: TraceScheduler, reqs: Sequence[Any], forward: Any) -> None:
    """Keeps the positions of rows whose requests want to know them."""
    lengths = [1] * len(reqs)
    if not forward.forward_mode.is_decode():
        lengths = forward.extend_seq_lens.tolist()
    at, positions = 0, forward.positions.tolist()
    for req, length in zip(reqs, lengths, strict=True):
        conductor = traces.conductor(req)
        if conductor is not None and conductor.request.positions:
            traces.placed[req.rid] = positions[at : at + length]
        at += length
