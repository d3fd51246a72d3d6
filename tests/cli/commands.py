"""The command line as a process of its own, and in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner, Result

import nprdsl
from nprdsl.cli.main import cli

ROOT = Path(nprdsl.__file__).parents[1]
MAIN = "from nprdsl.cli.main import main; main()"
SECONDS = 300  # for one process


def invoke(*arguments: object, stdin: str | bytes | None = None) -> Result:
    """Run a command here; an error without a name is raised."""
    result = CliRunner().invoke(cli, [*map(str, arguments)], stdin, prog_name="nprdsl")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    threads = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, "PYTHONPATH": str(ROOT), **threads, **extra}


def process(
    *arguments: object,
    cwd: Path,
    before: str = "",
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command as a process; `before` is Python that runs first."""
    return subprocess.run(
        _command(arguments, before),
        cwd=cwd,
        env=environment(env or {}),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
        timeout=SECONDS,
    )


@contextmanager
def started(*arguments: object, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command that is running; it is killed in the end."""
    running = subprocess.Popen(
        _command(arguments, ""),
        cwd=cwd,
        env=environment({}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate(timeout=SECONDS)


def _command(arguments: tuple[object, ...], before: str) -> list[str]:
    return [sys.executable, "-c", before + MAIN, *(str(a) for a in arguments)]
