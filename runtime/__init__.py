"""Engines that run a schema. `LocalEngine` (torch) is embedded, `SGLangEngine` is that of a server;
both are imported on first use, so that sampling settings and results can be used where torch is not
installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from nprdsl.runtime.results import Completion, GenerationError, Result, Usage
from nprdsl.runtime.sampling import Sampling

if TYPE_CHECKING:
    from nprdsl.runtime.engine import Engine
    from nprdsl.runtime.local.engine import LocalEngine
    from nprdsl.runtime.sglang.client.engine import SGLangEngine

__all__ = [
    "Completion",
    "Engine",
    "GenerationError",
    "LocalEngine",
    "Result",
    "SGLangEngine",
    "Sampling",
    "Usage",
]


_MODULES: Final = {
    "Engine": "engine",
    "LocalEngine": "local.engine",
    "SGLangEngine": "sglang.client.engine",
}
_PACKAGE: Final = __name__.partition(".")[0]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return vars(import_module(f"{__name__}.{_MODULES[name]}"))[name]
    except ModuleNotFoundError as error:
        if (error.name or _PACKAGE).partition(".")[0] == _PACKAGE:
            raise
        raise ModuleNotFoundError(
            f"{name} needs {error.name}; install it with: pip install '{_PACKAGE}[local]'",
            name=error.name,
        ) from error
