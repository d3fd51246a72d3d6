"""What the plugin does at the points of SGLang that it hooks, for requests with a schema only.

Every function stands beside the name of the function that it hooks, in `HOOKS`. Plain requests pass
through: each hook looks first whether there is any trace at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from sglang.srt.environ import envs
from sglang.srt.managers.io_struct import AbortReq
from sglang.srt.managers.schedule_batch import NextBatchPlan

from nprdsl.runtime.sglang.plugin.attach import Attached
from nprdsl.runtime.sglang.plugin.positions import shift
from nprdsl.runtime.sglang.plugin.rows import SAMPLE, BranchReq, TraceReq
from nprdsl.runtime.sglang.plugin.sampling import draw_rows
from nprdsl.runtime.sglang.plugin.trace_request import Stage
from nprdsl.runtime.sglang.protocol import KEY, KEY_ALONE

_attached: list[Attached] = []  # one, in a process that has a scheduler


def active() -> Attached | None:
    """The plugin's part of this process, if a request with a schema is on its way."""
    return _attached[0] if _attached and _attached[0].traces.busy else None


# -- requests come and go --------------------------------------------------------------------------


def scheduler_made(result: None, scheduler: Any, *args: Any, **kwargs: Any) -> None:
    """After Scheduler.__init__."""
    _attached[:] = [Attached(scheduler)]


def request_made(
    original: Callable[..., Any], scheduler: Any, received: Any, *args: Any, **kwargs: Any
) -> Any:
    """Around Scheduler._create_generation_req. Requests that only fill the prefix cache (SGLang
    sends one before n > 1 samples) are plain."""
    settings = received.sampling_params
    if settings.custom_params and KEY in settings.custom_params and settings.max_new_tokens != 0:
        return TraceReq(*args, **kwargs)
    return original(scheduler, received, *args, **kwargs)


def request_queued(
    original: Callable[..., Any], scheduler: Any, req: Any, *args: Any, **kwargs: Any
) -> Any:
    """Around Scheduler._add_request_to_queue."""
    if isinstance(req, TraceReq) and req.to_finish is None and not req.finished():
        attached = _attached[0]
        if not attached.entering(req):
            attached.submit(req)
            return None
    return original(scheduler, req, *args, **kwargs)


def abort_asked(scheduler: Any, received: Any) -> None:
    """Before Scheduler.abort_request."""
    attached = active()
    if attached is None:
        return
    for conductor in attached.traces.matching(received.rid, everything=received.abort_all):
        trace = conductor.trace
        if scheduler.chunked_req is trace:
            continue  # SGLang ends it between two chunks (see `end_told`)
        if conductor.stage is Stage.PROMPT:
            scheduler.waiting_queue = [req for req in scheduler.waiting_queue if req is not trace]
        if received.abort_message:
            trace.ended_by_server(received.abort_message, HTTPStatus.SERVICE_UNAVAILABLE)
        attached.traces.abort(conductor)


def end_told(
    original: Callable[..., Any], scheduler: Any, received: Any, req: Any, *args: Any
) -> Any:
    """Around Scheduler.send_abort_output, by which SGLang ends a request that is in no batch: a
    prompt between two chunks, or one for which its queue has no place. We tell the client."""
    conductor = _attached[0].traces.conductor(req) if isinstance(req, TraceReq) else None
    if conductor is None:
        return original(scheduler, received, req, *args)
    reason = received.finished_reason
    if reason:
        req.ended_by_server(reason["message"], reason["status_code"])
    _attached[0].traces.abort(conductor)
    return None


def timeouts_polled(result: list[Any], scheduler: Any) -> list[Any]:
    """After Scheduler._poll_timeout_aborts, which does not see requests that wait for memory. Those
    that run are found by it through their rows."""
    attached, seconds = active(), envs.SGLANG_REQ_WAITING_TIMEOUT.get()
    if attached is None or seconds <= 0:
        return result
    deadline, message = time.perf_counter() - seconds, "Request waiting timeout reached."
    late = [c for c in attached.traces.waiting if c.trace.queued_s < deadline]
    return [*result, *(AbortReq(rid=c.trace.rid, abort_message=message) for c in late)]


def pause_asked(scheduler: Any, received: Any) -> None:
    """Before Scheduler.pause_generation: `retract` frees all KV, and so do we."""
    attached = active()
    if attached is not None and received.mode == "retract":
        attached.traces.restart_all()
        attached.tidy(scheduler.running_batch, scheduler.last_batch, admit=False)


