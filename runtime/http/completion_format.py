"""Results in the JSON of OpenAI's chat completions, whole or as the chunks of a stream.

`content` is the answer of the trace. The trace itself is in `message.trace`, or in `delta.trace` of
a chunk: fields that clients which do not know them ignore.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nprdsl.runtime.results import Result
from nprdsl.structure.events import EndReason, Event, TokenEvent
from nprdsl.tokens.vocabulary import Vocabulary

DONE: Final = b"data: [DONE]\n\n"  # ends a stream
_FINISH_REASON: Final = {
    EndReason.COMPLETED: "stop",
    EndReason.BUDGET: "length",
    EndReason.ABORTED: "abort",
    EndReason.FAILED: "abort",
    EndReason.ILLEGAL: "stop",
}


@dataclass(frozen=True, slots=True)
class CompletionHead:
    """What all chunks of one completion have in common."""

    id: str
    created: int
    model: str

    @classmethod
    def of(cls, model: str) -> CompletionHead:
        return cls(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), model)

    def whole(
        self, results: Sequence[Result], seeds: Sequence[int], vocabulary: Vocabulary | None = None
    ) -> dict[str, Any]:
        """A completion with a choice for each result, drawn with the seed beside it; with
        log-probabilities if a vocabulary is given."""
        choices = [
            {
                "index": index,
                "message": {
                    "role": "assistant",
                    "content": result.answer,
                    "trace": trace_to_dict(result, seed),
                },
                "logprobs": None
                if vocabulary is None
                else token_logprobs(result.token_ids, result.logprobs, vocabulary),
                "finish_reason": _FINISH_REASON[result.finish],
            }
            for index, (result, seed) in enumerate(zip(results, seeds, strict=True))
        ]
        return self._object("chat.completion", choices) | {"usage": _usage(results)}

    def first_chunk(self, index: int) -> dict[str, Any]:
        """The first chunk of the choice with that index."""
        return self._chunk(index, {"role": "assistant", "content": ""})

    def event_chunk(
        self, index: int, event: Event, vocabulary: Vocabulary | None = None
    ) -> dict[str, Any]:
        """What happens on a branch: `kind` and the fields of `nprdsl.structure.events`; beside it
        what is new of the answer. With a vocabulary, log-probabilities of the tokens that were
        sampled."""
        delta = {"content": event.answer} if isinstance(event, TokenEvent) and event.answer else {}
        chunk = self._chunk(index, {**delta, "trace": event.to_dict()})
        if vocabulary is not None and isinstance(event, TokenEvent) and event.logprobs:
            logprobs = token_logprobs(event.tokens, event.logprobs, vocabulary)
            chunk["choices"][0]["logprobs"] = logprobs if logprobs["content"] else None
        return chunk

    def last_chunks(
        self, index: int, result: Result, seed: int, told: int
    ) -> Iterator[dict[str, Any]]:
        """The answer but for its first `told` characters, then the finish reason with the whole
        trace."""
        if told < len(result.answer):
            yield self._chunk(index, {"content": result.answer[told:]})
        trace = {"kind": "trace", **trace_to_dict(result, seed)}
        yield self._chunk(index, {"trace": trace}, _FINISH_REASON[result.finish])

    def usage_chunk(self, results: Sequence[Result]) -> dict[str, Any]:
        return self._object("chat.completion.chunk", []) | {"usage": _usage(results)}

    def _chunk(
        self, index: int, delta: dict[str, Any], finish_reason: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._object("chat.completion.chunk", [choice])

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return head | {"choices": choices}


def trace_to_dict(result: Result, seed: int) -> dict[str, Any]:
    """The trace: its text, how it ended, the seed that repeats it, its tokens with their
    log-probabilities (None where they were forced), and its execution graph, None if it was
    stopped midway."""
    usage = result.usage
    return {
        "text": result.text,
        "finish": result.finish.value,
        "seed": seed,
        "token_ids": list(result.token_ids),
        "logprobs": list(result.logprobs),
        "graph": None if result.trace is None else result.trace.graph.to_dict(),
        "sampled_tokens": usage.sampled_tokens,
        "forced_tokens": usage.forced_tokens,
        "critical_path": usage.critical_path,
        "forwards": usage.forwards,
    }


def _usage(results: Sequence[Result]) -> dict[str, Any]:
    """The tokens of all answers. Of their details, `critical_path` is that of the longest answer,
    and `branches` counts those of answers that were not stopped midway."""
    prompt = results[0].usage.prompt_tokens if results else 0
    completion = sum(result.usage.total for result in results)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {
            "critical_path": max((result.usage.critical_path for result in results), default=0),
            "branches": sum(map(_branches, results)),
        },
    }


def _branches(result: Result) -> int:
    forks = () if result.trace is None else result.trace.graph.forks
    return sum(len(fork.after) for fork in forks)


def token_logprobs(
    tokens: Sequence[int], logprobs: Sequence[float | None], vocabulary: Vocabulary
) -> dict[str, Any]:
    """Of the sampled tokens: OpenAI's format has no way to say that a token was forced."""
    content = [
        {
            "token": vocabulary.text([token]),
            "bytes": list(vocabulary.bytes_of(token)),
            "logprob": logprob,
            "top_logprobs": [],
        }
        for token, logprob in zip(tokens, logprobs, strict=True)
        if logprob is not None
    ]
    return {"content": content, "refusal": None}
