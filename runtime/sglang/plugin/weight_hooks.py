"""Where SGLang takes new weights from tensors: they are checked before, and what fails all the same
is that update's failure, not the server's. Imported in every process of a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from sglang.srt.managers.io_struct import UpdateWeightsFromTensorReqOutput
from sglang.srt.plugins.hook_registry import HookType, plugin_hook

from nprdsl.runtime.errors import ErrorBoundary
from nprdsl.runtime.sglang.plugin.weight_checks import KnownWeights

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