def idle_asked(result: bool, scheduler: Any, *args: Any, **kwargs: Any) -> bool:
    """After Scheduler.is_fully_idle."""
    attached = active()
    if attached is None:
        return result
    ignore_waiting = kwargs.get("ignore_waiting", args[1] if len(args) > 1 else False)
    return result and bool(ignore_waiting) and not attached.traces.holds_kv


def sample_named(original: Callable[..., Any], received: Any) -> Any:
    """Around GenerateReqInput.regenerate_rid, in the process that talks to clients. SGLang makes
    n > 1 samples of copies with names of their own; with a schema the name also tells which one it
    is, so that each has a seed of its own. The first copy only fills the prefix cache."""
    settings, before = received.sampling_params, received.rid
    named = original(received)
    custom = settings.get("custom_params") if isinstance(settings, dict) else None
    if custom and KEY in custom and isinstance(named, str):
        number = _copies[before] = _copies.get(before, -1) + 1
        if len(_copies) > _KEPT_COPIES:
            del _copies[next(iter(_copies))]
        received.rid = f"{named}{SAMPLE}{number}"
    return received.rid


_KEPT_COPIES: Final = 4096
_copies: dict[str, int] = {}  # by the name of the client's request


# -- a step of the loop ----------------------------------------------------------------------------


def work_asked(scheduler: Any, running_batch: Any, last_batch: Any) -> None:
    """Before Scheduler.get_next_batch_to_run."""
    attached = active()
    if attached is not None:
        attached.tidy(running_batch, last_batch)


def prompts_asked(original: Callable[..., Any], scheduler: Any, running_batch: Any) -> Any:
    """Around Scheduler.get_new_batch_prefill."""
    attached = active()
    if attached is None:
        return original(scheduler, running_batch)
    batch = attached.traces.extend(running_batch)
    if batch is not None:
        return NextBatchPlan(batch_to_run=batch, running_batch=running_batch)
    with attached.traces_first(running_batch):
        return original(scheduler, running_batch)


def forward_made(result: Any, cls: Any, batch: Any, *args: Any, **kwargs: Any) -> None:
    """After ForwardBatch.init_new."""
    attached = active()
    if attached is not None and result.positions is not None:
        shift(attached.traces, batch.reqs, result)


def sample_asked(original: Callable[..., Any], runner: Any, logits: Any, forward: Any) -> Any:
    """Around ModelRunner.sample."""
    attached = active()
    if attached is None or not forward.rids:
        return original(runner, logits, forward)
    return draw_rows(attached.traces, original, runner, logits, forward)


def step_done(result: Any, scheduler: Any, batch: Any, *args: Any, **kwargs: Any) -> None:
    """After Scheduler.process_batch_result."""
    attached = active()
    if attached is not None:
        attached.traces.complete(batch)


def output_asked(streamer: Any, reqs: list[Any], *args: Any, **kwargs: Any) -> Any:
    """Before SchedulerOutputStreamer.stream_output: SGLang sends no row of ours by itself."""
    if not _attached or _attached[0].sending:
        return None
    plain = [req for req in reqs if not _hidden(req)]
    return None if len(plain) == len(reqs) else ((streamer, plain, *args), kwargs)


def once_asked(result: bool, streamer: Any, key: str) -> bool:
    """After SchedulerOutputStreamer.is_request_level_customized_info_key: what is told of a request
    as a whole, and not token by token."""
    return result or key == KEY_ALONE


def _hidden(req: Any) -> bool:
    if isinstance(req, TraceReq):
        return _attached[0].traces.conductor(req) is not None
    return isinstance(req, BranchReq)


# -- memory ----------------------------------------------------------------------------------------


def adder_made(result: None, adder: Any, *args: Any, **kwargs: Any) -> None:
    """After PrefillAdder.__init__."""
    attached = active()
    if attached is None:
        return
    budget = adder.memory_budget
    if attached.only_traces:  # all that they can need is kept for them already
        budget.total_offset = budget.current_offset = -attached.traces.reserve.outstanding
    else:
        budget.total_offset += attached.traces.hidden
        budget.current_offset += attached.traces.hidden


