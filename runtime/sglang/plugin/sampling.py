"""Drawing the tokens of branches, with the local engine's own sampler.

Masks, penalties, settings and uniform numbers are those of the branch, and a log-probability is
that of the model's own distribution; so both engines draw the same tokens from the same logits.
SGLang's sampler runs as if the branches were not there: its switches are those of the plain rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from sglang.srt.distributed import get_tp_group
from sglang.srt.runtime_context import get_parallel
from sglang.srt.sampling.sampling_params import TOP_K_ALL

from nprdsl.runtime.drawing.sampler import Draw, Sampler
from nprdsl.runtime.sglang.plugin.trace_request import Conductor
from nprdsl.runtime.sglang.plugin.trace_scheduler import TraceScheduler

_Drawn = tuple[int, int, float]  # the row in the batch, its token, the log-probability

_samplers: dict[tuple[int, torch.device], Sampler] = {}


def draw_rows(
    traces: TraceScheduler, original: Callable[..., Any], runner: Any, logits: Any, forward: Any
) -> Any:
    """Around SGLang's sampling of one forward; gives the tokens `[rows]`."""
    counts = [1] * len(forward.rids)
    if not forward.forward_mode.is_decode():
        counts = forward.extend_seq_lens_cpu
    rows = traces.drawing(forward.rids, counts)
    raw = logits.next_token_logits[[index for index, _, _ in rows]].float() if rows else None
    with _switches_of_plain_rows(traces, forward):
        tokens = original(runner, logits, forward)
    drawn = [] if raw is None else _draw(traces, raw, rows)
    if get_parallel().tp_size > 1:
        drawn = _agreed(traces, forward.rids, drawn, tokens.device)
    for at, token, logprob in drawn:
        traces.drawn[forward.rids[at]] = token, logprob
    if drawn:
        index = torch.tensor([at for at, _, _ in drawn], device=tokens.device)
        values = torch.tensor([token for _, token, _ in drawn], device=tokens.device)
        tokens[index] = values.to(tokens.dtype)
    return tokens


def _draw(
    traces: TraceScheduler,
    raw: torch.Tensor,
    rows: list[tuple[int, Conductor, int]],
) -> list[_Drawn]:
    """Draws a token for each of these rows whose request does not fail."""
    draws: list[Draw] = []
    kept: list[int] = []
    for at, (_, conductor, branch) in enumerate(rows):
        with traces.boundary(conductor):
            draws.append(conductor.draw(branch))
            kept.append(at)
    if not kept:
        return []
    key = raw.shape[1], raw.device
    sampler = _samplers.get(key)
    if sampler is None:
        sampler = _samplers[key] = Sampler(*key)
    tokens, logprobs = sampler(raw[kept] if len(kept) < len(rows) else raw, draws)
    places = [rows[at][0] for at in kept]
    return list(zip(places, tokens, logprobs, strict=True))


def _agreed(
    traces: TraceScheduler, rids: Sequence[str], drawn: Sequence[_Drawn], device: torch.device
) -> list[_Drawn]:
    """The first rank's tokens: sums over a vocabulary may round otherwise on another GPU.

    Every rank must have the same branches in the same rows, and as much memory; a rank that has
    not raises RuntimeError, which ends the server.
    """
    pools = traces.pools
    state = f"{[(rids[at], at) for at, _, _ in drawn]} {pools.free_slots} {pools.free_rows}"
    own = zlib.crc32(state.encode())
    sent = torch.zeros(1 + len(rids), dtype=torch.int64)
    sent[: 1 + len(drawn)] = torch.tensor([own, *(token for _, token, _ in drawn)])
    first, *tokens = get_tp_group().broadcast(sent.to(device), src=0).tolist()
    if first != own:
        raise RuntimeError("the ranks of this server have different branches, or memory")
    pairs = zip(drawn, tokens, strict=False)
    return [(at, token, logprob) for (at, _, logprob), token in pairs]


@contextmanager
def _switches_of_plain_rows(traces: TraceScheduler, forward: Any) -> Iterator[None]:
    """SGLang chooses its way of sampling for a whole batch; the rows of branches do not count."""
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
