"""Connects a `TraceScheduler` to one of SGLang's schedulers: builds what it needs from the
scheduler's parts, and refuses servers and requests that cannot run schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from http import HTTPStatus
from typing import Any, Final

from sglang.srt.managers.schedule_batch import ScheduleBatch

from nprdsl.runtime.errors import ErrorBoundary
from nprdsl.runtime.http.refusals import RefusedError, as_refusal, refusing
from nprdsl.runtime.http.serving_settings import ServingSettings
from nprdsl.runtime.sglang.plugin.kv_pools import KVPools
from nprdsl.runtime.sglang.plugin.req_types import BranchReq, TraceReq
from nprdsl.runtime.sglang.plugin.trace_run import RunStage, TraceRun
from nprdsl.runtime.sglang.plugin.trace_scheduler import TraceScheduler
from nprdsl.runtime.sglang.plugin.turns import RequestKind, Turns
from nprdsl.runtime.sglang.preparation import SchemaLibrary
from nprdsl.runtime.sglang.protocol import KEY_GRAMMAR, fork_request
from nprdsl.tokens.vocabulary import Vocabulary

_OVERLAP: Final = (
    "the overlap scheduler is on: it chooses a step before the tokens of the last one are known, "
    "and they decide which branches run; start the server with --disable-overlap-schedule (a step "
    "then waits until the one before it was worked up: what that costs is in docs/serving.md)"
)
_GUESSED: Final = 4096  # SGLang's CLIP_MAX_NEW_TOKENS


class SchedulerPlugin:
    """The plugin's state in one scheduler process.

    `refusal`: why the server cannot run schemas, "" if it can. `sending`: the output that SGLang
    sends at the moment is that of traces. `only_traces`: the prompts that SGLang chooses from at
    the moment are those of traces.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.sending = False
        self.only_traces = False
        self.refusal = server_refusal(scheduler)
        self.traces = TraceScheduler(
            KVPools(
                scheduler.req_to_token_pool,
                scheduler.token_to_kv_pool_allocator,
                scheduler.tree_cache,
            ),
            turns=Turns(ServingSettings.of_environment().trace_share),
            max_rows=scheduler.chunked_prefill_size or scheduler.max_prefill_tokens,
            make_batch=self._make_batch,
            queue=self._queue,
            unqueue=self._unqueue,
            send=self._send,
        )

    @cached_property
    def library(self) -> SchemaLibrary:
        """Made when the first schema comes: that reads the whole vocabulary."""
        vocabulary = Vocabulary.from_tokenizer(self.scheduler.tokenizer)
        return SchemaLibrary(vocabulary, self.scheduler.model_config.vocab_size)

    def submit(self, trace: TraceReq) -> None:
        """Takes a client's request in, or answers with what is wrong with it."""
        limit, waiting = self.scheduler.max_queued_requests, len(self.traces.waiting)
        if limit is not None and len(self.scheduler.waiting_queue) + waiting >= limit:
            trace.end_by_server("The request queue is full.", HTTPStatus.SERVICE_UNAVAILABLE)
            self._send([trace])
            return
        with ErrorBoundary(lambda error: self._turn_down(trace, error)):
            self.traces.submit(self._prepare(trace))

    def _turn_down(self, trace: TraceReq, error: Exception) -> None:
        """Answers a request that could not be prepared."""
        refusal = as_refusal(error, trace.wanted.custom_params)
        if refusal.status is HTTPStatus.BAD_REQUEST:
            trace.refuse(str(refusal))
        else:
            trace.end_by_server(str(refusal), refusal.status)
        self._send([trace])

    def _prepare(self, trace: TraceReq) -> TraceRun:
        """Raises RefusedError."""
        if self.refusal:
            raise RefusedError(f"this server cannot run schemas: {self.refusal}")
        with refusing():
            request = fork_request(trace.wanted.custom_params)
        packed = trace.wanted.custom_params.get(KEY_GRAMMAR)
        if request is None or not isinstance(packed, str):
            raise RefusedError("the schema was not read by this server's HTTP process")
        prepared = self.library.prepare(
            request,
            packed,
            trace.origin_input_ids.tolist(),
            positions=most_positions(self.scheduler),
            capacity=int(self.scheduler.max_total_num_tokens),
        )
        return TraceRun(trace, prepared)

    def is_let_in(self, trace: TraceReq) -> bool:
        """Whether the request has its memory, so that SGLang may compute its prompt."""
        run = self.traces.run_of(trace)
        return run is not None and run.stage is RunStage.PROMPT

    def tidy(self, running: Any, last: Any, *, admit: bool = True) -> None:
        """Before SGLang looks for work: lets requests grow and in, and cleans SGLang's batches."""
        chunked = self.scheduler.chunked_req
        plain = 0  # slots that the rest of a plain prompt needs
        if chunked is not None and not isinstance(chunked, TraceReq):
            plain = len(chunked.full_untruncated_fill_ids) - chunked.prefix_len
        if admit:
            waiting = [_likely_slots(req) for req in self._plain_waiting()]
            self.traces.admit(max(0, plain), waiting, lambda: self.retract_one(running))
        self.traces.tidy([last] if last is running else [last, running])

    def _plain_waiting(self) -> list[Any]:
        return [req for req in self.scheduler.waiting_queue if not isinstance(req, TraceReq)]

    def choose_prompts(self, original: Callable[..., Any], running: Any) -> Any:
        """Lets SGLang choose prompts for a batch, traces before plain ones (see `_traces_first`).
        What it takes of plain requests counts as their turn."""
        traces, plain = self.traces, self._plain_waiting()
        if plain and traces.turns.due is RequestKind.PLAIN:
            running.batch_is_full = False  # it was, of what a trace may have given back
        with self._traces_first(running):
            chosen = original(self.scheduler, running)
        left = {id(req) for req in self.scheduler.waiting_queue}
        for req in plain:
            if id(req) not in left:
                traces.turns.let_in(RequestKind.PLAIN, _likely_slots(req))
        return chosen

    @contextmanager
    def _traces_first(self, running: Any) -> Iterator[None]:
        """While SGLang chooses prompts: traces that were let in hold memory that others wait for,
        so neither plain requests in the queue nor a full batch may keep them back."""
        scheduler = self.scheduler
        traces = [req for req in scheduler.waiting_queue if isinstance(req, TraceReq)]
        if not traces:
            yield
            return
        plain = [req for req in scheduler.waiting_queue if not isinstance(req, TraceReq)]
        scheduler.waiting_queue, self.only_traces = traces, True
        running.batch_is_full = False
        try:
            yield
        finally:
            scheduler.waiting_queue, self.only_traces = scheduler.waiting_queue + plain, False

    def retract_one(self, running: Any) -> bool:
        """Takes one plain request's memory and row, if there is one; SGLang computes it again
        later."""
        running.filter_batch()  # who has ended holds nothing any more
        running.batch_is_full = False
        if all(isinstance(req, BranchReq) for req in running.reqs):
            return False
        order = running._get_decode_retraction_order(running.reqs)
        last = order.pop()
        req = running.reqs[last]
        running.release_req(last, len(order))
        running.filter_batch(keep_indices=order)
        self.scheduler._add_request_to_queue(req, is_retracted=True)
        return True

    # -- what the trace scheduler calls ------------------------------------------------------------

    def _queue(self, trace: TraceReq) -> None:
        """Puts a request into SGLang's queue, even if that is full: it was counted when it came."""
        limit, self.scheduler.max_queued_requests = self.scheduler.max_queued_requests, None
        try:
            self.scheduler._add_request_to_queue(trace)
        finally:
            self.scheduler.max_queued_requests = limit

    def _unqueue(self, trace: TraceReq) -> None:
        queue = self.scheduler.waiting_queue
        self.scheduler.waiting_queue = [req for req in queue if req is not trace]

    def _make_batch(self, reqs: list[BranchReq]) -> Any:
        scheduler = self.scheduler
        batch = ScheduleBatch.init_new(
            reqs,
            scheduler.req_to_token_pool,
            scheduler.token_to_kv_pool_allocator,
            scheduler.tree_cache,
            scheduler.model_config,
            scheduler.enable_overlap,
            scheduler.spec_algorithm,
        )
        batch.prepare_for_extend()
        return batch

    def _send(self, traces: list[TraceReq]) -> None:
        for trace in traces:
            trace.prepare_output()
        self.sending = True
        try:
            logprobs = any(trace.return_logprob for trace in traces)
            self.scheduler.output_streamer.stream_output(traces, logprobs)
        finally:
            self.sending = False


