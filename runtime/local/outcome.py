"""The result of a request that has ended, read from its machine.

Non-goals: anything while it runs (see `scheduler`).
"""

from __future__ import annotations

from nprdsl.events import EndReason
from nprdsl.machine import Machine
from nprdsl.runtime.local.requests import Request
from nprdsl.runtime.results import Result, Usage
from nprdsl.trace import TokenTrace
from nprdsl.violations import TraceError


def outcome(request: Request, machine: Machine) -> Result:
    """`trace` and `layout` are None for a request that was stopped midway."""
    finish = request.ended
    assert finish is not None, "the request has not ended"
    written = machine.written
    ids = tuple(w.token for w in written)
    trace = _trace(machine, finish)
    return Result(
        request_id=request.number,
        prompt_ids=machine.prompt,
        text=machine.bound.vocabulary.text(ids) if trace is None else trace.text,
        token_ids=ids,
        logprobs=tuple(w.logprob for w in written),
        trace=trace,
        layout=None if trace is None else trace.layout,
        answer="" if trace is None else _answer(trace),
        finish=finish,
        usage=Usage(
            prompt_tokens=len(machine.prompt),
            sampled_tokens=sum(w.sampled for w in written),
            forced_tokens=sum(not w.sampled for w in written),
            critical_path=_longest(request) if trace is None else trace.graph.critical_path,
            forwards=request.forwards,
            time_s=request.ended_s - request.submitted_s,
        ),
        error=request.error,
    )


def _trace(machine: Machine, finish: EndReason) -> TokenTrace | None:
    if finish in (EndReason.COMPLETED, EndReason.BUDGET):
        return machine.trace()
    try:
        return machine.trace()
    except TraceError:
        return None


def _answer(trace: TokenTrace) -> str:
    found = trace.find("answer")
    return found[-1].text.strip() if found else ""


def _longest(request: Request) -> int:
    """Tokens of the longest path so far, by positions."""
    log = request.log
    if not log.used:
        return 0
    return int(log.positions[: log.used].max()) + 1 - len(request.job.prompt)
