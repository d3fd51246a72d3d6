"""Whether a server has one version of its weights, in each process that takes requests.

Weights of which a load failed in the middle would answer, and wrongly, without a word; so every
request is a 503 until all weights have come: by a load, or by tensors in several updates
(`nprdsl.runtime.sglang.plugin.weight_hooks`).
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final
from weakref import WeakSet

from fastapi import HTTPException
from sglang.srt.plugins.hook_registry import HookType, plugin_hook

from nprdsl.runtime.sglang.protocol import KEPT, MIXED, MORE

_MANAGER: Final = "sglang.srt.managers.tokenizer_manager.TokenizerManager"
_CONTROL: Final = "sglang.srt.managers.tokenizer_control_mixin.TokenizerControlMixin"

_mixed: WeakSet[Any] = WeakSet()  # SGLang's tokenizer managers


def check_weights(manager: Any) -> None:
    """Raises HTTPException where the weights of the server are mixed."""
    if manager in _mixed:
        raise HTTPException(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "a load of new weights failed in the middle, so the server has none of one version: "
            "load a checkpoint, or put all weights again",
        )


@plugin_hook(f"{_MANAGER}.update_weights_from_disk", HookType.AROUND)
async def note_outcome(
    original: Callable[..., Any], manager: Any, obj: Any, request: Any = None
) -> Any:
    """With several replicas all of them have to say that they kept their weights."""
    answer = await original(manager, obj, request)
    _note(manager, answer[0], answer[1])
    return answer


@plugin_hook(f"{_CONTROL}.update_weights_from_tensor", HookType.AROUND)
async def note_tensors(
    original: Callable[..., Any], manager: Any, obj: Any, request: Any = None
) -> Any:
    answer = await original(manager, obj, request)
    _note(manager, answer[0], answer[1])
    return answer


def _note(manager: Any, success: bool, message: str) -> None:
    if success and MORE not in message:
        _mixed.discard(manager)
    elif success or message.count(KEPT) < manager.elastic_worker_count:
        _mixed.add(manager)
        manager._update_weight_version_if_provided(MIXED)
