"""Why a server does not run a request, with the status that its client is told.

Whatever goes wrong while a request is read and prepared becomes one of these: a client's mistake
with the words that mend it, a fault of ours with a hash under which the log explains it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from pydantic import ValidationError

_log = logging.getLogger(__name__)


class RefusedError(ValueError):
    """A request that can never run on this server; the message is for the client."""

    status: HTTPStatus = HTTPStatus.BAD_REQUEST


class TooManyError(RefusedError):
    """A request for which there is no place now."""

    status = HTTPStatus.TOO_MANY_REQUESTS


class PreparationError(RuntimeError):
    """A request that could not be prepared, through no fault of its own that we know of."""

    status: HTTPStatus = HTTPStatus.INTERNAL_SERVER_ERROR


def as_refusal(error: Exception, request: object) -> RefusedError | PreparationError:
    """What a client is told of an error while its request was prepared. One that is not the
    client's goes to the log, with a hash of the request."""
    if isinstance(error, RefusedError | PreparationError):
        return error
    digest = hashlib.sha256(repr(request).encode("utf-8", "backslashreplace")).hexdigest()[:16]
    _log.error("the request %s could not be prepared", digest, exc_info=error)
    return PreparationError(
        f"the request could not be prepared ({type(error).__name__}); the server's log says why, "
        f"for {digest}"
    )


@contextmanager
def refusing() -> Iterator[None]:
    """What is wrong with a request that is read or prepared inside becomes a RefusedError."""
    try:
        yield
    except ValidationError as error:
        faults = (
            f"{'.'.join(map(str, fault['loc'])) or 'request'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
        message = "the request is malformed: " + "; ".join(faults)
        raise RefusedError(message) from error
    except (ValueError, FileNotFoundError) as error:
        raise RefusedError(str(error)) from error
