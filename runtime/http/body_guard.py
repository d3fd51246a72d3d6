"""Bounds the body of every request, before anything reads it: an ASGI application around another.

A body of more bytes than the server takes is a 413, as soon as it is known to be. JSON that is no
object is a 400, which no endpoint has to look for then, and so is JSON of so many objects that
reading it would keep everybody else waiting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from itertools import count
from typing import Any, Final

from nprdsl.runtime.http.replies import error_reply

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

MEGABYTE: Final = 1_000_000
_WITH_BODY: Final = ("POST", "PUT", "PATCH", "DELETE")
_OTHER_JSON: Final = re.compile(rb'\s*(?:[\["\d-]|true\b|false\b|null\b)')  # than an object
_FORMAT: Final = "response_format"
_MOST_OBJECTS: Final = 10_000  # messages, parts, tools: SGLang reads some 50,000 a second


class BodyGuard:
    """`megabytes`: the most that a body may have."""

    def __init__(self, app: App, megabytes: float) -> None:
        self._app = app
        self._megabytes = megabytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in _WITH_BODY:
            await self._app(scope, receive, send)
            return
        most = int(self._megabytes * MEGABYTE)
        try:
            if _told_length(scope) > most:
                raise _TooLargeError
            body, again = await whole_body(_counted(receive, most))
        except _TooLargeError:
            message = (
                f"the body has more than the {self._megabytes:g} MB that this server takes "
                "(--max-body)"
            )
            await refuse(message, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, send)
            return
        fault = _fault(scope, body)
        if fault:
            await refuse(fault, HTTPStatus.BAD_REQUEST, send)
        else:
            await self._app(scope, again, send)


async def whole_body(receive: Receive) -> tuple[bytes, Receive]:
    """The body of a request, and what lets another application receive it once more."""
    messages = [await receive()]
    while messages[-1].get("more_body"):
        messages.append(await receive())
    body = b"".join(message.get("body", b"") for message in messages)

    async def again() -> Message:
        return messages.pop(0) if messages else await receive()

    return body, again


class _TooLargeError(Exception):
    """A body has more bytes than it may."""


def _counted(receive: Receive, most: int) -> Receive:
    """The same; it raises _TooLargeError once more has come."""
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > most:
            raise _TooLargeError
        return message

    return counted


async def refuse(message: str, status: HTTPStatus, send: Send, *, param: str | None = None) -> None:
    """Answers with an error. The connection ends, as nobody may have read the body."""
    reply = error_reply(message, status, param)
    head = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": reply.status.value, "headers": head})
    await send({"type": "http.response.body", "body": json.dumps(reply.content).encode()})


def _told_length(scope: Message) -> int:
    told = dict(scope.get("headers", ())).get(b"content-length", b"")
    return int(told) if told.isdigit() and len(told) < 20 else 0


def _fault(scope: Message, body: bytes) -> str:
    """What is wrong with the JSON of a body; "" where nothing is, or it is none."""
    kind = dict(scope.get("headers", ())).get(b"content-type", b"application/json")
    if b"json" not in kind.lower():
        return ""
    if _OTHER_JSON.match(body):
        return "the body must be a JSON object"
    if f'"{_FORMAT}"'.encode() in body and not _is_object(body, _FORMAT):
        return f"`{_FORMAT}` must be an object"
    if body.count(b"{") > _MOST_OBJECTS and (found := _objects(body)) > _MOST_OBJECTS:
        return f"the body holds {found:,} objects, it may hold {_MOST_OBJECTS:,}"
    return ""


def _objects(body: bytes) -> int:
    """How many stand in the JSON, itself included; what a text spells is none."""
    seen = count()
    _read(body, lambda _: next(seen))
    return next(seen)


def _is_object(body: bytes, field: str) -> bool:
    """False only where the field is there, and something else."""
    read = _read(body)
    return not isinstance(read, dict) or isinstance(read.get(field), dict | None)


def _read(body: bytes, each: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The JSON, with what `each` makes of its objects; None for what is no JSON, which the endpoint
    tells itself."""
    try:
        return json.loads(body, object_hook=each)
    except (ValueError, RecursionError):
        return None
