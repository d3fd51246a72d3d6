"""Processes of SGLang that are forked from one which has imported it, instead of each importing it
anew for a dozen seconds; `tests.forked` is the same for commands.

`forking` holds while an engine starts. Each process has the environment of the one that starts it,
as a process from scratch has. `served` is such a server: what its processes import is tested there.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from threading import Thread
from typing import Any
from unittest import mock

from sglang.srt.entrypoints import engine

IMPORTED = (
    "pytest.__main__",  # which a process of the tests imports under another name
    "tests.sglang.imported",
)


@dataclass(frozen=True)
class WithEnvironment:
    """`work`, which another process calls with this one's environment."""

    work: Callable[..., object]

    def __call__(self, *arguments: Any, **named: Any) -> object:
        Thread(target=_end_with_parent, daemon=True).start()
        return self.work(*arguments, **named)

    def __reduce__(self) -> tuple[object, ...]:
        address = forkserver._forkserver._forkserver_address  # type: ignore[attr-defined]
        return _received, (self.work, dict(os.environ), address)


def _received(
    work: Callable[..., object], environment: dict[str, str], address: str
) -> WithEnvironment:
    os.environ.clear()
    os.environ.update(environment)
    # The controller of replicas forks, too: the server that runs is asked, no second one imports.
    server: Any = forkserver._forkserver  # type: ignore[attr-defined]
    server._forkserver_address, server.ensure_running = address, resource_tracker.ensure_running
    return WithEnvironment(work)


def _end_with_parent() -> None:
    """SGLang ends its processes with the one they are forked from, which outlives the tests'."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def forking() -> Iterator[None]:
    """SGLang, which asks for processes from scratch, gets forked ones."""
    multiprocessing.set_forkserver_preload(list(IMPORTED))
    forkserver.ensure_running()
    multiprocessing.set_start_method("forkserver", force=True)
    controller = WithEnvironment(engine.run_data_parallel_controller_process)
    try:
        with (
            mock.patch("multiprocessing.set_start_method"),
            mock.patch.object(engine, "run_data_parallel_controller_process", controller),
        ):
            yield
    finally:
        multiprocessing.set_start_method("spawn", force=True)  # as SGLang leaves it
