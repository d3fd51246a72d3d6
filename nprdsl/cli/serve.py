"""`nprdsl serve`: stock SGLang with the plugin, in one command."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from types import FrameType

import click

from nprdsl.cli.console import working
from nprdsl.cli.failures import BadResult, as_failure
from nprdsl.cli.options import argument, command

_SETTINGS = {"ignore_unknown_options": True, "allow_interspersed_args": False}


class _Stopped(Exception):
    """The command was asked to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    arguments: tuple[str, ...] = argument(
        "[MODEL] [OPTIONS]...", default=(), type=click.UNPROCESSED
    )


@command(ServeOptions, short_help="Serve a model with SGLang.", context_settings=_SETTINGS)
def serve(options: ServeOptions) -> None:
    """Serve MODEL, a folder or a hub name, with SGLang and all schemas; without MODEL the bundled
    model `arith`.

    OPTIONS are those of `sglang serve`, such as --port 30000 or --tp-size 2. Without CUDA the
    options that a CPU needs are chosen. Ctrl-C stops the server.
    """
    from nprdsl.runtime.sglang import cpu, launch

    model, arguments = None, list(options.arguments)
    if arguments and not arguments[0].startswith("-"):
        model = arguments.pop(0)
    with as_failure(launch.CannotServeError):
        version = launch.check_installed()
        server_command = launch.command(model, arguments, cuda=cpu.has_cuda())
        launch.check_port(server_command.host, server_command.port)
    click.echo(f"SGLang {version}: {' '.join(server_command.chosen)}", err=True)
    if not server_command.cuda:
        click.echo("no CUDA: plain torch on the CPU, for tests and small models", err=True)
    signal.signal(signal.SIGTERM, _stop)
    server = launch.Server(server_command)
    try:
        with as_failure(launch.CannotServeError, kind=BadResult), working("starting SGLang"):
            info = server.ready(lambda: None)
        url = server_command.url
        click.echo(f"ready: {url} (OpenAI: {url}/v1), {info.capacity:,} tokens of KV")
        code = server.wait()
        raise BadResult(f"SGLang ended with exit code {code}")
    except _Stopped:
        sys.exit(0)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        server.stop()


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped
