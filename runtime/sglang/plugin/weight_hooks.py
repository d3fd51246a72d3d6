"""Where SGLang takes new weights, from a folder or from tensors: they are checked before, and what
fails all the same is that update's failure, not the server's.

Ranks decide together: SGLang would answer with what happened on the first one. What was refused
before anything changed says so (`KEPT`); behind any other failure the weights may be mixed, and
requests are refused until all have come (`nprdsl.runtime.sglang.http.weight_hooks`). Imported in
every process of a server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from sglang.srt.managers.io_struct import (
    UpdateWeightFromDiskReqOutput,
    UpdateWeightsFromTensorReqOutput,
)
from sglang.srt.plugins.hook_registry import HookType, plugin_hook
from torch import distributed

from nprdsl.runtime.errors import ErrorBoundary
from nprdsl.runtime.sglang.plugin.weight_checks import KnownWeights
from nprdsl.runtime.sglang.protocol import KEPT, MIXED

_LOADER: Final = "sglang.srt.model_loader.loader.DefaultModelLoader"
_RUNNER: Final = "sglang.srt.model_executor.model_runner_components.weight_updater.WeightUpdater"
_MANAGER: Final = (
    "sglang.srt.managers.scheduler_components.weight_updater.SchedulerWeightUpdaterManager"
)

_known = KnownWeights()  # of the one model of this process


@plugin_hook(f"{_LOADER}.load_weights_only", HookType.BEFORE)
def note_weights(
    model: Any, weights: Iterable[Any], target_device: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (model, _known.noting(weights), target_device), {}


@plugin_hook(f"{_RUNNER}.update_weights_from_tensor", HookType.AROUND)
def check_weights(
    original: Callable[..., Any], updater: Any, named_tensors: Any, load_format: str | None = None
) -> Any:
    fault = _known.fault(named_tensors)
    return (False, fault) if fault else original(updater, named_tensors, load_format)


@plugin_hook(f"{_MANAGER}.update_weights_from_tensor", HookType.AROUND)
def update_or_fail(original: Callable[..., Any], manager: Any, received: Any) -> Any:
    failed: list[Exception] = []
    with ErrorBoundary(failed.append):
        return original(manager, received)
    told = f"{type(failed[0]).__name__}: {failed[0]}; load a checkpoint: weights may be mixed now"
    return UpdateWeightsFromTensorReqOutput(success=False, message=told)


@plugin_hook(f"{_MANAGER}.update_weights_from_disk", HookType.AROUND)
def load_or_keep(original: Callable[..., Any], manager: Any, received: Any) -> Any:
    fault = _first(manager, _busy(manager, received) or _known.folder_fault(received.model_path))
    if fault:
        return UpdateWeightFromDiskReqOutput(success=False, message=f"{fault}; {KEPT}")
    failed: list[Exception] = []
    answer = None
    with ErrorBoundary(failed.append):
        answer = original(manager, received)
    own = f"{type(failed[0]).__name__}: {failed[0]}" if failed else ""
    if answer is not None and not answer.success:
        own = answer.message
    fault = _first(manager, own)
    _known.mixed = bool(fault)
    if not fault:
        return answer
    manager.record_weight_version_after_update(MIXED)
    told = f"{fault}; the weights are mixed now: no request is taken until all have come"
    return UpdateWeightFromDiskReqOutput(success=False, message=told)


def _busy(manager: Any, received: Any) -> str:
    """SGLang would load, and then find that it cannot empty its cache."""
    paused = manager.scheduler is not None and manager.scheduler._engine_paused
    if received.flush_cache and not manager.is_fully_idle(ignore_waiting=paused):
        return "requests are still running"
    return ""


def _first(manager: Any, fault: str) -> str:
    """The fault of the first rank that has one; the same on every rank."""
    group = manager.tp_cpu_group
    faults: list[Any] = [""] * distributed.get_world_size(group)
    distributed.all_gather_object(faults, fault, group=group)
    return next(filter(None, faults), "")
