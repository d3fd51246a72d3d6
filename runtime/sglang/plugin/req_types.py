"""The two subclasses of SGLang's `Req` that put traces into its scheduler.

A `TraceReq` is what a client sent. It takes its prompt through SGLang's own admission, chunked
prefill and prefix cache, then leaves the batch and only carries the output that is sent back. A
`BranchReq` stands for one branch while that occupies a row of the batch; SGLang neither finishes,
streams nor caches it. Imported in the scheduler's process only.
"""

from __future__ import annotations

import copy
import time
from array import array
from functools import cache
from http import HTTPStatus
from typing import Any

from sglang.srt.managers.schedule_batch import (
    FINISH_ABORT,
    FINISH_LENGTH,
    FINISH_MATCHED_TOKEN,
    Req,
)
from sglang.srt.sampling.sampling_params import SamplingParams

from nprdsl.runtime.sglang.protocol import BRANCH_MARK, SAMPLE_MARK
from nprdsl.structure.events import EndReason


class TraceReq(Req):  # type: ignore[misc]
    """A client's request for a trace.

    `wanted` holds the sampling parameters that it came with, `wants_logprobs` whether it asked for
    log-probabilities. SGLang itself sees greedy parameters and no log-probabilities: the token that
    it samples behind the prompt is not the trace's.
    """

    sampling_params: Any
    return_logprob: bool
    to_finish: Any
    finished_reason: Any
    output_ids: array[int]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wanted = self.sampling_params
        self.queued_s = time.perf_counter()
        self.wants_logprobs = self.return_logprob
        self.return_logprob = False
        params = copy.copy(self.sampling_params)
        params.temperature, params.top_k, params.top_p, params.min_p = 1.0, 1, 1.0, 0.0
        params.frequency_penalty = params.presence_penalty = 0.0
        params.repetition_penalty = 1.0
        params.no_stop_trim = True
        params.ignore_eos = False
        self.sampling_params = params

    @property
    def sample(self) -> int:
        """The index of this request among n samples of one prompt."""
        number = str(self.rid).rpartition(SAMPLE_MARK)[2]
        return max(0, int(number) - 1) if SAMPLE_MARK in self.rid and number.isdecimal() else 0

    def update_finish_state(self, new_accepted_len: int = 1) -> None:
        """A trace ends when its machine says so; only an abort by the server ends it earlier."""
        if self.to_finish is not None and not self.finished():
            self.finished_reason, self.to_finish = self.to_finish, None

    def end(self, finish: EndReason, error: str) -> None:
        """Sets the stock finish reason: "stop", "length", or "abort" with the error, if any."""
        if self.finished():
            return
        if (finish is EndReason.COMPLETED and self.output_ids) or finish is EndReason.ILLEGAL:
            self.finished_reason = FINISH_MATCHED_TOKEN(matched=self.output_ids[-1])
        elif finish is EndReason.BUDGET:
            self.finished_reason = FINISH_LENGTH(length=len(self.output_ids))
        elif error:
            self.finished_reason = FINISH_ABORT(error, HTTPStatus.INTERNAL_SERVER_ERROR)
        else:
            self.finished_reason = FINISH_ABORT()

    @property
    def failure(self) -> str:
        """Why the server ended the request; "" if it did not, or if the client wished so."""
        reason = self.finished_reason
        return reason.message if isinstance(reason, FINISH_ABORT) and reason.status_code else ""

    def end_by_server(self, message: str, status: int) -> None:
        """Ends it because the server has no time or no memory for it, with an HTTP status."""
        self.finished_reason = FINISH_ABORT(message, status)

    def refuse(self, message: str) -> None:
        """Ends it before it began, because of what it asks for."""
        self.finished_reason = FINISH_ABORT(message, HTTPStatus.BAD_REQUEST, "BadRequestError")

    def prepare_output(self) -> None:
        """Sets what SGLang expects of a request whose output it sends."""
        self.return_logprob = self.wants_logprobs
        if self.return_logprob and self.logprob.input_token_logprobs_val is None:
            for kind in ("token_logprobs", "top_logprobs", "token_ids_logprobs"):
                setattr(self.logprob, f"input_{kind}_val", [])
                setattr(self.logprob, f"input_{kind}_idx", [])
        if self.finished():
            self.time_stats.set_completion_time()


class BranchReq(Req):  # type: ignore[misc]
    """The branch `branch` of a trace in a row of SGLang's pool; `ids` are the tokens that the row
    has in the KV cache already."""

    output_ids: array[int]

    def __init__(self, trace: TraceReq, branch: int, ids: array[int]) -> None:
        super().__init__(
            f"{trace.rid}{BRANCH_MARK}{branch}",
            "",
            ids,
            _greedy_params(),
            eos_token_ids=trace.eos_token_ids,
            vocab_size=trace.vocab_size,
            extra_key=trace.extra_key,
            priority=trace.priority,
            http_worker_ipc=trace.http_worker_ipc,
        )
        self.trace = trace
        self.branch = branch
        self.tokenizer = trace.tokenizer
        self.skip_radix_cache_insert = True
        self.time_stats.forward_entry_time = trace.time_stats.forward_entry_time

    def update_finish_state(self, new_accepted_len: int = 1) -> None:
        """A branch ends when its machine says so."""

    def feed_next(self, tokens: array[int]) -> None:
        """Sets the tokens that the next extend computes behind those in the KV cache."""
        cached = self.kv.kv_committed_len
        self.full_untruncated_fill_ids = self.origin_input_ids + tokens
        self.prefix_len, self.extend_end = cached, cached + len(tokens)

    def has_fed(self, tokens: array[int]) -> None:
        """These tokens are in the KV cache now."""
        self.origin_input_ids.extend(tokens)
        self.output_ids = array("q", self.output_ids[-1:])


@cache
def _greedy_params() -> Any:
    """Parameters with which SGLang's sampler does the least work; its token is replaced. Shared by
    all branches: nothing changes them."""
    params = SamplingParams(temperature=0.0, max_new_tokens=1)
    params.normalize(None)
    return params
