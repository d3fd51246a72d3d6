"""The command line as a process of its own, from scratch or forked, and in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from click.testing import CliRunner, Result

import nprdsl
from nprdsl.cli.main import cli
from tests.forked import SECONDS, Forked, command, forked

ROOT = Path(nprdsl.__file__).parents[1]
MAIN = "from nprdsl.cli.main import main; main()"


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
    """Run a command as a process from scratch; `before` is Python that runs first."""
    return subprocess.run(
        [sys.executable, "-c", before + MAIN, *(str(a) for a in arguments)],
        cwd=cwd,
        env=environment(env or {}),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
        timeout=SECONDS,
    )


def quick(
    *arguments: object, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """As `process`, forked."""
    with started(*arguments, cwd=cwd, env=env) as running:
        out, err = (said.decode("utf-8", "replace") for said in running.communicate())
        return subprocess.CompletedProcess(arguments, running.wait(), out, err)


def started(
    *arguments: object, cwd: Path, env: Mapping[str, str] | None = None, terminal: str | None = None
) -> AbstractContextManager[Forked]:
    """A command that is running, forked; it is killed in the end."""
    variables = environment(env or {})
    return forked(command, *arguments, cwd=cwd, env=variables, terminal=terminal)
