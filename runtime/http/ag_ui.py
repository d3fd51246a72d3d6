"""`/ag-ui`: a trace as events of AG-UI, for user interfaces that show agents.

In goes a `RunAgentInput`, whose `forwardedProps` have what a chat with a schema says beside its
messages; out comes a stream of events. A request is read as the chat that it amounts to, so that
all that is refused there is refused here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from nprdsl.runtime.errors import ErrorBoundary
from nprdsl.runtime.http.ag_ui_writer import AgUiWriter
from nprdsl.runtime.http.refusals import PreparationError, RefusedError, as_refusal, refusing
from nprdsl.runtime.http.replies import Reply, StreamReply, error_reply, server_sent_event
from nprdsl.runtime.http.request_fields import AG_UI, check_fields
from nprdsl.runtime.http.request_models import Listed, TraceRequest
from nprdsl.runtime.http.trace_chats import TraceRunner
from nprdsl.runtime.http.trace_writing import WireEvents, told

SourceT = TypeVar("SourceT")
_ROLES = ("developer", "system", "assistant", "user")  # others are no part of a chat


class RunInput(BaseModel):
    """AG-UI's `RunAgentInput`, as far as it has a meaning here. `state` and `parentRunId` ask for
    nothing."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel)

    thread_id: str
    run_id: str
    messages: Listed[dict[str, Any]]
    tools: list[Any] | None = None
    context: list[Any] | None = None
    resume: list[Any] | None = None
    forwarded_props: dict[str, Any] | None = None


class AgUi(Generic[SourceT]):
    """The endpoint of one server."""

    def __init__(self, traces: TraceRunner[SourceT]) -> None:
        self._traces = traces

    async def answer(self, body: Mapping[str, Any], source: SourceT) -> Reply:
        """The answer to one request, whose JSON is `body`."""
        refusals: list[RefusedError | PreparationError] = []
        with ErrorBoundary(lambda error: refusals.append(as_refusal(error, body))):
            asked, chat = self._read(body)
            seed = chat.seeds(1)
            running = await self._traces.start(chat, seed, source)
        for refusal in refusals:
            return error_reply(str(refusal), refusal.status)
        writer = AgUiWriter(self._traces.model, asked.thread_id, asked.run_id)
        return StreamReply(_sent(told(writer, running, seed[0])), running.aclose)

    @refusing()
    def _read(self, body: Mapping[str, Any]) -> tuple[RunInput, TraceRequest]:
        """Raises RefusedError."""
        asked = RunInput.model_validate(dict(body))
        for name in ("tools", "context", "resume"):
            if getattr(asked, name):
                raise RefusedError(f"`{name}` has no meaning for a trace: leave it empty")
        given = dict(asked.forwarded_props or {})
        if given.get("schema") is None:
            raise RefusedError("`forwardedProps.schema` is missing: name the schema of the trace")
        check_fields(given, AG_UI, self._traces.honoured)
        chat = {**given, "messages": _messages(asked), "stream": True}
        return asked, TraceRequest.model_validate(chat)


def _messages(asked: RunInput) -> list[dict[str, Any]]:
    """The messages of a chat: reasoning, activities and results of tools are none."""
    said = [message for message in asked.messages if message.get("role") in _ROLES]
    return [
        {"role": "system" if m["role"] == "developer" else m["role"], "content": m.get("content")}
        for m in said
    ]


async def _sent(events: WireEvents) -> AsyncGenerator[bytes]:
    async with aclosing(events):
        async for event in events:
            yield server_sent_event(event)
