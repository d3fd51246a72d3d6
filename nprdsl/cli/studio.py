"""`nprdsl studio`: a page on this machine to write a schema and to watch a model run it."""

from __future__ import annotations

import signal
import socket
import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from nprdsl.cli.console import working
from nprdsl.cli.failures import as_failure, requiring
from nprdsl.cli.files import read_text
from nprdsl.cli.generation import load_model
from nprdsl.cli.options import AT_LEAST_1, argument, command, option
from nprdsl.grammar.diagnostics import SchemaError, did_you_mean
from nprdsl.schema import SchemaNotFoundError, load, shipped, source_of

_HOST: Final = "127.0.0.1"
_MODEL: Final = "arith"
_GRACE_S: Final = 2  # for open streams, when the studio is stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class StudioOptions:
    schema: str | None = argument("[SCHEMA]", default=None)
    model: str = option(_MODEL, "The model that runs.", metavar="PATH|NAME")
    device: str = option("cpu", "cpu, cuda, cuda:1 or mps.")
    dtype: str = option("auto", "auto, fp32, bf16 or fp16.")
    max_kv_tokens: int = option(
        65_536, "Tokens in memory, of all prompts together.", type=AT_LEAST_1
    )
    port: int = option(
        0, "What the page is served on [a free one].", type=click.IntRange(0, 65_535),
        show_default=False,
    )  # fmt: skip
    open: bool = option(False, "Open the page in a browser.")


@command(StudioOptions, short_help="A page to write schemas and watch a model run them.")
def studio(options: StudioOptions) -> None:
    """Serve a page on this machine: an editor for SCHEMA (a name or a .lark path) that tells its
    faults and mends them, a picture of it, and a model that runs it, its branches side by side.

    Without SCHEMA it begins with `arith`, which the bundled model knows. The page is for this
    machine alone, and for whoever knows its address. Ctrl-C stops it.
    """
    with requiring("studio", user="this command"):
        import uvicorn

        from nprdsl.runtime.studio.app import StudioSettings, make_studio
    from nprdsl.studio.pages import StudioNotBuiltError, static_file

    with as_failure(StudioNotBuiltError):
        static_file("studio.js")
    schemas, first = _schemas(options.schema)
    listening = _listening(options.port)
    with working(f"loading {options.model}"):
        engine = load_model(options.model, options.device, options.dtype, options.max_kv_tokens)
    settings = StudioSettings(model=options.model, schemas=schemas, first=first)
    address = f"http://{_HOST}:{listening.getsockname()[1]}/studio/?token={settings.token}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            click.echo(f"ready: {address}")
            if options.open:
                webbrowser.open(address)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        make_studio(engine, settings), log_level="error", timeout_graceful_shutdown=_GRACE_S
    )
    Server(config).run(sockets=[listening])


def _schemas(given: str | None) -> tuple[Any, str]:
    """The schemas to choose from, and the name of the first."""
    from nprdsl.runtime.studio.app import ShippedSchema

    known = [
        ShippedSchema(name=name, text=source_of(name), prompt=_question(name)) for name in shipped()
    ]
    if given is None or given in shipped():
        return tuple(known), given or _MODEL
    if not given.endswith(".lark"):
        hint = did_you_mean(given, shipped()) or f"shipped: {', '.join(shipped())}"
        raise SchemaNotFoundError(f"no schema is named `{given}`; {hint}")
    mine = ShippedSchema(name=Path(given).name, text=read_text(given), prompt="")
    return (mine, *known), mine.name


def _question(name: str) -> str:
    try:
        examples = load(name).examples
    except SchemaError:  # it needs types
        return ""
    return examples[0].question if examples else ""


def _listening(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with as_failure(OSError, about=f"nothing can listen on {_HOST}:{port}"):
        made.bind((_HOST, port))
    return made
