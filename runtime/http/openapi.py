"""`GET /openapi.json`: what the endpoints take, from the models that read it."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from nprdsl.runtime.http.ag_ui import RunInput
from nprdsl.runtime.http.request_models import (
    PlainChatRequest,
    ResponseRequest,
    TextRequest,
    TraceRequest,
)

_REF: Final = "#/components/schemas/{model}"
_READ: Final = {  # GET
    "/health": "whether the server answers",
    "/v1/models": "the model that is served",
    "/v1/schemas": "the schemas that a chat can name, their tags and least tokens",
}
_ASKED: Final[dict[str, tuple[str, tuple[type[BaseModel], ...]]]] = {  # POST
    "/v1/chat/completions": (
        "a chat; with `schema`, its answer is that of a trace",
        (TraceRequest, PlainChatRequest),
    ),
    "/v1/responses": (
        "the same as a response with output items; other fields are those of a chat",
        (ResponseRequest,),
    ),
    "/ag-ui": (
        "a trace as events of AG-UI; `forwardedProps` are the other fields of a chat with `schema`",
        (RunInput,),
    ),
    "/v1/completions": ("text that goes on with a prompt", (TextRequest,)),
}


def description() -> dict[str, Any]:
    """The document, of OpenAPI 3.1."""
    models = [model for _, kinds in _ASKED.values() for model in kinds]
    _, defined = models_json_schema([(m, "validation") for m in models], ref_template=_REF)
    paths: dict[str, Any] = {
        path: {"get": {"summary": summary, "responses": _responses()}}
        for path, summary in _READ.items()
    }
    for path, (summary, kinds) in _ASKED.items():
        taken = [{"$ref": _REF.format(model=kind.__name__)} for kind in kinds]
        content = {"application/json": {"schema": {"anyOf": taken} if len(taken) > 1 else taken[0]}}
        body = {"required": True, "content": content}
        refused = {"description": "refused; `error.message` says why"}
        paths[path] = {
            "post": {
                "summary": summary,
                "requestBody": body,
                "responses": _responses() | {"400": refused},
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "nprdsl", "version": "1"},
        "paths": paths,
        "components": {"schemas": defined["$defs"]},
    }


def _responses() -> dict[str, Any]:
    return {"200": {"description": "the answer", "content": {"application/json": {}}}}
