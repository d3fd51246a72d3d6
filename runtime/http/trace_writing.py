"""Traces told in the events of a protocol while they are written: what such protocols share.

A `ProtocolWriter` knows one protocol (OpenAI's responses, AG-UI); `told` hands it what happens to
one trace, of any engine.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Protocol

from nprdsl.runtime.http.completion_format import trace_to_dict
from nprdsl.runtime.http.plain_texts import Running
from nprdsl.runtime.http.refusals import RefusedError
from nprdsl.runtime.http.request_models import PlainChatRequest
from nprdsl.runtime.http.trace_chats import RunningTraces
from nprdsl.runtime.results import Result
from nprdsl.structure.events import EndReason, Event

WireEvent = dict[str, Any]
WireEvents = AsyncGenerator[WireEvent]


class FailureCode(StrEnum):
    """Why a trace cannot be ended, in OpenAI's words."""

    REFUSED = "invalid_prompt"
    FAILED = "server_error"

    @property
    def status(self) -> HTTPStatus:
        """That of a whole answer."""
        refused = self is FailureCode.REFUSED
        return HTTPStatus.BAD_REQUEST if refused else HTTPStatus.INTERNAL_SERVER_ERROR


class ProtocolWriter(Protocol):
    """The events of one protocol, of one trace."""

    def begin(self) -> Iterator[WireEvent]:
        """It begins."""

    def add(self, event: Event) -> Iterator[WireEvent]:
        """Something happened in it."""

    def end(self, result: Result, trace: Mapping[str, Any]) -> Iterator[WireEvent]:
        """It is over; `trace` is the result in the form of chats."""

    def fail(self, message: str, code: FailureCode) -> WireEvent:
        """It cannot be ended."""


class TextStarter(Protocol):
    """What answers requests without a schema."""

    async def start_chat(self, asked: PlainChatRequest) -> Running:
        """Raises RefusedError."""


class OnlyTraces:
    """A `TextStarter` where something else answers those."""

    async def start_chat(self, asked: PlainChatRequest) -> Running:
        raise RefusedError("`schema` is missing: name the schema of the trace")


async def told(writer: ProtocolWriter, running: RunningTraces, seed: int) -> WireEvents:
    """The events of a trace that runs, drawn with this seed."""
    for event in writer.begin():
        yield event
    async with aclosing(running):
        async for _, item in running:
            if isinstance(item, RefusedError):
                yield writer.fail(str(item), FailureCode.REFUSED)
            elif not isinstance(item, Result):
                for event in writer.add(item):
                    yield event
            elif item.finish is EndReason.FAILED:
                yield writer.fail(item.error, FailureCode.FAILED)
            else:
                for event in writer.end(item, trace_to_dict(item, seed)):
                    yield event