def memory_asked(
    original: Callable[..., Any], batch: Any, selected_indices: list[int] | None = None
) -> bool:
    """Around ScheduleBatch.check_decode_mem."""
    attached = active()
    if attached is not None:
        wanted = batch.new_tokens_required_next_decode(selected_indices)
        chosen = range(len(batch.reqs)) if selected_indices is None else selected_indices
        reqs = [batch.reqs[i] for i in chosen]
        if not attached.traces.reserve.may_decode(wanted, reqs):
            return False
    return bool(original(batch, selected_indices))


def retraction_ordered(result: list[int], reqs: list[Any]) -> list[int]:
    """After ScheduleBatch._get_decode_retraction_order, which puts back from the end."""
    if active() is None:
        return result
    return sorted(result, key=lambda i: not isinstance(reqs[i], BranchReq))


def decode_asked(original: Callable[..., Any], scheduler: Any, batch: Any) -> Any:
    """Around Scheduler.update_running_batch: plain requests alone wait, rather than be aborted for
    want of memory that is promised to others. Where these wait for them, for rows, one is put
    back."""
    attached = active()
    if attached is not None and batch.reqs:
        wanted = batch.new_tokens_required_next_decode()
        plain = not any(isinstance(req, BranchReq) for req in batch.reqs)
        if plain and not attached.traces.reserve.may_decode(wanted, batch.reqs):
            if scheduler.chunked_req is None and not attached.traces.can_move():
                attached.put_back(batch)
            return None
    return original(scheduler, batch)


def owners_asked(result: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
    """After SchedulerInvariantChecker._requests_owning_rows: branches are counted apart."""
    return [req for req in result if not isinstance(req, BranchReq)]


def sizes_asked(result: tuple[int, int], *args: Any, **kwargs: Any) -> tuple[int, int]:
    """After SchedulerInvariantChecker._get_total_uncached_sizes."""
    attached = active()
    if attached is None:
        return result
    return result[0] + attached.traces.owned, result[1]


_SCHEDULER: Final = "sglang.srt.managers.scheduler.Scheduler"
_BATCH: Final = "sglang.srt.managers.schedule_batch.ScheduleBatch"
_PARTS: Final = "sglang.srt.managers.scheduler_components"
_STREAMER: Final = f"{_PARTS}.output_streamer.SchedulerOutputStreamer"
_CHECKER: Final = f"{_PARTS}.invariant_checker.SchedulerInvariantChecker"

# What is hooked, how, by what.
HOOKS: Final[tuple[tuple[str, str, Callable[..., Any]], ...]] = (
    ("sglang.srt.managers.io_struct.GenerateReqInput.regenerate_rid", "around", sample_named),
    (f"{_SCHEDULER}.__init__", "after", scheduler_made),
    (f"{_SCHEDULER}._create_generation_req", "around", request_made),
    (f"{_SCHEDULER}._add_request_to_queue", "around", request_queued),
    (f"{_SCHEDULER}.abort_request", "before", abort_asked),
    (f"{_SCHEDULER}.send_abort_output", "around", end_told),
    (f"{_SCHEDULER}._poll_timeout_aborts", "after", timeouts_polled),
    (f"{_SCHEDULER}.pause_generation", "before", pause_asked),
    (f"{_SCHEDULER}.is_fully_idle", "after", idle_asked),
    (f"{_SCHEDULER}.get_next_batch_to_run", "before", work_asked),
    (f"{_SCHEDULER}.get_new_batch_prefill", "around", prompts_asked),
    (f"{_SCHEDULER}.update_running_batch", "around", decode_asked),
    (f"{_SCHEDULER}.process_batch_result", "after", step_done),
    ("sglang.srt.model_executor.forward_batch_info.ForwardBatch.init_new", "after", forward_made),
    ("sglang.srt.model_executor.model_runner.ModelRunner.sample", "around", sample_asked),
    (f"{_STREAMER}.stream_output", "before", output_asked),
    (f"{_STREAMER}.is_request_level_customized_info_key", "after", once_asked),
    ("sglang.srt.managers.schedule_policy.PrefillAdder.__init__", "after", adder_made),
    (f"{_BATCH}.check_decode_mem", "around", memory_asked),
    (f"{_BATCH}._get_decode_retraction_order", "after", retraction_ordered),
    (f"{_CHECKER}._requests_owning_rows", "after", owners_asked),
    (f"{_CHECKER}._get_total_uncached_sizes", "after", sizes_asked),
)
