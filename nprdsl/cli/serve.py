"""`nprdsl serve`: a model behind OpenAI's endpoints, by stock SGLang with the plugin or by the
engine of this process."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from enum import StrEnum
from types import FrameType

import click

from nprdsl.cli.console import working
from nprdsl.cli.failures import BadResult, as_failure
from nprdsl.cli.options import argument, command, option
from nprdsl.cli.serve_local import read_options, serve_local

_SETTINGS = {"ignore_unknown_options": True, "allow_interspersed_args": False}


class _Stopped(Exception):
    """The command was asked to end."""


class ServingEngine(StrEnum):
    """What runs the model."""

    SGLANG = "sglang"
    LOCAL = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    engine: str | None = option(
        None,
        "What runs the model: SGLang, or this process [sglang where it is installed].",
        type=click.Choice([engine.value for engine in ServingEngine]),
    )
    restart: bool = option(False, "Start SGLang again whenever it ends, until it is stopped here.")
    arguments: tuple[str, ...] = argument(
        "[MODEL] [OPTIONS]...", default=(), type=click.UNPROCESSED
    )


@command(ServeOptions, short_help="Serve a model to OpenAI clients.", context_settings=_SETTINGS)
def serve(options: ServeOptions) -> None:
    """Serve MODEL, a folder or a hub name, with all schemas, by SGLang or in this process; without
    MODEL the bundled model `arith`. Ctrl-C stops the server.

    OPTIONS are those of `sglang serve`, such as --port 30000 or --tp-size 2; without CUDA the
    options that a CPU needs are chosen.

    With --engine local they are --host, --port, --api-key, --served-model-name, --device, --dtype,
    --max-kv-tokens, --schemas, --schema-folder, --schema-timeout and --max-body; `nprdsl serve
    --engine local MODEL --help` explains them.
    """
    from nprdsl.runtime.sglang import launch

    arguments = list(options.arguments)
    engine = _engine_of(arguments) or options.engine
    restart = options.restart or "--restart" in arguments
    arguments = [word for word in arguments if word != "--restart"]
    if engine is None and not launch.is_installed():
        engine = ServingEngine.LOCAL
        click.echo("SGLang is not installed here: this process runs the model", err=True)
    model = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    if engine == ServingEngine.LOCAL:
        if restart:
            raise click.UsageError(
                "--restart is for SGLang, whose processes may die: this engine is one process, and "
                "what starts it can start it again (docs/serving.md has a unit for systemd)"
            )
        serve_local(model, read_options(arguments))
    else:
        _serve_sglang(model, arguments, restart=restart)


def _engine_of(arguments: list[str]) -> str | None:
    """What `--engine` says where it stands behind MODEL; it is taken out."""
    for at, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name == "--engine":
            if not equals:
                value = "".join(arguments[at + 1 : at + 2])
            del arguments[at : at + (1 if equals else 2)]
            if value not in list(ServingEngine):
                raise click.UsageError(f"--engine is {value!r}, it must be sglang or local")
            return value
    return None


def _serve_sglang(model: str | None, arguments: list[str], *, restart: bool) -> None:
    from nprdsl.runtime.http.listening import CannotServeError, check_port
    from nprdsl.runtime.sglang import cpu, launch
    from nprdsl.runtime.sglang.supervision import supervise

    with as_failure(CannotServeError):
        version = launch.check_installed()
        server_command = launch.command(model, arguments, cuda=cpu.has_cuda())
        check_port(server_command.host, server_command.port)
    click.echo(f"SGLang {version}: {' '.join(server_command.chosen)}", err=True)
    if not server_command.cuda:
        click.echo("no CUDA: plain torch on the CPU, for tests and small models", err=True)
    signal.signal(signal.SIGTERM, _stop)
    running: list[launch.Server] = []  # one, while there is one

    def start() -> launch.Server:
        running[:] = [server] = [launch.Server(server_command)]
        with working("starting SGLang"):
            info = server.ready(lambda: None)
        url = server_command.url
        click.echo(f"ready: {url} (OpenAI: {url}/v1), {info.capacity:,} tokens of KV")
        return server

    try:
        with as_failure(CannotServeError, kind=BadResult):
            if restart:
                supervise(start, lambda what: click.echo(what, err=True))
            code = start().wait()
        raise BadResult(f"SGLang ended with exit code {code}")
    except _Stopped:
        sys.exit(0)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second leaves no server behind
            signal.signal(number, signal.SIG_IGN)
        for server in running:
            server.stop()


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped
