"""Refuses a schema where none is honoured: on endpoints that would drop the field in silence."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Final

from nprdsl.runtime.http.replies import error_reply

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HONOURING: Final = ("/v1/chat/completions", "/v1/responses")
_CHATS: Final = (*HONOURING, "/invocations")  # the last is a chat by another path
FIELD: Final = "schema"
_SPELLED: Final = re.compile(rb"\\u00[67]")  # a letter of the field, as JSON may write it


class SchemaGuard:
    """An ASGI application around SGLang's: a POST of JSON with a `schema` elsewhere is a 400."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        path = scope.get("path", "")
        if not is_post or path in _CHATS:
            await self._app(scope, receive, send)
            return
        body, again = await whole_body(receive)
        if has_schema(body):
            await _refuse(path, send)
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


def has_schema(body: bytes) -> bool:
    """Whether it is the JSON of an object with a schema."""
    if f'"{FIELD}"'.encode() not in body and not _SPELLED.search(body):
        return False
    try:
        read = json.loads(body)
    except (ValueError, RecursionError):  # told by the endpoint itself
        return False
    return isinstance(read, dict) and FIELD in read


async def _refuse(path: str, send: Send) -> None:
    message = (
        f"{path} does not run a `{FIELD}`: send it to {' or '.join(HONOURING)}, or as "
        "`sampling_params.custom_params` of /generate (docs/serving.md)"
    )
    reply = error_reply(message, HTTPStatus.BAD_REQUEST, FIELD)
    content = json.dumps(reply.content).encode()
    head = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": reply.status.value, "headers": head})
    await send({"type": "http.response.body", "body": content})
