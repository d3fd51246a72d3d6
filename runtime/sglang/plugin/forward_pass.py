"""What the plugin changes in one forward pass of SGLang: the positions of its tokens, and what is
drawn from its logits.

A branch's tokens are fed with the position ids of the trace's layout, not with their indices in the
row. They are drawn by the local engine's sampler, under the branch's own mask, penalties, settings
and uniform numbers, and a log-probability is that of the model's own distribution; so both engines
draw the same tokens from the same logits. SGLang's sampler still runs for plain rows, with the
switches that it would have without ours.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from sglang.srt.distributed import get_tp_group
from sglang.srt.runtime_context import get_parallel
from sglang.srt.sampling.sampling_params import TOP_K_ALL

from nprdsl.runtime.drawing.sampler import Draw, Sampler
from nprdsl.runtime.sglang.plugin.req_types import BranchReq
from nprdsl.runtime.sglang.plugin.trace_scheduler import DrawingRow, DrawnToken, TraceScheduler

_RowToken = tuple[int, DrawnToken]  # the row's index in the batch, and what is drawn behind it


# -- positions -------------------------------------------------------------------------------------


def shift_positions(traces: TraceScheduler, reqs: Sequence[Any], forward: Any) -> None:
    """Corrects `forward.positions` [T], whose rows belong to `reqs` in order.

    After a join a row is longer than the longest path through it, by the same amount for all that
    follows; so each row has one shift.
    """
    shifts, noted = [], False
    for req in reqs:
        run = traces.run_of(req)
        noted = noted or (run is not None and run.request.positions)
        shifts.append(
            run.position_shift(req) if run is not None and isinstance(req, BranchReq) else 0
        )
    if any(shifts):
        amounts = torch.tensor(shifts, dtype=forward.positions.dtype)
        amounts = amounts.to(forward.positions.device, non_blocking=True)
        if not forward.forward_mode.is_decode():
            amounts = torch.repeat_interleave(amounts, forward.extend_seq_lens.long())
        forward.positions = forward.positions - amounts
    if noted:
        _note_positions(traces, reqs, forward)


def _note_positions(traces: TraceScheduler, reqs: Sequence[Any], forward: Any) -> None:
    """Keeps the positions of rows whose requests ask for them."""
    lengths = [1] * len(reqs)
    if not forward.forward_mode.is_decode():
        lengths = forward.extend_seq_lens.tolist()
    start, positions = 0, forward.positions.tolist()
    for req, length in zip(reqs, lengths, strict=True):
        run = traces.run_of(req)
        if run is not None and run.request.positions:
            traces.fed_positions[req.rid] = positions[start : start + length]
        start += length


# -- draws -----------------------------------------------------------------------------------------


def draw_tokens(
    traces: TraceScheduler, original: Callable[..., Any], runner: Any, logits: Any, forward: Any
) -> Any:
    """Takes the place of SGLang's sampling for one forward pass; gives the tokens [rows]."""
    counts = [1] * len(forward.rids)
    if not forward.forward_mode.is_decode():
        counts = forward.extend_seq_lens_cpu
    rows = traces.drawing_rows(forward.rids, counts)
    raw = logits.next_token_logits[[index for index, _, _ in rows]].float() if rows else None
    with _switches_of_plain_rows(traces, forward):
        tokens = original(runner, logits, forward)
    drawn = [] if raw is None else _draw(traces, raw, rows)
    if get_parallel().tp_size > 1:
        drawn = _agree_with_first_rank(traces, forward.rids, drawn, tokens.device)
    for index, draw in drawn:
        traces.drawn.setdefault(forward.rids[index], []).append(draw)
    if drawn:
        indices = torch.tensor([index for index, _ in drawn], device=tokens.device)
        values = torch.tensor([draw[1] for _, draw in drawn], device=tokens.device)
        tokens[indices] = values.to(tokens.dtype)
    return tokens


def _draw(traces: TraceScheduler, raw: torch.Tensor, rows: list[DrawingRow]) -> list[_RowToken]:
    """Draws from `raw` float [rows, V]; a request that fails here draws nothing."""
    draws: list[Draw] = []
    kept: list[int] = []
    for i, (_, run, branch) in enumerate(rows):
        with traces.boundary(run):
            draws.append(run.draws.of(branch))
            kept.append(i)
    if not kept:
        return []
    sampler = _sampler(raw.shape[1], raw.device)
    found = sampler(raw[kept] if len(kept) < len(rows) else raw, draws)
    draws_of = zip([rows[i][2] for i in kept], *found, strict=True)
    return list(zip([rows[i][0] for i in kept], draws_of, strict=True))


@cache
def _sampler(width: int, device: torch.device) -> Sampler:
    return Sampler(width, device)


def _agree_with_first_rank(
    traces: TraceScheduler, rids: Sequence[str], drawn: Sequence[_RowToken], device: torch.device
) -> list[_RowToken]:
    """The tokens that the first rank drew: sums over a vocabulary may round differently on another
    GPU, and all ranks have to fork alike.

    Every rank must have the same branches in the same rows, and as much memory; a rank that has
    not raises RuntimeError, which ends the server.
    """
    pools, width = traces.pools, len(rids)
    state = [(rids[i], i, branch) for i, (branch, *_) in drawn]
    own = zlib.crc32(f"{state} {pools.free_slots} {pools.free_rows}".encode())
    tokens = [draw[1] for _, draw in drawn]
    first, *agreed = _of_first_rank([own, *tokens[:width]], 1 + width, device)
    if first != own:
        raise RuntimeError("the ranks of this server have different branches, or memory")
    if len(tokens) > width:
        agreed += _of_first_rank(tokens[width:], len(tokens) - width, device)
    pairs = zip(drawn, agreed, strict=False)
    return [(i, (draw[0], token, *draw[2:])) for (i, draw), token in pairs]


def _of_first_rank(values: list[int], width: int, device: torch.device) -> list[int]:
    """The first rank's values, `width` of them, filled up with 0."""
    sent = torch.zeros(width, dtype=torch.int64)
    sent[: len(values)] = torch.tensor(values)
    received: list[int] = get_tp_group().broadcast(sent.to(device), src=0).tolist()
    return received


@contextmanager
def _switches_of_plain_rows(traces: TraceScheduler, forward: Any) -> Iterator[None]:
    """SGLang chooses one way of sampling for a whole batch; ours must not influence the choice."""
    info, names = forward.sampling_info, ("is_all_greedy", "is_any_greedy", "need_top_k_sampling")
    before = [getattr(info, name) for name in names]
    plain = [i for i, rid in enumerate(forward.rids) if not traces.is_row(rid)]
    if plain and len(plain) < len(forward.rids):
        top_ks = info.top_ks.tolist()
        chosen = [top_ks[i] for i in plain]
        info.is_all_greedy = all(k <= 1 for k in chosen)
        info.is_any_greedy = any(k <= 1 for k in chosen)
        info.need_top_k_sampling = any(k != TOP_K_ALL for k in chosen)
    try:
        yield
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(info, name, value)
