"""Results as OpenAI's chat completions, whole and in chunks.

`content` is the answer; `message.trace`, and `delta.trace` in chunks, is a field that other clients
do not look at.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nprdsl.runtime.results import Result
from nprdsl.runtime.sglang.protocol import event_form
from nprdsl.structure.events import EndReason, Event
from nprdsl.tokens.vocabulary import Vocabulary

DONE: Final = b"data: [DONE]\n\n"
_FINISH: Final = {
    EndReason.COMPLETED: "stop",
    EndReason.BUDGET: "length",
    EndReason.ABORTED: "abort",
    EndReason.FAILED: "abort",
}


@dataclass(frozen=True, slots=True)
class Head:
    """What all chunks of one completion begin with."""

    id: str
    created: int
    model: str

    @classmethod
    def of(cls, model: str) -> Head:
        return cls(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), model)

    def form(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def whole(
    head: Head, results: Sequence[Result], vocabulary: Vocabulary | None = None
) -> dict[str, Any]:
    """One completion with a choice for each result; log-probabilities where a vocabulary is
    given."""
    choices = [
        {
            "index": index,
            "message": {
                "role": "assistant",
                "content": result.answer,
                "trace": trace_form(result),
            },
            "logprobs": None if vocabulary is None else _logprobs(result, vocabulary),
            "finish_reason": _FINISH[result.finish],
        }
        for index, result in enumerate(results)
    ]
    return {**head.form("chat.completion"), "choices": choices, "usage": usage(results)}


def trace_form(result: Result) -> dict[str, Any]:
    """The trace: its text, how it ended, its tokens with their log-probabilities (None where they
    were forced), its execution graph, None where it was stopped midway."""
    told = result.usage
    return {
        "text": result.text,
        "finish": result.finish.value,
        "token_ids": list(result.token_ids),
        "logprobs": list(result.logprobs),
        "graph": None if result.trace is None else result.trace.graph.to_dict(),
        "sampled_tokens": told.sampled_tokens,
        "forced_tokens": told.forced_tokens,
        "critical_path": told.critical_path,
        "forwards": told.forwards,
    }


def usage(results: Sequence[Result]) -> dict[str, int]:
    prompt = results[0].usage.prompt_tokens if results else 0
    written = sum(result.usage.total for result in results)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
    }


def first_chunk(head: Head, index: int) -> dict[str, Any]:
    return _chunk(head, index, {"role": "assistant", "content": ""})


def event_chunk(head: Head, index: int, happened: Event) -> dict[str, Any]:
    """What happens on a branch: `kind` and the fields of `nprdsl.structure.events`."""
    return _chunk(head, index, {"trace": event_form(happened)})


def last_chunks(head: Head, index: int, result: Result) -> Iterator[dict[str, Any]]:
    """The answer, then the reason of the end with the whole trace; or what failed."""
    if result.finish is EndReason.FAILED:
        yield failure(result.error, 500)
        return
    yield _chunk(head, index, {"content": result.answer})
    last = _chunk(head, index, {"trace": {"kind": "trace", **trace_form(result)}})
    last["choices"][0]["finish_reason"] = _FINISH[result.finish]
    yield last


def usage_chunk(head: Head, results: Sequence[Result]) -> dict[str, Any]:
    return {**head.form("chat.completion.chunk"), "choices": [], "usage": usage(results)}


def failure(message: str, status: int = 400) -> dict[str, Any]:
    kind = "BadRequestError" if status < 500 else "InternalServerError"
    return {"error": {"object": "error", "message": message, "type": kind, "code": status}}


def event(form: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(form, ensure_ascii=False).encode() + b"\n\n"


def _chunk(head: Head, index: int, delta: dict[str, Any]) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
    return {**head.form("chat.completion.chunk"), "choices": [choice]}


def _logprobs(result: Result, vocabulary: Vocabulary) -> dict[str, Any]:
    """Of the tokens that were sampled: OpenAI's form has no place for forced ones."""
    content = [
        {
            "token": vocabulary.text([token]),
            "bytes": list(vocabulary.bytes_of(token)),
            "logprob": logprob,
            "top_logprobs": [],
        }
        for token, logprob in zip(result.token_ids, result.logprobs, strict=True)
        if logprob is not None
    ]
    return {"content": content, "refusal": None}
