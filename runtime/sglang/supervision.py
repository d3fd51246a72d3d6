"""Starts a server again whenever it ends (`nprdsl serve --restart`).

SGLang ends as a whole when one of its processes dies. The first start must succeed: what cannot
begin at all is an error. After that a server is started again for ever, after a second if it had
run for a while, else after a pause that doubles.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NoReturn, Protocol

from nprdsl.runtime.http.listening import CannotServeError

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
STEADY_S: Final = 60.0  # a server that ran for so long has begun well


class Supervised(Protocol):
    """A server that runs."""

    def wait(self) -> int:
        """Its exit code, once it has ended."""

    def stop(self) -> None:
        """Ends what is left of it."""


def supervise(
    start: Callable[[], Supervised],
    told: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> NoReturn:
    """Starts servers one after another until an exception comes, as of a signal; `start` gives one
    that is ready, or stops it and raises CannotServeError. Raises that of the first start."""
    server, pause = start(), FIRST_PAUSE_S
    while True:
        begun = now()
        try:
            code = server.wait()
        finally:
            server.stop()
        if now() - begun >= STEADY_S:
            pause = FIRST_PAUSE_S
        ended = f"SGLang ended with exit code {code}"
        while True:
            told(f"{ended}; it is started again in {pause:g} s")
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
            try:
                server = start()
                break
            except CannotServeError as error:
                ended = str(error)
