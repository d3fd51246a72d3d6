"""`nprdsl serve`: stock SGLang with the plugin, in one command."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import click

from nprdsl.cli.console import working
from nprdsl.cli.failures import Command, Rejected, told

_SETTINGS = {"ignore_unknown_options": True, "allow_interspersed_args": False}


class _Stopped(Exception):
    """The command was asked to end."""


@click.command(cls=Command, short_help="Serve a model with SGLang.", context_settings=_SETTINGS)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[MODEL] [OPTIONS]...")
def serve(arguments: tuple[str, ...]) -> None:
    """Serve MODEL, a folder or a hub name, with SGLang and all schemas; without MODEL the bundled
    model `arith`.

    OPTIONS are those of `sglang serve`, such as --port 30000 or --tp-size 2. Without CUDA the
    options that a CPU needs are chosen. Ctrl-C stops the server.
    """
    from nprdsl.runtime.sglang import cpu, launch

    model, options = None, list(arguments)
    if options and not options[0].startswith("-"):
        model = options.pop(0)
    with told(launch.CannotServeError):
        found = launch.check_installed()
        made = launch.command(model, options, cuda=cpu.has_cuda())
        launch.check_port(made.host, made.port)
    click.echo(f"SGLang {found}: {' '.join(made.chosen)}", err=True)
    if not made.cuda:
        click.echo("no CUDA: plain torch on the CPU, for tests and small models", err=True)
    signal.signal(signal.SIGTERM, _stop)
    server = launch.Server(made)
    try:
        with told(launch.CannotServeError, kind=Rejected), working("starting SGLang"):
            info = server.ready(lambda: None)
        click.echo(f"ready: {made.url} (OpenAI: {made.url}/v1), {info.capacity:,} tokens of KV")
        code = server.wait()
        raise Rejected(f"SGLang ended with exit code {code}")
    except _Stopped:
        sys.exit(0)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        server.stop()


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped
