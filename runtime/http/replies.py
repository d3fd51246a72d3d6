"""What an endpoint answers with, before any web framework has a hand in it: JSON, or a stream.

Errors have OpenAI's form, so that its clients show their messages; they also stand where SGLang
puts them, beside the form.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

_NAMES: Final = {
    HTTPStatus.BAD_REQUEST: "BadRequestError",
    HTTPStatus.UNAUTHORIZED: "AuthenticationError",
    HTTPStatus.NOT_FOUND: "NotFoundError",
    HTTPStatus.METHOD_NOT_ALLOWED: "BadRequestError",
    HTTPStatus.TOO_MANY_REQUESTS: "RateLimitError",
    HTTPStatus.INTERNAL_SERVER_ERROR: "InternalServerError",
}


@dataclass(frozen=True, slots=True)
class JsonReply:
    """A whole answer."""

    content: dict[str, Any]
    status: HTTPStatus = HTTPStatus.OK


@dataclass(frozen=True, slots=True)
class StreamReply:
    """An answer as server-sent events. `close` stops what writes it; to be awaited whenever nobody
    reads on, also where nobody has begun to."""

    chunks: AsyncGenerator[bytes]
    close: Callable[[], Awaitable[None]]


Reply = JsonReply | StreamReply


def error_reply(message: str, status: HTTPStatus, param: str | None = None) -> JsonReply:
    """An error as a whole answer; `param` names the field that is to blame."""
    error = _error(message, status, param)
    return JsonReply({"object": "error", "error": error, **error}, status)


def error_event(message: str, status: HTTPStatus) -> bytes:
    """An error in the midst of a stream."""
    return server_sent_event({"error": _error(message, status, None)})


def server_sent_event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def named_event(kind: str, data: dict[str, Any]) -> bytes:
    """A server-sent event that says its kind."""
    return f"event: {kind}\n".encode() + server_sent_event(data)


def _error(message: str, status: HTTPStatus, param: str | None) -> dict[str, Any]:
    name = _NAMES.get(status, "InternalServerError" if status >= 500 else "BadRequestError")
    written = message.encode(errors="backslashreplace").decode()  # it may quote what is no text
    return {"message": written, "type": name, "param": param, "code": status.value}