def _likely_slots(req: Any) -> int:
    """What a plain request takes, as SGLang's admission guesses it too: prompt and output, of which
    no more than some thousand tokens count."""
    most = req.sampling_params.max_new_tokens
    rest = _GUESSED if most is None else max(0, min(most - len(req.output_ids), _GUESSED))
    return len(req.origin_input_ids) + len(req.output_ids) + rest


def most_positions(scheduler: Any) -> int:
    """The most tokens of one sequence: what the model and a row of the pool can hold."""
    row_length = scheduler.req_to_token_pool.req_to_token.shape[1]
    return min(int(scheduler.model_config.context_len), int(row_length))


def server_refusal(scheduler: Any) -> str:
    """Why this server cannot run schemas; "" if it can."""
    server, model = scheduler.server_args, scheduler.model_config
    reasons = {
        _OVERLAP: scheduler.enable_overlap,
        "its tokenizer is off (--skip-tokenizer-init)": scheduler.tokenizer is None,
        "it generates no text": not scheduler.is_generation,
        "KV pages hold several tokens; start it with --page-size 1": scheduler.page_size != 1,
        "the model attends to a sliding window, which SGLang counts in slots, not in positions": (
            scheduler.is_hybrid_swa or scheduler.sliding_window_size is not None
        ),
        "the model keeps recurrent state, which cannot be merged": scheduler.is_hybrid_ssm,
        "the model has positions in several dimensions": model.model_is_mrope,
        "the model has an encoder": model.is_encoder_decoder,
        "speculative decoding is on": not scheduler.spec_algorithm.is_none(),
        "prefill and decode are on different servers": (
            server.disaggregation_mode not in (None, "null")
        ),
        "pipeline parallelism is on": server.pp_size > 1,
        "attention is data-parallel (--enable-dp-attention)": server.enable_dp_attention,
        "requests of low priority are preempted": scheduler.enable_priority_preemption,
        "it is a diffusion model": scheduler.dllm_config is not None,
        "hierarchical cache or HiSparse is on": (
            scheduler.enable_hierarchical_cache or scheduler.enable_hisparse
        ),
    }
    return "; ".join(reason for reason, applies in reasons.items() if applies)
