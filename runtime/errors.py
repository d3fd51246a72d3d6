"""What an engine refuses, the same for every engine.

A request that began and failed is a `GenerationError` (see `results`).
"""

from __future__ import annotations


class CapacityError(ValueError):
    """A request that can never fit, however long it waits."""


class UnsupportedModelError(ValueError):
    """A model that the engine cannot run, with the reason."""


class EngineUnavailableError(ConnectionError):
    """No server answers at the address, or what answers is no engine for schemas."""


class UnsupportedServerError(ValueError):
    """A request that this server cannot run, with the reason; another one could."""
