"""Lets every request pass the intake before SGLang has it, in each process that takes requests.

That is the server's HTTP process, or a process with an engine of its own. The rest of what the
plugin does there stands in `nprdsl.runtime.sglang.http.endpoint_hooks`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Final
from weakref import WeakKeyDictionary

from fastapi import HTTPException
from sglang.srt.managers.io_struct import GenerateReqInput
from sglang.srt.plugins.hook_registry import HookType, plugin_hook

from nprdsl.runtime.errors import ErrorBoundary
from nprdsl.runtime.http.refusals import PreparationError, RefusedError, as_refusal
from nprdsl.runtime.metrics import prometheus_metrics, untold
from nprdsl.runtime.sglang.http.intake import Intake
from nprdsl.runtime.sglang.http.weight_hooks import check_weights
from nprdsl.runtime.sglang.protocol import KEY, wants_trace

_MANAGER: Final = "sglang.srt.managers.tokenizer_manager.TokenizerManager"

_pending: dict[int, GenerateReqInput] = {}  # by id: those that SGLang does not know yet
_aborted: set[str] = set()  # names of requests that were aborted before SGLang knew them
_intakes: WeakKeyDictionary[Any, Intake] = WeakKeyDictionary()  # by SGLang's tokenizer manager


def intake_of(manager: Any) -> Intake:
    """The intake of a server, made when it is asked for first. Raises ValueError where what the
    server was told at start cannot be."""
    if manager not in _intakes:
        model = manager.model_config
        _intakes[manager] = Intake(
            manager.tokenizer,
            outputs=int(model.vocab_size),
            hidden=int(model.hidden_size),
            positions=int(model.context_len),
            host=manager.server_args.host,
            told=prometheus_metrics().schema if manager.enable_metrics else untold,
        )
    return _intakes[manager]


def client_of(request: Any) -> str:
    """Who sent an HTTP request; "" without one."""
    return "" if request is None or request.client is None else str(request.client.host)


@plugin_hook(f"{_MANAGER}.generate_request", HookType.AROUND)
async def take_in(
    original: Callable[..., AsyncGenerator[Any]], manager: Any, obj: Any, request: Any = None
) -> AsyncGenerator[Any]:
    """Raises what SGLang answers with: ValueError for a 400, HTTPException for others."""
    check_weights(manager)
    if isinstance(obj, GenerateReqInput):
        _read_session_params(obj)
        refusals: list[RefusedError | PreparationError] = []
        _pending[id(obj)], is_taken = obj, False
        try:
            with ErrorBoundary(lambda error: refusals.append(as_refusal(error, obj))):
                await intake_of(manager).take_in(obj, client_of(request))
            is_taken = not refusals
        finally:
            del _pending[id(obj)]
            if not is_taken:  # or its client went away
                _aborted.difference_update(_names(obj))
        for refusal in refusals:
            if refusal.status is HTTPStatus.BAD_REQUEST:
                raise refusal
            raise HTTPException(refusal.status, str(refusal))
    async with aclosing(original(manager, obj, request)) as outputs:
        async for output in outputs:
            yield output


@plugin_hook(f"{_MANAGER}._validate_one_request", HookType.BEFORE)
def refuse_empty_prompt(manager: Any, obj: Any, input_ids: Any) -> None:
    """A text is seen to have no token only here. A forward pass of nothing ends the scheduler."""
    if isinstance(obj, GenerateReqInput):
        prompt = input_ids if obj.input_embeds is None else obj.input_embeds
        if prompt is not None and not len(prompt):
            raise RefusedError("the prompt is empty: it needs one token at least")


def _read_session_params(obj: GenerateReqInput) -> None:
    """A request that came through a router carries its `ForkRequest` in `session_params`."""
    carried = obj.session_params
    if isinstance(carried, dict) and KEY in carried:
        obj.sampling_params = {**(obj.sampling_params or {}), "custom_params": carried}
        obj.session_params = None


def _names(obj: GenerateReqInput) -> list[str]:
    """The names that a client gave its request; none where SGLang will make them."""
    return [obj.rid] if isinstance(obj.rid, str) else list(obj.rid or ())


@plugin_hook(f"{_MANAGER}.abort_request", HookType.BEFORE)
def note_abort(manager: Any, rid: str = "", abort_all: bool = False) -> None:
    """SGLang forgets an abort of a request that it does not know. Those whose schema is being read
    are aborted once it does."""
    names = {name for obj in _pending.values() for name in _names(obj)}
    _aborted.update(names if abort_all else names & {rid})


@plugin_hook(f"{_MANAGER}._send_one_request", HookType.AROUND)
async def repeat_abort(original: Callable[..., Any], manager: Any, tokenized: Any) -> Any:
    """While the server is paused, or takes new weights, requests are held back and an abort
    overtakes its request. SGLang sends an abort only once, so it is sent again."""
    custom = tokenized.sampling_params.custom_params
    state = manager.rid_to_state.get(tokenized.rid)
    sent = await original(manager, tokenized)
    is_aborted = state is not None and (state.abort_sent or tokenized.rid in _aborted)
    _aborted.discard(tokenized.rid)
    if wants_trace(custom) and is_aborted:
        state.abort_sent = False
        manager.abort_request(tokenized.rid)
    return sent
