"""A server of OpenAI's format over an engine of this process: an ASGI application.

    app = make_app(LocalEngine.from_pretrained("arith"), model="arith")

Chats with a schema and without, text completions, the models and schemas that there are. All
requests share the rounds of the one engine; a client that goes away stops what it has asked for.
Other applications may have routes beside these: `app.router.routes` is a list.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.util import find_spec
from time import time
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from nprdsl.runtime.http.ag_ui import AgUi
from nprdsl.runtime.http.api_key import ApiKey
from nprdsl.runtime.http.body_guard import BodyGuard
from nprdsl.runtime.http.endpoints import json_object, respond
from nprdsl.runtime.http.engine_requests import EngineRequests
from nprdsl.runtime.http.engine_traces import EngineTraces
from nprdsl.runtime.http.openapi import description
from nprdsl.runtime.http.plain_texts import PlainTexts
from nprdsl.runtime.http.replies import Reply, error_reply
from nprdsl.runtime.http.responses import Responses
from nprdsl.runtime.http.schema_intake import SchemaIntake
from nprdsl.runtime.http.served_schemas import described
from nprdsl.runtime.http.serving_settings import ServingSettings
from nprdsl.runtime.http.spans import spanned
from nprdsl.runtime.http.trace_chats import TraceChats
from nprdsl.runtime.metrics import exposition, prometheus_metrics, untold
from nprdsl.runtime.sglang.protocol import TOKENIZER_PATH

if TYPE_CHECKING:
    from nprdsl.runtime.local.engine import LocalEngine

Answer = Callable[[dict[str, Any], Request], Coroutine[Any, Any, Reply]]


def make_app(
    engine: LocalEngine,
    *,
    model: str,
    settings: ServingSettings | None = None,
    host: str = "127.0.0.1",
    api_key: str | None = None,
) -> Starlette:
    """The application. `model` is the name that the engine is served under; `host`, what the server
    listens on, decides whose schemas are taken where `settings` does not say it; an `api_key` is
    asked for on every path but those of `nprdsl.runtime.http.api_key.OPEN`. Raises ValueError where
    the folder of schemas cannot be registered."""
    told = untold
    if find_spec("prometheus_client") is not None:
        engine.observed_by(prometheus_metrics())
        told = prometheus_metrics().schema
    settings = settings or ServingSettings()
    server = _Endpoints(engine, model, SchemaIntake(settings, host, told))
    keyed = [Middleware(ApiKey, api_key)] if api_key else []
    return Starlette(
        routes=server.routes,
        middleware=[*keyed, Middleware(BodyGuard, megabytes=settings.max_body)],
        exception_handlers={HTTPException: _as_error},
        lifespan=server.lifespan,
    )


class _Endpoints:
    """What is behind each path."""

    def __init__(self, engine: LocalEngine, model: str, intake: SchemaIntake) -> None:
        self._engine = engine
        self._model = model
        self._intake = intake
        self._since = int(time())
        traces = spanned(EngineTraces(engine, model, intake))
        self._traces = TraceChats(traces)
        self._texts = PlainTexts(engine, model)
        self._requests = EngineRequests(engine, model, intake)
        self._responses = Responses(traces, self._texts)
        self._agents = AgUi(traces)
        self._schemas: dict[str, Any] | None = None

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/health", self.health),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.one_model),
            Route("/v1/schemas", self.schemas),
            Route("/v1/chat/completions", self._answering(self._chat), methods=["POST"]),
            Route("/v1/completions", self._answering(self._text), methods=["POST"]),
            Route("/v1/responses", self._answering(self._response), methods=["POST"]),
            Route("/ag-ui", self._answering(self._ag_ui), methods=["POST"]),
            Route("/openapi.json", self.openapi),
            Route("/metrics", self.metrics),
            Route("/server_info", self.server_info),
            Route(TOKENIZER_PATH, self.tokenizer),
            Route("/generate", self._answering(self._generated), methods=["POST"]),
            Route("/abort_request", self._answering(self._abort), methods=["POST"]),
        ]

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        await self._intake.close()

    # -- what there is -----------------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._model_entry()]})

    async def one_model(self, request: Request) -> Response:
        self._check_model(request.path_params["name"])
        return JSONResponse(self._model_entry())

    async def schemas(self, request: Request) -> Response:
        if self._schemas is None:  # a vocabulary of a usual size takes seconds
            forms = self._intake.register.forms
            self._schemas = await asyncio.to_thread(described, forms, self._engine.bind)
        return JSONResponse(self._schemas)

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(description())

    async def metrics(self, request: Request) -> Response:
        if find_spec("prometheus_client") is None:
            raise HTTPException(
                HTTPStatus.NOT_FOUND,
                "there are no metrics without prometheus_client: pip install prometheus_client",
            )
        content, kind = exposition()
        return Response(content, media_type=kind)

    async def server_info(self, request: Request) -> Response:
        return JSONResponse(self._requests.info())

    async def tokenizer(self, request: Request) -> Response:
        reply = await asyncio.to_thread(self._requests.tokenizer)
        return JSONResponse(reply.content, reply.status)

    def _model_entry(self) -> dict[str, Any]:
        return {
            "id": self._model,
            "object": "model",
            "created": self._since,
            "owned_by": "nprdsl",
        }

    # -- answers -----------------------------------------------------------------------------------

    def _answering(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint that reads JSON, waits for the answer and sends it."""

        async def endpoint(request: Request) -> Response:
            body = json_object(await request.body())
            self._check_model(body.get("model"))
            return await respond(request.receive, answer(body, request))

        return endpoint

    async def _chat(self, body: dict[str, Any], request: Request) -> Reply:
        if body.get("schema") is None:
            return await self._texts.chat(body)
        return await self._traces.answer(body, _client_of(request))

    async def _text(self, body: dict[str, Any], request: Request) -> Reply:
        return await self._texts.text(body)

    async def _response(self, body: dict[str, Any], request: Request) -> Reply:
        return await self._responses.answer(body, _client_of(request))

    async def _ag_ui(self, body: dict[str, Any], request: Request) -> Reply:
        if isinstance(given := body.get("forwardedProps"), dict):
            self._check_model(given.get("model"))
        return await self._agents.answer(body, _client_of(request))

    async def _generated(self, body: dict[str, Any], request: Request) -> Reply:
        return await self._requests.generate(body, _client_of(request))

    async def _abort(self, body: dict[str, Any], request: Request) -> Reply:
        return self._requests.abort(body, _client_of(request))

    def _check_model(self, named: Any) -> None:
        """Raises HTTPException for another model than that which is served."""
        if named and named != self._model:
            raise HTTPException(
                HTTPStatus.NOT_FOUND, f"this server has no model `{named}`, it has `{self._model}`"
            )


def _client_of(request: Request) -> str:
    return "" if request.client is None else request.client.host


async def _as_error(request: Request, error: Exception) -> Response:
    """What has no endpoint, or not with this method, in the form of all errors."""
    assert isinstance(error, HTTPException)
    reply = error_reply(error.detail, HTTPStatus(error.status_code))
    return JSONResponse(reply.content, reply.status, error.headers)
