"""`/v1/responses`: a trace, or plain text, as OpenAI's responses with their items and events.

In goes the JSON of a request, out comes the whole response or its events. A request is read as the
chat that it amounts to, so that all that is refused there is refused here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, Generic, TypeVar

from nprdsl.runtime.errors import ErrorBoundary
from nprdsl.runtime.http.plain_texts import Running
from nprdsl.runtime.http.refusals import PreparationError, RefusedError, as_refusal, refusing
from nprdsl.runtime.http.replies import JsonReply, Reply, StreamReply, error_reply, named_event
from nprdsl.runtime.http.request_fields import PLAIN_CHAT, RESPONSE, check_fields
from nprdsl.runtime.http.request_models import PlainChatRequest, ResponseRequest, TraceRequest
from nprdsl.runtime.http.response_writer import ResponseWriter
from nprdsl.runtime.http.trace_chats import TraceRunner
from nprdsl.runtime.http.trace_writing import FailureCode, TextStarter, WireEvents, told
from nprdsl.structure.events import EndReason, TokenEvent

SourceT = TypeVar("SourceT")
Close = Callable[[], Awaitable[None]]
_REPEATED: Final = ("temperature", "top_p", "max_output_tokens", "metadata", "user", "store")
_OF_RESPONSES: Final = ("input", "instructions", "max_output_tokens")


class Responses(Generic[SourceT]):
    """The endpoint of one server."""

    def __init__(self, traces: TraceRunner[SourceT], texts: TextStarter) -> None:
        self._traces = traces
        self._texts = texts

    async def answer(self, body: Mapping[str, Any], source: SourceT) -> Reply:
        """The answer to one request, whose JSON is `body`."""
        refusals: list[RefusedError | PreparationError] = []
        with ErrorBoundary(lambda error: refusals.append(as_refusal(error, body))):
            asked = self._read(body)
            events, close = await self._start(asked, body, source)
        for refusal in refusals:
            return error_reply(str(refusal), refusal.status)
        if asked.stream:
            return StreamReply(_sent(events), close)
        response: dict[str, Any] = {}
        try:
            async for event in events:
                response = event.get("response", response)
        finally:
            await close()
        if (error := response["error"]) is not None:
            return error_reply(error["message"], error["code"].status)
        return JsonReply(response)

    @refusing()
    def _read(self, body: Mapping[str, Any]) -> ResponseRequest:
        """Raises RefusedError."""
        check_fields(body, RESPONSE, self._traces.honoured)
        return ResponseRequest.model_validate(dict(body))

    async def _start(
        self, asked: ResponseRequest, body: Mapping[str, Any], source: SourceT
    ) -> tuple[WireEvents, Close]:
        """The events of a response, and what stops it. Raises RefusedError, PreparationError."""
        chat = _as_chat(asked, body)
        writer = ResponseWriter(self._traces.model, {n: body[n] for n in _REPEATED if n in body})
        if isinstance(chat, TraceRequest):
            seeds = chat.seeds(1)
            running = await self._traces.start(chat, seeds, source)
            return told(writer, running, seeds[0]), running.aclose
        text = await self._texts.start_chat(chat)
        return _text_events(writer, text), text.aclose


async def _text_events(writer: ResponseWriter, running: Running) -> WireEvents:
    for event in writer.begin():
        yield event
    async with aclosing(running):
        async for _, item in running:
            if isinstance(item, TokenEvent):
                for event in writer.add_text(item.text):
                    yield event
            elif item.finish is EndReason.FAILED:
                yield writer.fail(item.error, FailureCode.FAILED)
            else:
                counts = len(item.prompt_ids), len(item.token_ids)
                for event in writer.end_text(*counts, item.finish):
                    yield event


async def _sent(events: WireEvents) -> AsyncGenerator[bytes]:
    async with aclosing(events):
        async for event in events:
            yield named_event(event["type"], event)


@refusing()
def _as_chat(asked: ResponseRequest, body: Mapping[str, Any]) -> TraceRequest | PlainChatRequest:
    """The chat that a request amounts to; it streams, since items are made of events. Raises
    RefusedError."""
    given = {name: value for name, value in body.items() if name not in _OF_RESPONSES}
    system = asked.instructions
    messages = _messages(asked.input)
    if isinstance(system, str):
        messages = [{"role": "system", "content": system}, *messages]
    else:
        given["instructions"] = system
    given |= {"messages": messages, "max_tokens": asked.max_output_tokens, "stream": True}
    if body.get("schema") is not None:
        return TraceRequest.model_validate(given)
    check_fields(given, PLAIN_CHAT)
    return PlainChatRequest.model_validate(given)


def _messages(given: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The input as messages of a chat. What a model thought in an earlier response is left out, as
    no chat has a place for it. Raises RefusedError."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    return [_message(item) for item in given if not _is_of(item, "reasoning")]


def _message(item: Mapping[str, Any]) -> dict[str, Any]:
    kind = item.get("type", "message")
    if kind != "message":
        raise RefusedError(f"`input` takes messages only, not `{kind}`")
    content = item.get("content")
    if isinstance(content, list):
        content = [_as_chat_part(part) for part in content]
    role = "system" if item.get("role") == "developer" else item.get("role")
    return {"role": role, "content": content}


def _as_chat_part(part: Any) -> Any:
    is_text = _is_of(part, "input_text") or _is_of(part, "output_text")
    return {"type": "text", "text": part.get("text")} if is_text else part


def _is_of(value: Any, kind: str) -> bool:
    return isinstance(value, Mapping) and value.get("type") == kind
