"""Starts stock SGLang with the plugin as a child process (`nprdsl serve`), and stops all of it.

What would fail later is refused before anything is loaded: no SGLang, a version that the plugin was
not tested with, options under which schemas cannot run, a port in use.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Final

from nprdsl.runtime.adapter_settings import adapter_settings
from nprdsl.runtime.bundled import ARITH, is_bundled, model_folder
from nprdsl.runtime.errors import EngineUnavailableError, ModelNotFoundError
from nprdsl.runtime.http.listening import CannotServeError, url_of
from nprdsl.runtime.http.schema_intake import checked_settings
from nprdsl.runtime.http.serving_settings import ServingSettings
from nprdsl.runtime.sglang import cpu
from nprdsl.runtime.sglang.client.remote_server import RemoteServer
from nprdsl.runtime.sglang.client.transport import Transport
from nprdsl.runtime.sglang.plugin import TESTED
from nprdsl.runtime.sglang.protocol import ServerInfo

GROUP: Final = "sglang.srt.plugins"
NAME: Final = "nprdsl"
HOST: Final = "127.0.0.1"
PORT: Final = "30000"
OVERLAP_OFF: Final = "--disable-overlap-schedule"
GRACE_S: Final = 10.0  # between asking a server to stop and ending it
_POLL_S: Final = 0.5
_PR_SET_PDEATHSIG: Final = 1

_NO_OVERLAP: Final = (
    "the overlap scheduler chooses a step before it is known which branches run; what it costs to "
    "go without is in docs/serving.md"
)
# Options of ours: the setting of each.
OWN: Final[Mapping[str, str]] = {
    f"--{name.replace('_', '-')}": name for name in ServingSettings.model_fields
}
# Options under which schemas cannot run: the values that are harmless, and why others are refused.
REFUSED: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "--enable-overlap-schedule": ((), _NO_OVERLAP),
    "--no-disable-overlap-schedule": ((), _NO_OVERLAP),
    "--page-size": (("1",), "branches end anywhere, so KV pages hold one token"),
    "--speculative-algorithm": ((), "speculative decoding writes tokens that no schema has seen"),
    "--pp-size": (("1",), "pipeline parallelism keeps several steps in flight"),
    "--pipeline-parallel-size": (("1",), "pipeline parallelism keeps several steps in flight"),
    "--enable-dp-attention": ((), "attention has to see all branches of a request on one rank"),
    "--disaggregation-mode": (("null",), "branches are filled and decoded on one server"),
    "--skip-tokenizer-init": ((), "schemas are read in the bytes of the tokenizer's tokens"),
    "--tokenizer-worker-num": (("1",), "requests for schemas are checked in one process"),
    "--enable-hierarchical-cache": ((), "rows of branches cannot be moved to the host"),
}


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """The command line of a server. `arguments` are all options of SGLang's, `chosen` those that
    were added to the user's; `settings` are the plugin's own."""

    arguments: tuple[str, ...]
    chosen: tuple[str, ...]
    settings: ServingSettings
    host: str
    port: int
    cuda: bool
    api_key: str | None = None

    @property
    def url(self) -> str:
        return url_of(self.host, self.port)


def is_installed() -> bool:
    """Whether there is any SGLang."""
    try:
        return bool(version("sglang"))
    except PackageNotFoundError:
        return False


def check_installed() -> str:
    """SGLang's version. Raises CannotServeError."""
    try:
        installed = version("sglang")
    except PackageNotFoundError:
        raise CannotServeError(
            f"SGLang is not installed here: pip install sglang=={TESTED[-1]} on a machine with "
            "CUDA; without, `make sglang-env` makes a virtual environment for it (docs/serving.md)"
        ) from None
    if installed not in TESTED:
        raise CannotServeError(
            f"SGLang {installed} is installed, the plugin is tested with {', '.join(TESTED)}: "
            f"pip install sglang=={TESTED[-1]}"
        )
    if NAME not in {point.name for point in entry_points(group=GROUP)}:
        raise CannotServeError(
            f"SGLang does not find the plugin: nprdsl is not installed in this environment (entry "
            f"point `{NAME}` in `{GROUP}`); pip install nprdsl, or pip install -e . in a checkout"
        )
    only = [name.strip() for name in os.environ.get("SGLANG_PLUGINS", "").split(",")]
    if any(only) and NAME not in only:
        raise CannotServeError(
            f"SGLANG_PLUGINS allows {', '.join(filter(None, only))} only: add {NAME} or unset it"
        )
    return installed


