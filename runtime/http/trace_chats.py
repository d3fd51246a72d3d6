"""Chats with a schema, `/v1/chat/completions`, over any engine: the message is the answer, the
trace a field beside it.

In goes the JSON of a request, out comes a whole answer or a stream in OpenAI's format, with more
fields. Everything that cannot work is refused with a 400 before anything runs: an unknown schema, a
budget that no trace can meet, options that have no meaning for a trace. What runs the traces is a
`TraceRunner`: that of an engine in this process, or of SGLang.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Generic, Protocol, TypeVar

from nprdsl.runtime.errors import ErrorBoundary
from nprdsl.runtime.http.completion_format import DONE, CompletionHead
from nprdsl.runtime.http.refusals import PreparationError, RefusedError, as_refusal, refusing
from nprdsl.runtime.http.replies import (
    JsonReply,
    Reply,
    StreamReply,
    error_event,
    error_reply,
    server_sent_event,
)
from nprdsl.runtime.http.request_fields import TRACE_CHAT, check_fields
from nprdsl.runtime.http.request_models import TraceRequest
from nprdsl.runtime.results import Result
from nprdsl.structure.events import EndReason, Event, TokenEvent
from nprdsl.tokens.vocabulary import Vocabulary

SourceT = TypeVar("SourceT", contravariant=True)  # what a server knows of a request beside its JSON


class RunningTraces(Protocol):
    """The traces of one chat as they are written, by the number of their answer.

    Of each come its events, if the chat streams, and its result last; or why it was refused after
    all. `aclose` stops those that run.
    """

    def __aiter__(self) -> AsyncIterator[tuple[int, Event | Result | RefusedError]]: ...

    async def aclose(self) -> None: ...


class TraceRunner(Protocol[SourceT]):
    """What a server runs traces with."""

    @property
    def model(self) -> str:
        """The name that the model is served under."""

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def honoured(self) -> Collection[str]:
        """Fields that this server honours beside those of every server."""

    async def start(self, chat: TraceRequest, seeds: list[int], source: SourceT) -> RunningTraces:
        """Checks the chat and starts an answer for each seed. Raises RefusedError,
        PreparationError."""


class TraceChats(Generic[SourceT]):
    """The endpoint of one server."""

    def __init__(self, runner: TraceRunner[SourceT]) -> None:
        self._runner = runner

    async def answer(self, body: Mapping[str, Any], source: SourceT) -> Reply:
        """The answer to one chat, whose JSON is `body`."""
        refusals: list[RefusedError | PreparationError] = []
        with ErrorBoundary(lambda error: refusals.append(as_refusal(error, body))):
            chat = self._read(body)
            seeds = chat.seeds(chat.count)
            running = await self._runner.start(chat, seeds, source)
        for refusal in refusals:
            return error_reply(str(refusal), refusal.status)
        head = CompletionHead.of(self._runner.model)
        if chat.stream:
            return StreamReply(self._chunks(head, chat, seeds, running), running.aclose)
        return await self._whole(head, chat, seeds, running)

    @refusing()
    def _read(self, body: Mapping[str, Any]) -> TraceRequest:
        """Raises RefusedError."""
        check_fields(body, TRACE_CHAT, self._runner.honoured)
        return TraceRequest.model_validate(dict(body))

    async def _whole(
        self, head: CompletionHead, chat: TraceRequest, seeds: list[int], running: RunningTraces
    ) -> JsonReply:
        results: dict[int, Result] = {}
        async with aclosing(running):
            async for index, item in running:
                if isinstance(item, RefusedError):
                    return error_reply(str(item), item.status)
                if isinstance(item, Result):
                    if item.finish is EndReason.FAILED:
                        return error_reply(item.error, HTTPStatus.INTERNAL_SERVER_ERROR)
                    results[index] = item
        vocabulary = self._runner.vocabulary if chat.logprobs else None
        ordered = [results[index] for index in sorted(results)]
        return JsonReply(head.whole(ordered, seeds, vocabulary))

    async def _chunks(
        self, head: CompletionHead, chat: TraceRequest, seeds: list[int], running: RunningTraces
    ) -> AsyncGenerator[bytes]:
        """The server-sent events of a stream."""
        results: list[Result] = []
        vocabulary = self._runner.vocabulary if chat.logprobs else None
        told = [0] * len(seeds)  # characters of the answer
        for index in range(len(seeds)):
            yield server_sent_event(head.first_chunk(index))
        async with aclosing(running):
            async for index, item in running:
                if isinstance(item, RefusedError):
                    yield error_event(str(item), item.status)
                elif not isinstance(item, Result):
                    told[index] += len(item.answer) if isinstance(item, TokenEvent) else 0
                    yield server_sent_event(head.event_chunk(index, item, vocabulary))
                elif item.finish is EndReason.FAILED:
                    results.append(item)
                    yield error_event(item.error, HTTPStatus.INTERNAL_SERVER_ERROR)
                else:
                    results.append(item)
                    for chunk in head.last_chunks(index, item, seeds[index], told[index]):
                        yield server_sent_event(chunk)
        if chat.tells_usage:
            yield server_sent_event(head.usage_chunk(results))
        yield DONE
