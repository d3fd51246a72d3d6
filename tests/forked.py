"""Processes that need not load torch: each is forked from one that has, which the first of a test
run starts (`multiprocessing`'s fork server).

To start Python and load torch takes seconds, to fork less than a tenth of one. What runs is the
same, but for that start: what an import does, or a variable that Python itself reads, is tested
with a process from scratch (`tests.cli.commands.process`).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from nprdsl.cli.main import main

SECONDS = 300  # for one process
LOADED = (
    "nprdsl.cli.main",
    "nprdsl.trainers.curate",
    "nprdsl.trainers.evaluate",
    *(f"nprdsl.trainers.stages.{stage}" for stage in ("sft", "zero", "papo", "sample")),
)
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(list(LOADED))


class Forked:
    """A running process, with the interface of `subprocess.Popen` as far as tests need it."""

    def __init__(self, process: ForkServerProcess, out: Path, err: Path) -> None:
        self._process = process
        self._files = (out, err)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def wait(self, seconds: float = SECONDS) -> int:
        """The exit code, or the signal that ended it as a negative number."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked process", seconds)
        return self._process.exitcode

    def communicate(self, timeout: float = SECONDS) -> tuple[bytes, bytes]:
        """What it wrote to stdout and to stderr until its end."""
        self.wait(timeout)
        out, err = (file.read_bytes() if file.is_file() else b"" for file in self._files)
        return out, err


@contextmanager
def forked(
    work: Callable[..., object],
    *arguments: Any,
    cwd: Path,
    env: Mapping[str, str],
    terminal: str | None = None,
) -> Iterator[Forked]:
    """A process that calls `work`, a function of a module, and then ends; it is killed in the end.

    Its whole environment is `env`; stdout and stderr are files, or the terminal of that name.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(terminal or Path(folder, name)) for name in ("out", "err"))
        streams = (str(out), str(err))
        process = _CONTEXT.Process(
            target=_run, args=(streams, str(cwd), dict(env), work, arguments)
        )
        process.start()
        try:
            yield Forked(process, out, err)
        finally:
            process.kill()
            process.join(SECONDS)


def command(*arguments: object) -> None:
    """`nprdsl` with these arguments."""
    main([*map(str, arguments)])


def ranks(count: int) -> list[dict[str, str]]:
    """What tells each of `count` processes on this machine who it is, as `torchrun` sets it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    sizes = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    return [address | sizes | {"RANK": str(r), "LOCAL_RANK": str(r)} for r in range(count)]


def _run(
    streams: tuple[str, str],
    cwd: str,
    env: dict[str, str],
    work: Callable[..., object],
    arguments: tuple[object, ...],
) -> None:
    for number, name in enumerate(streams, 1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    work(*arguments)
