"""Where SGLang takes new weights, from a folder or from tensors: they are checked before, and what
fails all the same is that update's failure, not the server's.

Ranks decide together: SGLang would answer with what happened on the first one. What was refused
before anything changed says so (`KEPT`); behind any other failure the weights may be mixed, and
requests are refused until all have come, as a folder or as tensors of several updates
(`nprdsl.runtime.sglang.http.weight_hooks`). Imported in every process of a server.
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
from nprdsl.runtime.sglang.protocol import KEPT, MIXED, MORE

_LOADER: Final = "sglang.srt.model_loader.loader.DefaultModelLoader"
_RUNNER: Final = "sglang.srt.model_executor.model_runner_components.weight_updater.WeightUpdater"
_MANAGER: Final = (
    "sglang.srt.managers.scheduler_components.weight_updater.SchedulerWeightUpdaterManager"
)

_NOW_MIXED: Final = "the weights are mixed now: no request is taken until all have come"

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
    formats = (None, "direct", "flattened_bucket", *updater.custom_weight_loaders)
    if load_format not in formats:
        return False, f"there is no load_format `{load_format}`"
    fault = _known.fault(named_tensors)
    if fault:
        return False, fault
    names = _known.begin(named_tensors)
    answer = original(updater, named_tensors, load_format)
    _known.came(names if answer[0] else ())  # what it refuses, it refuses before it loads
    return answer


@plugin_hook(f"{_MANAGER}.update_weights_from_tensor", HookType.AROUND)
def update_or_fail(original: Callable[..., Any], manager: Any, received: Any) -> Any:
    failed: list[Exception] = []
    answer = None
    with ErrorBoundary(failed.append):
        answer = original(manager, received)
    if answer is None:
        own = f"{type(failed[0]).__name__}: {failed[0]}"
        distributed.barrier(group=manager.tp_cpu_group)  # where ranks that did not fail wait
    else:
        own = "" if answer.success else answer.message
    if own and not _known.is_loading:
        own = f"{own}; {KEPT}"
    fault = _first(manager, own)
    if answer is not None and not fault:
        still = f"; {MORE}" if _known.mixed else ""
        return UpdateWeightsFromTensorReqOutput(success=True, message=f"{answer.message}{still}")
    if KEPT not in fault:
        _known.failed()
        manager.record_weight_version_after_update(MIXED)
        fault = f"{fault}; {_NOW_MIXED}"
    return UpdateWeightsFromTensorReqOutput(success=False, message=fault)


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
    if not fault:
        _known.loaded()
        return answer
    _known.failed()
    manager.record_weight_version_after_update(MIXED)
    return UpdateWeightFromDiskReqOutput(success=False, message=f"{fault}; {_NOW_MIXED}")


def _busy(manager: Any, received: Any) -> str:
    """SGLang would load, and then find that it cannot empty its cache."""
    paused = manager.scheduler is not None and manager.scheduler._engine_paused
    if received.flush_cache and not manager.is_fully_idle(ignore_waiting=paused):
        return "requests are still running"
    return ""


def _first(manager: Any, fault: str) -> str:
    """The fault of the first rank that has one, of those that changed something if there are any;
    the same on every rank."""
    group = manager.tp_cpu_group
    faults: list[Any] = [""] * distributed.get_world_size(group)
    distributed.all_gather_object(faults, fault, group=group)
    found = sorted(filter(None, faults), key=lambda one: KEPT in one)
    return found[0] if found else ""
