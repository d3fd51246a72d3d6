"""What the plugin does at the points of SGLang's scheduler that it hooks.

Plain requests pass through: most hooks look first whether any request for a trace is there
(`_while_busy`). Imported in every process of a server; the state is in those with a scheduler.

A BEFORE hook takes the arguments of the hooked function and gives new ones, or None to keep them.
An AFTER hook takes its result too, first, and gives a new one, or None to keep it. An AROUND hook
takes the hooked function first and calls it itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

from sglang.srt import runtime_context
from sglang.srt.environ import envs
from sglang.srt.managers.io_struct import AbortReq
from sglang.srt.managers.schedule_batch import NextBatchPlan
from sglang.srt.plugins.hook_registry import HookType, plugin_hook

from nprdsl.runtime.engine import own_sampling
from nprdsl.runtime.metrics import prometheus_metrics
from nprdsl.runtime.sglang.plugin.forward_pass import draw_tokens, shift_positions
from nprdsl.runtime.sglang.plugin.observed import observe, observer
from nprdsl.runtime.sglang.plugin.req_types import BranchReq, TraceReq
from nprdsl.runtime.sglang.plugin.scheduler_plugin import (
    SchedulerPlugin,
    most_positions,
    server_refusal,
)
from nprdsl.runtime.sglang.protocol import KEY, KEY_ALONE, SAMPLE_MARK, ServerInfo, wants_trace

Function = Callable[..., Any]

_SCHEDULER: Final = "sglang.srt.managers.scheduler.Scheduler"
_CONTROLLER: Final = "sglang.srt.managers.data_parallel_controller.DataParallelController"
_BATCH: Final = "sglang.srt.managers.schedule_batch.ScheduleBatch"
_PARTS: Final = "sglang.srt.managers.scheduler_components"
_STREAMER: Final = f"{_PARTS}.output_streamer.SchedulerOutputStreamer"
_CHECKER: Final = f"{_PARTS}.invariant_checker.SchedulerInvariantChecker"
_MODEL: Final = "sglang.srt.model_executor"
_COPIES_KEPT: Final = 4096

_plugins: list[SchedulerPlugin] = []  # one, in a process with a scheduler
_copies: dict[str, int] = {}  # how many copies a request with n > 1 has, by its rid


def _while_busy(target: str, kind: HookType) -> Callable[[Function], Function]:
    """As SGLang's `plugin_hook`, for functions that take the plugin before their other arguments
    and are called only while there are requests for traces."""

    def register(function: Function) -> Function:
        @wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if _plugins and _plugins[0].traces.busy:
                return function(_plugins[0], *args, **kwargs)
            return args[0](*args[1:], **kwargs) if kind is HookType.AROUND else None

        plugin_hook(target, kind)(guarded)
        return function

    return register


# -- the server ------------------------------------------------------------------------------------


@plugin_hook(f"{_SCHEDULER}.__init__", HookType.AFTER)
def make_plugin(result: None, scheduler: Any, *args: Any, **kwargs: Any) -> None:
    _plugins[:] = [SchedulerPlugin(scheduler)]
    if scheduler.metrics_reporter.current_scheduler_metrics_enabled:
        observe(prometheus_metrics())


@plugin_hook(f"{_SCHEDULER}.get_init_info", HookType.AFTER)
def add_server_info(result: dict[str, Any], scheduler: Any) -> dict[str, Any]:
    """The scheduler's process tells the others what is in `/server_info`."""
    model = scheduler.model_config
    generation_config = model.hf_generation_config
    info = ServerInfo(
        nprdsl=version("nprdsl"),
        model=runtime_context.get_serving().served_model_name,
        positions=most_positions(scheduler),
        capacity=int(scheduler.max_total_num_tokens),
        outputs=model.vocab_size,
        dtype=str(model.dtype).removeprefix("torch."),
        sampling=own_sampling({} if generation_config is None else generation_config.to_dict()),
        refusal=server_refusal(scheduler),
    )
    return {**result, KEY: info.model_dump(mode="json")}


@plugin_hook(f"{_CONTROLLER}.get_init_info", HookType.AFTER)
def add_info_of_first_replica(result: dict[str, Any], controller: Any) -> dict[str, Any]:
    return {**result, KEY: controller._scheduler_init_infos[0][KEY]}


# -- requests come and go --------------------------------------------------------------------------


@plugin_hook("sglang.srt.managers.io_struct.GenerateReqInput.regenerate_rid", HookType.AROUND)
def number_samples(original: Function, received: Any) -> Any:
    """In the process that talks to clients: SGLang makes n > 1 samples by copies of a request under
    new names. If it has a schema, the name also numbers the sample, so that each gets a seed of its
    own. The first copy only fills the prefix cache."""
    params, before = received.sampling_params, received.rid
    rid = original(received)
    custom = params.get("custom_params") if isinstance(params, dict) else None
    if wants_trace(custom) and isinstance(rid, str):
        copies = 1 + params.get("n", 1)  # of one request; a later one may have the same name
        number = _copies[before] = (_copies.get(before, -1) + 1) % copies
        if len(_copies) > _COPIES_KEPT:
            del _copies[next(iter(_copies))]
        received.rid = f"{rid}{SAMPLE_MARK}{number}"
    return received.rid


@plugin_hook(f"{_SCHEDULER}._create_generation_req", HookType.AROUND)
def make_trace_req(
    original: Function, scheduler: Any, received: Any, *args: Any, **kwargs: Any
) -> Any:
    """Requests that only fill the prefix cache (SGLang sends one before n > 1 samples) are
    plain."""
    params = received.sampling_params
    if wants_trace(params.custom_params) and params.max_new_tokens != 0:
        return TraceReq(*args, **kwargs)
    return original(scheduler, received, *args, **kwargs)


@plugin_hook(f"{_SCHEDULER}._add_request_to_queue", HookType.AROUND)
def take_request(original: Function, scheduler: Any, req: Any, *args: Any, **kwargs: Any) -> Any:
    """A request for a trace comes to us first, and into SGLang's queue once it has its memory."""
    if isinstance(req, TraceReq) and req.to_finish is None and not req.finished():
        plugin = _plugins[0]
        if not plugin.is_let_in(req):
            plugin.submit(req)
            return None
    return original(scheduler, req, *args, **kwargs)


@plugin_hook(f"{_SCHEDULER}.abort_request", HookType.AROUND)
def abort_one(original: Function, scheduler: Any, received: Any) -> Any:
    """SGLang ends every request whose name begins with the given one. Clients choose names: who
    aborted a request `a` of its own would end those of others. Here it ends the one."""
    others = {} if received.abort_all else _others(received.rid, scheduler)
    for req in others:
        req.rid = ""
    try:
        return original(scheduler, received)
    finally:
        for req, name in others.items():
            req.rid = name


def _others(rid: str, scheduler: Any) -> dict[Any, str]:
    """The requests, with their names, that SGLang would end along with that of the name."""
    queued = {*scheduler.waiting_queue, *scheduler.grammar_manager.grammar_queue}
    known = queued | scheduler.collect_inflight_reqs() | {scheduler.chunked_req}
    return {
        req: req.rid
        for req in known - {None}
        if req.rid.startswith(rid)
        and rid != (req.trace.rid if isinstance(req, BranchReq) else req.rid)
    }


@_while_busy(f"{_SCHEDULER}.abort_request", HookType.BEFORE)
def abort_traces(plugin: SchedulerPlugin, scheduler: Any, received: Any) -> None:
    for run in plugin.traces.matching(received.rid, everything=received.abort_all):
        trace = run.trace
        if scheduler.chunked_req is trace:
            continue  # SGLang ends it between two chunks (see `end_trace`)
        if received.abort_message:
            trace.end_by_server(received.abort_message, HTTPStatus.SERVICE_UNAVAILABLE)
        plugin.traces.abort(run)


@plugin_hook(f"{_SCHEDULER}.send_abort_output", HookType.AROUND)
def end_trace(original: Function, scheduler: Any, received: Any, req: Any, *args: Any) -> Any:
    """By this SGLang ends a request that is in no batch: a prompt between two chunks, or one for
    which its queue has no place. For a trace the plugin sends the end, with its report."""
    run = _plugins[0].traces.run_of(req) if isinstance(req, TraceReq) else None
    if run is None:
        return original(scheduler, received, req, *args)
    reason = received.finished_reason
    if reason:
        req.end_by_server(reason["message"], reason["status_code"])
    _plugins[0].traces.abort(run)
    return None


@_while_busy(f"{_SCHEDULER}._poll_timeout_aborts", HookType.AFTER)
def abort_overdue(plugin: SchedulerPlugin, result: list[Any], scheduler: Any) -> list[Any]:
    """SGLang does not see requests that wait for memory; those that run it finds by their rows."""
    seconds = envs.SGLANG_REQ_WAITING_TIMEOUT.get()
    if seconds <= 0:
        return result
    deadline, message = time.perf_counter() - seconds, "Request waiting timeout reached."
    waiting = [run for run in plugin.traces.waiting if not run.begun]
    late = [run for run in waiting if run.trace.queued_s < deadline]
    return [*result, *(AbortReq(rid=run.trace.rid, abort_message=message) for run in late)]


@_while_busy(f"{_SCHEDULER}.pause_generation", HookType.BEFORE)
def free_for_pause(plugin: SchedulerPlugin, scheduler: Any, received: Any) -> None:
    """A pause of mode `retract` frees all KV."""
    if received.mode == "retract":
        plugin.traces.restart_all()
        plugin.tidy(scheduler.running_batch, scheduler.last_batch, admit=False)


@_while_busy(f"{_SCHEDULER}.is_fully_idle", HookType.AFTER)
def is_idle(
    plugin: SchedulerPlugin, result: bool, scheduler: Any, *args: Any, **kwargs: Any
) -> bool:
    ignore_waiting = kwargs.get("ignore_waiting", args[1] if len(args) > 1 else False)
    return result and bool(ignore_waiting) and not plugin.traces.holds_kv


# -- a step of the scheduling loop -----------------------------------------------------------------


@_while_busy(f"{_SCHEDULER}.get_next_batch_to_run", HookType.BEFORE)
def tidy_batches(
    plugin: SchedulerPlugin, scheduler: Any, running_batch: Any, last_batch: Any
) -> None:
    plugin.tidy(running_batch, last_batch)
    traces, admitted = plugin.traces, plugin.traces.reservations.admitted
    live = sum(len(run.machine.live) for run in admitted)
    observer().load(waiting=len(traces.waiting), running=len(admitted), branches=live)


@_while_busy(f"{_SCHEDULER}.get_new_batch_prefill", HookType.AROUND)
def extend_branches(
    plugin: SchedulerPlugin, original: Function, scheduler: Any, running_batch: Any
) -> Any:
    batch = plugin.traces.extend(running_batch)
    if batch is not None:
        return NextBatchPlan(batch_to_run=batch, running_batch=running_batch)
    return plugin.choose_prompts(original, running_batch)


@_while_busy(f"{_SCHEDULER}.update_running_batch", HookType.AROUND)
def hold_back_plain_requests(
    plugin: SchedulerPlugin, original: Function, scheduler: Any, batch: Any
) -> Any:
    """Plain requests wait if all memory is reserved; SGLang would abort them. If branches wait for
    rows meanwhile, one plain request is retracted."""
    if batch.reqs and not any(isinstance(req, BranchReq) for req in batch.reqs):
        needed = batch.new_tokens_required_next_decode()
        if not plugin.traces.reservations.may_decode(needed):
            if scheduler.chunked_req is None and not plugin.traces.can_move():
                plugin.retract_one(batch)
            return None
    return original(scheduler, batch)


@_while_busy(f"{_MODEL}.forward_batch_info.ForwardBatch.init_new", HookType.AFTER)
def correct_positions(
    plugin: SchedulerPlugin, result: Any, cls: Any, batch: Any, *args: Any, **kwargs: Any
) -> None:
    if result.positions is not None:
        shift_positions(plugin.traces, batch.reqs, result)


@_while_busy(f"{_MODEL}.model_runner.ModelRunner.sample", HookType.AROUND)
def sample(
    plugin: SchedulerPlugin, original: Function, runner: Any, logits: Any, forward: Any
) -> Any:
    if not forward.rids:
        return original(runner, logits, forward)
    return draw_tokens(plugin.traces, original, runner, logits, forward)


@_while_busy(f"{_SCHEDULER}.process_batch_result", HookType.AFTER)
def complete_step(
    plugin: SchedulerPlugin, result: Any, scheduler: Any, batch: Any, *args: Any, **kwargs: Any
) -> None:
    plugin.traces.complete(batch)


@plugin_hook(f"{_STREAMER}.stream_output", HookType.BEFORE)
def hide_rows(streamer: Any, reqs: list[Any], *args: Any, **kwargs: Any) -> Any:
    """SGLang sends the output of its own rows only; that of traces is sent by the plugin."""
    if not _plugins or _plugins[0].sending:
        return None
    runs = _plugins[0].traces
    shown = [r for r in reqs if not isinstance(r, BranchReq) and runs.run_of(r) is None]
    return None if len(shown) == len(reqs) else ((streamer, shown, *args), kwargs)


@plugin_hook(f"{_STREAMER}.is_request_level_customized_info_key", HookType.AFTER)
def is_of_whole_request(result: bool, streamer: Any, key: str) -> bool:
    """A report without a token does not belong to one of the tokens."""
    return result or key == KEY_ALONE


# -- memory ----------------------------------------------------------------------------------------


@_while_busy("sglang.srt.managers.schedule_policy.PrefillAdder.__init__", HookType.AFTER)
def hide_reserved_slots(
    plugin: SchedulerPlugin, result: None, adder: Any, *args: Any, **kwargs: Any
) -> None:
    budget, traces = adder.memory_budget, plugin.traces
    if plugin.only_traces:  # all that they can need is reserved for them already
        budget.total_offset = budget.current_offset = -traces.reservations.outstanding
    else:
        budget.total_offset += traces.hidden
        budget.current_offset += traces.hidden


@_while_busy(f"{_BATCH}.check_decode_mem", HookType.AROUND)
def has_memory_to_decode(
    plugin: SchedulerPlugin,
    original: Function,
    batch: Any,
    selected_indices: list[int] | None = None,
) -> bool:
    needed = batch.new_tokens_required_next_decode(selected_indices)
    indices = range(len(batch.reqs)) if selected_indices is None else selected_indices
    branches = sum(isinstance(batch.reqs[i], BranchReq) for i in indices)
    may_decode = plugin.traces.reservations.may_decode(needed - branches)
    return may_decode and bool(original(batch, selected_indices))


@_while_busy(f"{_BATCH}._get_decode_retraction_order", HookType.AFTER)
def retract_branches_last(plugin: SchedulerPlugin, result: list[int], reqs: list[Any]) -> list[int]:
    """SGLang retracts from the end of this order."""
    return sorted(result, key=lambda i: not isinstance(reqs[i], BranchReq))


@plugin_hook(f"{_CHECKER}._requests_owning_rows", HookType.AFTER)
def leave_out_branches(result: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
    """SGLang's check for leaks: the slots of branches are counted by the next hook."""
    return [req for req in result if not isinstance(req, BranchReq)]


@_while_busy(f"{_CHECKER}._get_total_uncached_sizes", HookType.AFTER)
def add_slots_of_branches(
    plugin: SchedulerPlugin, result: tuple[int, int], *args: Any, **kwargs: Any
) -> tuple[int, int]:
    return result[0] + plugin.traces.owned, result[1]
