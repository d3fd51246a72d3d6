"""From the JSON of an HTTP request to the response: what all endpoints of ours have in common."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import Receive

from nprdsl.runtime.http.connected import EventStream, while_connected
from nprdsl.runtime.http.replies import JsonReply, Reply

_CLIENT_GONE: Final = 499  # nobody reads it


def json_object(body: bytes) -> dict[str, Any]:
    """Raises HTTPException."""
    try:
        read = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"the body is no JSON: {error}") from error
    if not isinstance(read, Mapping):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the body must be a JSON object")
    return dict(read)


async def respond(receive: Receive, work: Coroutine[Any, Any, Reply]) -> Response:
    """Waits for the answer; if the client goes away meanwhile, the work is cancelled."""
    reply = await while_connected(receive, work)
    if reply is None:
        return Response(status_code=_CLIENT_GONE)
    if isinstance(reply, JsonReply):
        return JSONResponse(reply.content, reply.status)
    return EventStream(reply)
