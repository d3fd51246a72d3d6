"""The entry point and its commands."""

from __future__ import annotations

import errno
import gc
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import click

from nprdsl.cli.check import check
from nprdsl.cli.console import tolerate
from nprdsl.cli.curate import curate
from nprdsl.cli.evaluate import evaluate
from nprdsl.cli.failures import ExitCode
from nprdsl.cli.fuzz import fuzz
from nprdsl.cli.lsp import language_server
from nprdsl.cli.run import run
from nprdsl.cli.schemas import schemas
from nprdsl.cli.serve import serve
from nprdsl.cli.show import show
from nprdsl.cli.studio import studio
from nprdsl.cli.train import sample, train
from nprdsl.grammar.diagnostics import SchemaWarning

# Generations keep many small objects, and none in cycles: by default the collector takes a tenth of
# the time of hundreds of requests, looking at all of them again and again.
_COLLECTED: Final = (100_000, 50, 100)
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # the disk's fault, not ours


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    try:
        click.echo(f"nprdsl {version('nprdsl')}")
    except PackageNotFoundError:
        click.echo("nprdsl (not installed)")
    ctx.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """A language for parallel reasoning.

    One schema is the parser, the constraint, the scheduler and the mask.
    """


for _command in (
    run, serve, studio, evaluate, check, show, fuzz, schemas, curate, sample, train,
    language_server,
):  # fmt: skip
    cli.add_command(_command)


def warned(otherwise: Callable[..., None]) -> Callable[..., None]:
    """Shows warnings of the language as messages, and all others as before."""

    def show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
        if issubclass(category, SchemaWarning):
            click.echo(f"warning: {message}", err=True)
        else:
            otherwise(message, category, *rest)

    return show


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with an exit code of `nprdsl.cli.failures`."""
    gc.set_threshold(*_COLLECTED)
    tolerate()
    warnings.showwarning = warned(warnings.showwarning)
    try:
        code = cli.main(args=arguments, prog_name="nprdsl", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would break into the exit
        click.echo("interrupted", err=True)
        sys.exit(ExitCode.INTERRUPTED)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        click.echo(f"error: cannot write the output: {error.strerror}", err=True)
        sys.exit(ExitCode.BAD)
    sys.exit(code or 0)
