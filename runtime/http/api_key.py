"""Asks every request for the key of the server: an ASGI application around another."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from nprdsl.runtime.http.replies import error_reply

OPEN: Final = ("/health", "/metrics")
_SCHEME: Final = "bearer"  # in any case (RFC 9110, 11.1)


class ApiKey:
    """A request without `Authorization: Bearer KEY` is a 401; paths of `OPEN` are for all."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN or self._has_key(scope):
            await self._app(scope, receive, send)
            return
        message = (
            "this server asks for its API key: send it as `Authorization: Bearer KEY` (clients of "
            "OpenAI's format: api_key)"
        )
        reply = error_reply(message, HTTPStatus.UNAUTHORIZED)
        await JSONResponse(reply.content, reply.status)(scope, receive, send)

    def _has_key(self, scope: Scope) -> bool:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        return scheme.lower() == _SCHEME and secrets.compare_digest(given.encode(), self._key)
