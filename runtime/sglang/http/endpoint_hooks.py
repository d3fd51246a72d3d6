"""What the plugin does in the process of a server that speaks HTTP.

It serves the tokenizer's files, keeps streams of reports short, tells sooner whether the server is
well, and answers chat completions that name a schema. Plain requests pass through untouched.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from sglang.srt.entrypoints.http_server import app
from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest
from sglang.srt.plugins.hook_registry import HookType, plugin_hook

from nprdsl.runtime.http.body_guard import BodyGuard
from nprdsl.runtime.http.schema_guard import SchemaGuard
from nprdsl.runtime.http.serving_settings import ServingSettings
from nprdsl.runtime.http.spans import export_spans
from nprdsl.runtime.sglang.http.chat import SGLangChats
from nprdsl.runtime.sglang.http.first_fault import end_at_first_fault
from nprdsl.runtime.sglang.http.health import first_sign
from nprdsl.runtime.sglang.http.intake_hooks import intake_of
from nprdsl.runtime.sglang.http.trace_endpoints import TraceEndpoints
from nprdsl.runtime.sglang.protocol import KEY, TOKENIZER_PATH, ServerInfo, tokenizer_files

_HTTP: Final = "sglang.srt.entrypoints.http_server"
_SERVING: Final = "sglang.srt.entrypoints.openai.serving_base.OpenAIServingBase"
_MANAGER: Final = "sglang.srt.managers.tokenizer_manager.TokenizerManager"

_info: list[ServerInfo] = []  # one, once the server is up
_schemas: list[dict[str, Any]] = []  # what is told of them, once somebody has asked
_chats: list[SGLangChats] = []  # one, once a chat with a schema came


@plugin_hook(f"{_HTTP}._setup_and_run_http_server", HookType.BEFORE)
def add_tokenizer_path(
    server_args: Any, manager: Any, templates: Any, ports: Any, infos: Any, *args: Any, **kw: Any
) -> None:
    _info[:] = [ServerInfo.model_validate(infos[0][KEY])]
    intake_of(manager)
    export_spans()

    def tokenizer() -> JSONResponse:
        return JSONResponse(tokenizer_files(manager.tokenizer))

    async def schemas() -> JSONResponse:
        if not _schemas:  # the vocabulary of a large model takes seconds
            _schemas.append(await intake_of(manager).described())
        return JSONResponse(_schemas[0])

    async def health(request: Request) -> Response:
        return await first_sign(manager, request)

    def chats() -> SGLangChats:
        return _chats_of(app.state.openai_serving_chat)

    end_at_first_fault(app.routes)
    app.add_middleware(SchemaGuard)
    app.add_middleware(TraceEndpoints, chats=chats)
    app.add_middleware(BodyGuard, megabytes=ServingSettings.of_environment().max_body)
    app.add_api_route("/v1/schemas", schemas, methods=["GET"])
    app.add_api_route(TOKENIZER_PATH, tokenizer, methods=["GET"])
    app.add_api_route("/health", health, methods=["GET"], include_in_schema=False)
    app.router.routes.insert(0, app.router.routes.pop())  # before SGLang's own


@plugin_hook(f"{_MANAGER}._stream_one_response", HookType.AROUND)
async def send_reports_once(
    original: Callable[..., AsyncIterator[Any]], manager: Any, obj: Any, state: Any, request: Any
) -> AsyncIterator[Any]:
    """Each chunk of SGLang repeats what was sent before. Where chunks go out over HTTP, only new
    reports are sent."""
    repeats = request is not None and not manager.incremental_streaming_output
    async for out in original(manager, obj=obj, state=state, request=request):
        reports = state.customized_info_accumulated.get(KEY)
        if repeats and reports is not None and KEY in out.get("meta_info", ()):
            out["meta_info"][KEY] = [report for report in reports if report]
            del reports[:]
        yield out


@plugin_hook(f"{_MANAGER}.abort_request", HookType.AROUND)
def abort_whole_chat(
    original: Callable[..., Any], manager: Any, rid: str = "", abort_all: bool = False
) -> None:
    """A chat with n > 1 has several answers, which SGLang knows as requests of their own."""
    for name in [rid] if abort_all or not _chats else _chats[0].rids_of(rid):
        original(manager, rid=name, abort_all=abort_all)


def _chats_of(serving: Any) -> SGLangChats:
    """The server's chats with schemas. Made for the first one: that reads the whole vocabulary."""
    if not _chats:
        _chats.append(SGLangChats(serving, _info[0], intake_of(serving.tokenizer_manager)))
    return _chats[0]


@plugin_hook(f"{_SERVING}.handle_request", HookType.AROUND)
async def answer_chat(
    original: Callable[..., Any], serving: Any, request: Any, raw_request: Any
) -> Any:
    """A chat completion with a `schema` is answered by the plugin."""
    if isinstance(request, ChatCompletionRequest):
        body = await raw_request.json()
        carried = (body.get("session_params") or {}).get(KEY)
        if isinstance(carried, dict):
            body = {**body, **carried}
            del body["session_params"]
        if body.get("schema") is not None:
            return await _chats_of(serving).response(request, body, raw_request)
    return await original(serving, request, raw_request)