def command(model: str | None, options: Sequence[str], *, cuda: bool) -> ServerCommand:
    """The command line of the server. Raises CannotServeError for options that cannot work."""
    settings, options = _own_settings(options)
    given = _parse_options(options)
    for name, (harmless, why) in REFUSED.items():
        if name in given and given[name] not in harmless:
            raise CannotServeError(f"{_spelled(name, given[name])} cannot be used: {why}")
    chosen: dict[str, str] = {}
    if not {"--model-path", "--model"} & given.keys():
        name = ARITH if model is None else model
        chosen["--model-path"] = _whole_model(name)
        if is_bundled(name):
            chosen["--served-model-name"] = name
    chosen |= {"--host": HOST, "--port": PORT, "--log-level": "error", OVERLAP_OFF: ""}
    if not cuda:
        chosen |= cpu.OPTIONS
    chosen = {name: value for name, value in chosen.items() if name not in given}
    arguments = [part for pair in chosen.items() for part in pair if part]
    return ServerCommand(
        arguments=(*arguments, *options),
        chosen=tuple(_spelled(*pair) for pair in chosen.items()),
        settings=settings,
        host=given.get("--host") or HOST,
        port=_port(given.get("--port") or PORT),
        cuda=cuda,
        api_key=given.get("--api-key"),
    )


class Server:
    """A running server; it and all that it starts are one process group."""

    def __init__(self, made: ServerCommand) -> None:
        self.command = made
        environment = {**os.environ, **made.settings.environment()}
        if not made.cuda:
            cpu.extend(environment)
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "sglang.launch_server", *made.arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )

    def ready(self, waiting: Callable[[], None]) -> ServerInfo:
        """Waits until it answers; `waiting` is called meanwhile. Raises CannotServeError."""
        transport = Transport(self.command.url, self.command.api_key)
        while True:
            if self._process.poll() is not None:
                raise CannotServeError(
                    f"SGLang ended with exit code {self._process.returncode} before it was ready; "
                    "what it said stands above (more with --log-level info)"
                )
            with suppress(EngineUnavailableError):
                if transport.is_success("/ready"):
                    break
            waiting()
            time.sleep(_POLL_S)
        info = RemoteServer(transport).plugin
        if info is None:
            raise CannotServeError(
                "SGLang runs, but the plugin is not in it; what went wrong stands above"
            )
        if info.refusal:
            raise CannotServeError(f"this server cannot run schemas: {info.refusal}")
        return info

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        return self._process.wait()

    def stop(self) -> None:
        """Ends the server and all processes that it has started."""
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _whole_model(name: str) -> str:
    """The folder or hub name that SGLang opens. Raises CannotServeError for an adapter."""
    folder = model_folder(name)
    try:
        adapter = adapter_settings(Path(folder))
    except ModelNotFoundError as error:
        raise CannotServeError(str(error)) from error
    if adapter is not None:
        raise CannotServeError(
            f"`{name}` is a PEFT adapter of `{adapter.base}`, and this server needs whole weights; "
            "use `--engine local`, or merge it with PEFT's merge_and_unload and serve that folder"
        )
    return folder


def _parse_options(options: Sequence[str]) -> dict[str, str]:
    """Options by name; "" where no value follows."""
    given: dict[str, str] = {}
    for i, option in enumerate(options):
        if not option.startswith("--"):
            continue
        name, equals, value = option.partition("=")
        if not equals and i + 1 < len(options) and not options[i + 1].startswith("--"):
            value = options[i + 1]
        given[name] = value
    return given


def _own_settings(options: Sequence[str]) -> tuple[ServingSettings, list[str]]:
    """The plugin's settings, and the options that are left for SGLang. Raises CannotServeError."""
    given: dict[str, str] = {}
    left: list[str] = []
    pending = list(options)
    while pending:
        option = pending.pop(0)
        name, equals, value = option.partition("=")
        if name not in OWN:
            left.append(option)
            continue
        if not equals:
            value = pending.pop(0) if pending else ""
        given[OWN[name]] = value
    try:
        settings = checked_settings(given)
    except ValueError as error:
        raise CannotServeError(str(error)) from error
    return settings, left


def _spelled(name: str, value: str) -> str:
    return f"{name} {value}" if value else name


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise CannotServeError(f"--port is {text}, it must be a number from 1 to 65535")
    return int(text)


def _die_with_parent() -> None:
    """In the child: lets the kernel send it SIGTERM when this process dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
