"""Engines that run a schema. `LocalEngine` (torch) is embedded; it is imported on first use, so
that
sampling settings and results can be used where torch is not installed.

Non-goals: the language itself (see `nprdsl`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nprdsl.runtime.results import GenerationError, Result, Usage
from nprdsl.runtime.sampling import Sampling

if TYPE_CHECKING:
    from nprdsl.runtime.local.engine import LocalEngine

__all__ = ["GenerationError", "LocalEngine", "Result", "Sampling", "Usage"]


def __getattr__(name: str) -> object:
    if name == "LocalEngine":
        from nprdsl.runtime.local.engine import LocalEngine

        return LocalEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
