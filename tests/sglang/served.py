"""`nprdsl serve` as users start it: a process of its own, with the bundled model, in fp32.

One for all tests, with a client, and the local engine to compare with. It ends by Ctrl-C, and
nothing of it may be left. NPRDSL_TEST_SERVER names a server that is up already. `server` has SGLang
in the process of the tests.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from nprdsl.cli.failures import ExitCode
from nprdsl.runtime import LocalEngine, SGLangEngine
from nprdsl.runtime.sglang.client.transport import Transport
from tests.cli.commands import MAIN, environment

PROMPT = "37*42+85*19?"
PROMPTS = [PROMPT, "60*23+37*42?", "x=20*13+15*27;x*7+x*3?"]
ANSWER = r"\boxed{3169}"  # of the first
POSITIONS = 2048  # of the bundled model
START_S = 300
STOP_S = 30


@dataclass(frozen=True)
class Served:
    """A server that is up. `said` is what the command printed."""

    url: str
    said: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def settle(self) -> None:
        """Waits until the server is idle."""
        idle = Transport(self.url).is_success("/flush_cache?timeout=10")
        assert idle, "requests are left on the server"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The server of the session."""
    up = os.environ.get("NPRDSL_TEST_SERVER")
    if up is not None:
        yield Served(up, "")
        return
    folder = tmp_path_factory.mktemp("served")
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN, "serve", "--port", str(free_port()), *OPTIONS],
            cwd=folder,
            env=environment({}),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        url = _wait(process, log)
        members = _group(process.pid)
        yield Served(url, log.read_text())
        process.send_signal(signal.SIGINT)
        assert process.wait(STOP_S) == ExitCode.INTERRUPTED, log.read_text()
        assert [pid for pid in members if _runs(pid)] == []
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def engine(served: Served) -> Iterator[SGLangEngine]:
    """A client of that server."""
    made = SGLangEngine(served.url)
    yield made
    made.close()


@pytest.fixture(scope="session")
def bundled() -> LocalEngine:
    """The local engine with the same model, in fp32."""
    return LocalEngine.from_pretrained("arith", dtype="fp32")


MEASURED = ("--enable-metrics",) if find_spec("prometheus_client") else ()
OPTIONS = ("--dtype", "float32", "--max-total-tokens", "8192", *MEASURED)


def _wait(process: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(START_S * 2):
        ready = re.search(r"^ready: (\S+)", log.read_text(errors="replace"), re.M)
        if ready:
            return ready[1]
        assert process.poll() is None, log.read_text(errors="replace")
        time.sleep(0.5)
    raise AssertionError(f"not ready after {START_S} s: {log.read_text(errors='replace')}")


def _group(pid: int) -> list[int]:
    """The processes below `pid`, itself not counted."""
    below, waiting = [], [pid]
    while waiting:
        parent = waiting.pop()
        for task in Path(f"/proc/{parent}/task").iterdir():
            children = [int(child) for child in (task / "children").read_text().split()]
            below += children
            waiting += children
    assert len(below) >= 3, "a server has a scheduler and a detokenizer"
    return below


def _runs(pid: int) -> bool:
    """Whether the process runs; one that waits only for its parent to take note does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
