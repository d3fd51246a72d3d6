"""`nprdsl studio`: a page on this machine to write a schema and to watch a model run it."""

from __future__ import annotations

import os
import signal
import sys
import webbrowser
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from nprdsl.cli.console import working
from nprdsl.cli.failures import Failure, as_failure, requiring
from nprdsl.cli.files import read_text
from nprdsl.cli.generation import check_model_options, load_model, reach_engine
from nprdsl.cli.options import AT_LEAST_1, argument, command, option, terminals_option
from nprdsl.cli.terminals import read_types, typed_terminals
from nprdsl.grammar.diagnostics import SchemaError, did_you_mean
from nprdsl.schema import SchemaNotFoundError, load, shipped, source_of
from nprdsl.studio.trace_rows import ROLLOUTS

if TYPE_CHECKING:
    from nprdsl.runtime.engine import Engine

_PASSWORD: Final = "NPRDSL_STUDIO_PASSWORD"  # in the environment
_SHORTEST: Final = 8  # characters of a password
_MODEL: Final = "arith"
_GRACE_S: Final = 2  # for open streams, when the studio is stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class StudioOptions:
    schema: str | None = argument("[SCHEMA]", default=None)
    model: str = option(_MODEL, "The model that runs.", metavar="PATH|NAME")
    engine: str | None = option(
        None, "A server whose model runs, as `nprdsl serve` starts it.", metavar="URL"
    )
    api_key: str | None = option(
        None, "That server's [NPRDSL_API_KEY of the environment].", metavar="SECRET"
    )
    terminals: str | None = terminals_option()
    traces: tuple[str, ...] = option(
        (), "Show the traces of this file, or of the folder of a training run.", metavar="FILE"
    )
    device: str = option("cpu", "cpu, cuda, cuda:1 or mps.")
    dtype: str = option("auto", "auto, fp32, bf16 or fp16.")
    max_kv_tokens: int = option(
        65_536, "Tokens in memory, of all prompts together.", type=AT_LEAST_1
    )
    host: str = option("127.0.0.1", "What it listens on; for other machines with --password.")
    password: str | None = option(
        None,
        "Ask whoever opens the page for it [NPRDSL_STUDIO_PASSWORD of the environment].",
        metavar="SECRET",
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
    machine alone, and for whoever knows its address; with --host, for whoever has the password.
    Ctrl-C stops it.
    """
    with requiring("studio", user="this command"):
        import uvicorn

        from nprdsl.runtime.studio.app import StudioSettings, make_studio
    from nprdsl.runtime.http.listening import CannotServeError, listening, url_of
    from nprdsl.studio.pages import StudioNotBuiltError, static_file

    with as_failure(StudioNotBuiltError):
        static_file("studio.js")
    password = _password(options)
    check_model_options(options)
    given = {} if options.terminals is None else read_types(options.terminals)
    schemas, first, file = _schemas(options.schema, given)
    types = typed_terminals(given)
    files = {name: _trace_file(name) for name in options.traces}
    with as_failure(CannotServeError):
        bound = listening(options.host, options.port)
    engine, model = _engine(options)
    settings = StudioSettings(
        model=model,
        schemas=schemas,
        first=first,
        files=files,
        password=password,
        file=file,
        types=types,
    )
    address = f"{url_of(options.host, bound.getsockname()[1])}/studio/"
    if not password:
        address += f"?token={settings.token}"

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
    Server(config).run(sockets=[bound])


def _password(options: StudioOptions) -> str:
    """Empty for a studio that this machine alone reaches and that has none."""
    from nprdsl.runtime.http.listening import is_loopback

    given = os.environ.get(_PASSWORD, "") if options.password is None else options.password
    if not given and not is_loopback(options.host):
        raise Failure(
            f"--host {options.host} opens the studio to other machines: give --password, which the "
            "page then asks for"
        )
    if given and len(given) < _SHORTEST:
        raise Failure(f"a password has {_SHORTEST} characters at least")
    return given


def _engine(options: StudioOptions) -> tuple[Engine, str]:
    """The engine, and the name of its model."""
    if options.engine is None:
        with working(f"loading {options.model}"):
            name, device = options.model, options.device
            return load_model(name, device, options.dtype, options.max_kv_tokens), name
    with working(f"asking {options.engine}"):
        remote = reach_engine(options.engine, options.api_key)
    return remote, f"{remote.info.model} at {options.engine}"


def _trace_file(name: str) -> Path:
    """The file; of a folder, the rollouts that a training run has written into it."""
    path = Path(name)
    file = path / ROLLOUTS if path.is_dir() else path
    if not file.is_file():
        raise Failure(f"there is no file `{file}` of traces")
    return file


def _schemas(given: str | None, types: Mapping[str, object]) -> tuple[Any, str, str]:
    """The schemas to choose from, the name of the first, and the path of its file."""
    from nprdsl.runtime.studio.app import ShippedSchema
    from nprdsl.runtime.studio.schema_questions import FILE

    known = [
        ShippedSchema(name=name, text=source_of(name), prompt=_question(name, types))
        for name in shipped()
    ]
    if given is None or given in shipped():
        return tuple(known), given or _MODEL, FILE
    if not given.endswith(".lark"):
        hint = did_you_mean(given, shipped()) or f"shipped: {', '.join(shipped())}"
        raise SchemaNotFoundError(f"no schema is named `{given}`; {hint}")
    mine = ShippedSchema(name=Path(given).name, text=read_text(given), prompt="")
    return (mine, *known), mine.name, given


def _question(name: str, types: Mapping[str, object]) -> str:
    for given in (types, {}):  # which are those of one schema
        with suppress(SchemaError):
            examples = load(name, given).examples
            return examples[0].question if examples else ""
    return ""
