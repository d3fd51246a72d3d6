"""The result of a request that has ended, the same for every engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nprdsl.machine.branch_state import Written
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.runtime.results import Result, Usage
from nprdsl.structure.events import EndReason
from nprdsl.structure.violations import TraceError
from nprdsl.trace.trace import TokenTrace


@dataclass(frozen=True, slots=True)
class Ending:
    """How a request came to its end. `longest` are the tokens on the longest path, for a request
    that was stopped midway; `time_s` is counted from its submission."""

    request_id: int
    finish: EndReason
    forwards: int
    time_s: float
    longest: int
    error: str = ""


def outcome(
    bound: BoundSchema, prompt: tuple[int, ...], written: Sequence[Written], ending: Ending
) -> Result:
    """`trace` and `layout` are None for a request that was stopped midway."""
    ids = tuple(w.token for w in written)
    trace = _trace(bound, prompt, written, ending.finish)
    return Result(
        request_id=ending.request_id,
        prompt_ids=prompt,
        text=bound.vocabulary.text(ids) if trace is None else trace.text,
        token_ids=ids,
        logprobs=tuple(w.logprob for w in written),
        trace=trace,
        layout=None if trace is None else trace.layout,
        answer="" if trace is None else answer_of(trace),
        finish=ending.finish,
        usage=Usage(
            prompt_tokens=len(prompt),
            sampled_tokens=sum(w.sampled for w in written),
            forced_tokens=sum(not w.sampled for w in written),
            critical_path=ending.longest if trace is None else trace.graph.critical_path,
            forwards=ending.forwards,
            time_s=ending.time_s,
        ),
        error=ending.error,
    )


def answer_of(trace: TokenTrace) -> str:
    """The text of the last rule `answer`, "" where there is none."""
    found = trace.find("answer")
    return found[-1].text.strip() if found else ""


def _trace(
    bound: BoundSchema, prompt: tuple[int, ...], written: Sequence[Written], finish: EndReason
) -> TokenTrace | None:
    ids = (*prompt, *(w.token for w in written))
    try:
        parsed = bound.parse(ids, prompt=len(prompt))
    except TraceError:
        if finish in (EndReason.COMPLETED, EndReason.BUDGET):
            raise  # every trace that ends is legal
        return None
    sampled = np.zeros(len(ids), np.uint8)
    sampled[len(prompt) :] = [w.sampled for w in written]
    return replace(parsed, sampled=sampled)
