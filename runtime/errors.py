"""The errors that engines raise for requests they refuse, and the boundary that keeps a failing
request from taking others with it.

Every engine raises the same classes, so callers need not know which engine they talk to. A request
that was accepted and failed while it ran is reported as a `GenerationError` (see
`nprdsl.runtime.results`).
"""

from __future__ import annotations

from collections.abc import Callable


class CapacityError(ValueError):
    """The request needs more KV memory than the engine has in total, so waiting cannot help."""


class ModelNotFoundError(FileNotFoundError):
    """There is no model at the path, none of that name can be had, or it cannot be read."""


class UnsupportedModelError(ValueError):
    """The engine cannot run this model; the message says which property of it is missing."""


class EngineUnavailableError(ConnectionError):
    """No server answers at the address, or what answers does not run schemas."""


class UnsupportedServerError(ValueError):
    """This server cannot run the request, for a reason that another server may not have."""


class ErrorBoundary:
    """A `with` block inside which any error fails one request; the other requests run on.

    `fail` is called with the error, which then does not propagate. The only place in the package
    that catches everything: a model or an engine underneath may raise anything at all.
    `KeyboardInterrupt` and `SystemExit` pass through.
    """

    __slots__ = ("_fail",)

    def __init__(self, fail: Callable[[Exception], None]) -> None:
        self._fail = fail

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self._fail(error)
        return True
