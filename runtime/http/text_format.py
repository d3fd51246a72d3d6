"""Plain answers in the JSON of OpenAI's chats and text completions, whole or as chunks.

The two differ in names, and in how they write log-probabilities; `ChatForm` and `TextForm` have the
same methods, so that one endpoint writes both.
"""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from nprdsl.runtime.http.completion_format import token_logprobs
from nprdsl.runtime.http.written_answers import WrittenAnswer
from nprdsl.tokens.vocabulary import Vocabulary


class PlainForm(ABC):
    """What chats and text completions have in common. `told`: the vocabulary, where
    log-probabilities are asked for."""

    kind: str  # of a whole answer
    chunk_kind: str
    prefix: str  # of the name of an answer

    def __init__(self, model: str, told: Vocabulary | None) -> None:
        self._head = {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }
        self._told = told

    @property
    def tells(self) -> bool:
        """Whether log-probabilities are told."""
        return self._told is not None

    def first(self, index: int) -> dict[str, Any] | None:
        """What a stream begins an answer with."""
        return None

    def piece(
        self, answer: WrittenAnswer, index: int, text: str, finish: str | None = None
    ) -> dict[str, Any]:
        """A chunk with what was written since the last one of this answer."""
        choice = {
            "index": index,
            **self._new(text),
            "logprobs": self._logprobs(answer, answer.untold()),
            "finish_reason": finish,
        }
        return self._object(self.chunk_kind, [choice])

    def whole(self, answers: Sequence[WrittenAnswer]) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                **self._all(answer.lead + answer.text),
                "logprobs": self._logprobs(answer, slice(0, None)),
                "finish_reason": answer.finish,
            }
            for index, answer in enumerate(answers)
        ]
        return self._object(self.kind, choices) | {"usage": usage(answers)}

    def usage_chunk(self, answers: Sequence[WrittenAnswer]) -> dict[str, Any]:
        return self._object(self.chunk_kind, []) | {"usage": usage(answers)}

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head, "object": kind, "choices": choices}

    def _logprobs(self, answer: WrittenAnswer, part: slice) -> dict[str, Any] | None:
        if self._told is None or not answer.tokens[part]:
            return None
        return self._written_logprobs(answer, part, self._told)

    @abstractmethod
    def _new(self, text: str) -> dict[str, Any]:
        """Text as the part of a choice in a chunk."""

    @abstractmethod
    def _all(self, text: str) -> dict[str, Any]:
        """Text as the part of a choice in a whole answer."""

    @abstractmethod
    def _written_logprobs(
        self, answer: WrittenAnswer, part: slice, vocabulary: Vocabulary
    ) -> dict[str, Any]:
        """The log-probabilities of a part of the tokens."""


class ChatForm(PlainForm):
    """`/v1/chat/completions`."""

    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"
    prefix = "chatcmpl"

    def first(self, index: int) -> dict[str, Any] | None:
        choice = {
            "index": index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        return self._object(self.chunk_kind, [choice])

    def _new(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}

    def _all(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}}

    def _written_logprobs(
        self, answer: WrittenAnswer, part: slice, vocabulary: Vocabulary
    ) -> dict[str, Any]:
        return token_logprobs(answer.tokens[part], answer.logprobs[part], vocabulary)


class TextForm(PlainForm):
    """`/v1/completions`."""

    kind = "text_completion"
    chunk_kind = "text_completion"
    prefix = "cmpl"

    def _new(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def _all(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def _written_logprobs(
        self, answer: WrittenAnswer, part: slice, vocabulary: Vocabulary
    ) -> dict[str, Any]:
        texts = [vocabulary.text([token]) for token in answer.tokens]
        offsets = [0]
        for text in texts:
            offsets.append(offsets[-1] + len(text))
        logprobs = answer.logprobs[part]
        return {
            "tokens": texts[part],
            "token_logprobs": logprobs,
            "top_logprobs": [
                None if logprob is None else {text: logprob}
                for text, logprob in zip(texts[part], logprobs, strict=True)
            ],
            "text_offset": offsets[:-1][part],
        }


def usage(answers: Sequence[WrittenAnswer]) -> dict[str, Any]:
    """The tokens of all answers, and those of each prompt once. Nothing ran side by side, so that
    the critical path is the longest answer."""
    prompts = {answer.prompt: answer.prompt_tokens for answer in answers}
    prompt = sum(prompts.values())
    completion = sum(len(answer.tokens) for answer in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {
            "critical_path": max((len(answer.tokens) for answer in answers), default=0),
            "branches": 0,
        },
    }
