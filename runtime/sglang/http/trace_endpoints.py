"""Endpoints for traces at paths that SGLang answers otherwise, or not at all: an ASGI application
around SGLang's.

A POST to `/v1/responses` with a `schema`, and every POST to `/ag-ui`, is answered here, by the
same modules as on any engine; all else passes through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from nprdsl.runtime.http.ag_ui import AgUi
from nprdsl.runtime.http.body_guard import whole_body
from nprdsl.runtime.http.endpoints import json_object, respond
from nprdsl.runtime.http.refusals import RefusedError, refusing
from nprdsl.runtime.http.replies import Reply, error_reply
from nprdsl.runtime.http.request_fields import ROUTING
from nprdsl.runtime.http.responses import Responses
from nprdsl.runtime.http.schema_guard import has_schema
from nprdsl.runtime.http.trace_writing import OnlyTraces
from nprdsl.runtime.sglang.http.chat import SGLangChat, SGLangChats

RESPONSES: Final = "/v1/responses"
AG_UI: Final = "/ag-ui"


class TraceEndpoints:
    """`chats` gives the server's chats with schemas, once it is up."""

    def __init__(self, app: ASGIApp, chats: Callable[[], SGLangChats]) -> None:
        self._app = app
        self._chats = chats

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        if not is_post or scope["path"] not in (RESPONSES, AG_UI):
            await self._app(scope, receive, send)
            return
        body, again = await whole_body(receive)
        if scope["path"] == RESPONSES and not has_schema(body):
            await self._app(scope, again, send)
            return
        try:
            read = json_object(body)
            response = await respond(receive, self._answer(scope["path"], read, scope, receive))
        except HTTPException as error:
            response = _refused(error.detail, HTTPStatus(error.status_code))
        except RefusedError as error:
            response = _refused(str(error), error.status)
        await response(scope, receive, send)

    async def _answer(
        self, path: str, body: Mapping[str, Any], scope: Scope, receive: Receive
    ) -> Reply:
        runner = self._chats().runner
        endpoint = AgUi(runner) if path == AG_UI else Responses(runner, OnlyTraces())
        asked = body.get("forwardedProps") if path == AG_UI else body
        return await endpoint.answer(body, SGLangChat(_as_chat(asked), Request(scope, receive)))


def _refused(message: str, status: HTTPStatus) -> JSONResponse:
    reply = error_reply(message, status)
    return JSONResponse(reply.content, reply.status)


@refusing()
def _as_chat(asked: Any) -> ChatCompletionRequest:
    """What SGLang's own reading says of a request: the model, its name, where it runs. Raises
    RefusedError."""
    given = asked if isinstance(asked, Mapping) else {}
    fields = {name: given[name] for name in (*ROUTING, "model") if given.get(name) is not None}
    return ChatCompletionRequest(messages=[{"role": "user", "content": ""}], **fields)
