"""The two kinds of SGLang request that the plugin makes: of a client, and of a row in a batch.

A `TraceReq` is what the client sent. It brings its prompt through SGLang's own admission, chunked
prefill and prefix cache, then leaves the batch and only carries what is sent back. A `BranchReq`
stands for one branch while that holds a row; it is never finished, streamed or cached by SGLang.
Imported in the scheduler's process only.
"""

from __future__ import annotations

import copy
import time
from array import array
from http import HTTPStatus
from typing import Any, Final

from sglang.srt.managers.schedule_batch import (
    FINISH_ABORT,
    FINISH_LENGTH,
    FINISH_MATCHED_TOKEN,
    Req,
)
from sglang.srt.sampling.sampling_params import SamplingParams

from nprdsl.structure.events import EndReason

MARK: Final = "#branch-"  # between the rid of a client's request and the number of a branch


SAMPLE: Final = "#sample-"  # between a rid and the number of one of n samples, from 1 on

_INPUT_LOGPROBS: Final = (
    "input_token_logprobs_val",
    "input_token_logprobs_idx",
    "input_top_logprobs_val",
    "input_top_logprobs_idx",
    "input_token_ids_logprobs_val",
    "input_token_ids_logprobs_idx",
)


def _stock_settings() -> Any:
    """Settings under which SGLang's own sampler does the least; its token is replaced."""
    settings = SamplingParams(temperature=0.0, max_new_tokens=1)
    settings.normalize(None)
    return settings


class TraceReq(Req):  # type: ignore[misc]
    """A client's request for a trace. `wanted` holds the sampling parameters that it came with."""

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
        self.return_logprob = (
            False  # while SGLang computes the prompt: its sample is not the trace's
        )
        settings = copy.copy(self.sampling_params)
        settings.temperature, settings.top_k, settings.top_p, settings.min_p = 1.0, 1, 1.0, 0.0
        settings.frequency_penalty = settings.presence_penalty = 0.0
        settings.repetition_penalty = 1.0
        settings.no_stop_trim = True
        settings.ignore_eos = False
        self.sampling_params = settings

    @property
    def sample(self) -> int:
        """Which of n samples this is, from 0 on."""
        number = str(self.rid).rpartition(SAMPLE)[2]
        return max(0, int(number) - 1) if SAMPLE in self.rid and number.isdecimal() else 0

    def update_finish_state(self, new_accepted_len: int = 1) -> None:
        """A trace ends when its machine says so; only an abort of the server ends it before."""
        if self.to_finish is not None and not self.finished():
            self.finished_reason, self.to_finish = self.to_finish, None

    def end(self, finish: EndReason, error: str) -> None:
        """Ended as SGLang's clients are told: "stop", "length", or "abort" with its message."""
        if self.finished():
            return
        if finish is EndReason.COMPLETED and self.output_ids:
            self.finished_reason = FINISH_MATCHED_TOKEN(matched=self.output_ids[-1])
        elif finish is EndReason.BUDGET:
            self.finished_reason = FINISH_LENGTH(length=len(self.output_ids))
        elif error:
            self.finished_reason = FINISH_ABORT(error, HTTPStatus.INTERNAL_SERVER_ERROR)
        else:
            self.finished_reason = FINISH_ABORT()

    @property
    def failure(self) -> str:
        """Why the server has ended it, "" where it has not, or its client wished so."""
        reason = self.finished_reason
        return reason.message if isinstance(reason, FINISH_ABORT) and reason.status_code else ""

    def ended_by_server(self, message: str, status: int) -> None:
        """Ended because the server has no time or no place for it; `status` is that of HTTP."""
        self.finished_reason = FINISH_ABORT(message, status)

    def refuse(self, message: str) -> None:
        """Ended before it began, for a reason that the client is told."""
        self.finished_reason = FINISH_ABORT(message, HTTPStatus.BAD_REQUEST, "BadRequestError")

    def before_output(self) -> None:
        """What SGLang expects of a request whose chunk it sends."""
        self.return_logprob = self.wants_logprobs
        if self.return_logprob and self.logprob.input_token_logprobs_val is None:
            empty: list[Any] = []
            for name in _INPUT_LOGPROBS:
                setattr(self.logprob, name, empty)
        if self.finished():
            self.time_stats.set_completion_time()


class BranchReq(Req):  # type: ignore[misc]
    """A branch in a row of SGLang's pool: `ids` `[kv]` are in the KV cache already."""

    settings: Any = None  # shared by all: nothing changes it
    output_ids: array[int]

    def __init__(self, trace: TraceReq, name: int, ids: array[int]) -> None:
        if BranchReq.settings is None:
            BranchReq.settings = _stock_settings()
        super().__init__(
            f"{trace.rid}{MARK}{name}",
            "",
            ids,
            BranchReq.settings,
            eos_token_ids=trace.eos_token_ids,
            vocab_size=trace.vocab_size,
            extra_key=trace.extra_key,
            priority=trace.priority,
            http_worker_ipc=trace.http_worker_ipc,
        )
        self.trace = trace
        self.name = name
        self.tokenizer = trace.tokenizer
        self.skip_radix_cache_insert = True
        self.time_stats.forward_entry_time = trace.time_stats.forward_entry_time

    def update_finish_state(self, new_accepted_len: int = 1) -> None:
        """A branch ends when its machine says so."""

    def feed_next(self, tokens: array[int]) -> None:
        """The next extend computes these tokens behind what is in the KV cache."""
        held = self.kv.kv_committed_len
        self.full_untruncated_fill_ids = self.origin_input_ids + tokens
        self.prefix_len, self.extend_end = held, held + len(tokens)

    def has_fed(self, tokens: array[int]) -> None:
        """These tokens are in the KV cache now."""
        self.origin_input_ids.extend(tokens)
        self.output_ids = array("q", self.output_ids[-1:])
