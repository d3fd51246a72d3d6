"""Refuses a schema where none is honoured: on endpoints that would drop the field in silence."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Final

from nprdsl.runtime.http.body_guard import App, Message, Receive, Send, refuse, whole_body

HONOURING: Final = ("/v1/chat/completions", "/v1/responses")
_CHATS: Final = (*HONOURING, "/invocations")  # the last is a chat by another path
FIELD: Final = "schema"
_SPELLED: Final = re.compile(rb"\\u00[67]")  # a letter of the field, as JSON may write it


class SchemaGuard:
    """An ASGI application around SGLang's: a POST of JSON with a `schema` elsewhere is a 400."""

    def __init__(self, app: App) -> None:
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
    await refuse(message, HTTPStatus.BAD_REQUEST, send, param=FIELD)
