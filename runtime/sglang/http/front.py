"""What the plugin does where a server meets its clients: it tells of itself, gives out its
tokenizer, sends reports once, and answers chats that name a schema.

Plain requests pass through untouched.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from nprdsl.runtime.sglang.protocol import KEY
from nprdsl.runtime.sglang.server_info import TOKENIZER_PATH, ServerInfo

_SCHEDULER: Final = "sglang.srt.managers.scheduler.Scheduler"
_REPLICAS: Final = "sglang.srt.managers.data_parallel_controller.DataParallelController"
_HTTP: Final = "sglang.srt.entrypoints.http_server"
_CHAT: Final = "sglang.srt.entrypoints.openai.serving_base.OpenAIServingBase"
_MANAGER: Final = "sglang.srt.managers.tokenizer_manager.TokenizerManager"

_info: list[ServerInfo] = []  # one, in the process that talks HTTP


def info_asked(result: dict[str, Any], scheduler: Any) -> dict[str, Any]:
    """After Scheduler.get_init_info: what the scheduler's process tells the others."""
    from sglang.srt.runtime_context import get_serving

    from nprdsl.runtime.engine import own_sampling
    from nprdsl.runtime.sglang.plugin.attach import refusal

    model = scheduler.model_config
    own = model.hf_generation_config
    told = ServerInfo(
        nprdsl=version("nprdsl"),
        model=get_serving().served_model_name,
        positions=min(model.context_len, scheduler.req_to_token_pool.req_to_token.shape[1]),
        capacity=int(scheduler.max_total_num_tokens),
        outputs=model.vocab_size,
        sampling=own_sampling({} if own is None else own.to_dict()),
        refusal=refusal(scheduler),
    )
    return {**result, KEY: told.model_dump(mode="json")}


def replicas_asked(result: dict[str, Any], controller: Any) -> dict[str, Any]:
    """After DataParallelController.get_init_info: what the first replica tells."""
    return {**result, KEY: controller._scheduler_init_infos[0][KEY]}


def server_made(
    server_args: Any, manager: Any, templates: Any, ports: Any, infos: Any, *args: Any, **kw: Any
) -> None:
    """Before http_server._setup_and_run_http_server."""
    from fastapi.responses import JSONResponse
    from sglang.srt.entrypoints.http_server import app

    _info[:] = [ServerInfo.model_validate(infos[0][KEY])]

    def tokenizer() -> JSONResponse:
        return JSONResponse(_files(manager.tokenizer))

    app.add_api_route(TOKENIZER_PATH, tokenizer, methods=["GET"])


def _files(tokenizer: Any) -> dict[str, str]:
    """The files of the tokenizer, by name."""
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_text("utf-8") for path in Path(folder).iterdir()}


async def chunks_asked(
    original: Callable[..., AsyncIterator[Any]], manager: Any, obj: Any, state: Any, request: Any
) -> AsyncIterator[Any]:
    """Around TokenizerManager._stream_one_response. SGLang's chunks repeat all that was sent
    before; of reports only what is new is sent, where the chunks go out over HTTP."""
    repeats = request is not None and not manager.incremental_streaming_output
    async for out in original(manager, obj=obj, state=state, request=request):
        told = state.customized_info_accumulated.get(KEY)
        if repeats and told is not None and KEY in out.get("meta_info", ()):
            out["meta_info"][KEY] = [report for report in told if report]
            del told[:]
        yield out


def request_asked(manager: Any, obj: Any, *args: Any, **kwargs: Any) -> None:
    """Before TokenizerManager.generate_request: what came by a router."""
    from sglang.srt.managers.io_struct import GenerateReqInput

    carried = obj.session_params if isinstance(obj, GenerateReqInput) else None
    if isinstance(carried, dict) and KEY in carried:
        obj.sampling_params = {**(obj.sampling_params or {}), "custom_params": carried}
        obj.session_params = None


async def request_sent(original: Callable[..., Any], manager: Any, tokenized: Any) -> Any:
    """Around TokenizerManager._send_one_request. While the server is paused, or takes new weights,
    requests are held back and an abort overtakes them, which SGLang sends once only."""
    custom = tokenized.sampling_params.custom_params
    state = manager.rid_to_state.get(tokenized.rid)
    sent = await original(manager, tokenized)
    if custom and KEY in custom and state is not None and state.abort_sent:
        state.abort_sent = False
        manager.abort_request(tokenized.rid)
    return sent


async def chat_asked(
    original: Callable[..., Any], serving: Any, request: Any, raw_request: Any
) -> Any:
    """Around OpenAIServingBase.handle_request."""
    from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest

    if isinstance(request, ChatCompletionRequest):
        body = await raw_request.json()
        carried = (body.get("session_params") or {}).get(KEY)
        if isinstance(carried, dict):
            body = {**body, **carried}
            del body["session_params"]
        if "schema" in body:
            from nprdsl.runtime.sglang.http.chat import Chats

            return await Chats.of(serving, _info[0]).answer(request, body, raw_request)
    return await original(serving, request, raw_request)


_INSIDE: Final[tuple[tuple[str, str, Callable[..., Any]], ...]] = (
    (f"{_SCHEDULER}.get_init_info", "after", info_asked),
    (f"{_REPLICAS}.get_init_info", "after", replicas_asked),
)
_OUTSIDE: Final[tuple[tuple[str, str, Callable[..., Any]], ...]] = (
    (f"{_HTTP}._setup_and_run_http_server", "before", server_made),
    (f"{_MANAGER}._stream_one_response", "around", chunks_asked),
    (f"{_MANAGER}.generate_request", "before", request_asked),
    (f"{_MANAGER}._send_one_request", "around", request_sent),
    (f"{_CHAT}.handle_request", "around", chat_asked),
)


def front_hooks() -> tuple[tuple[str, str, Callable[..., Any]], ...]:
    """What is hooked in this process: the first one of a server is the one that talks HTTP."""
    first = multiprocessing.parent_process() is None
    return _INSIDE + _OUTSIDE if first else _INSIDE
