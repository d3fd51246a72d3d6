"""`nprdsl serve --engine local`: OpenAI's endpoints over the engine of this process."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from nprdsl.cli.console import working
from nprdsl.cli.failures import as_failure, requiring
from nprdsl.cli.generation import load_model
from nprdsl.cli.options import AT_LEAST_1, option, parsed

_GRACE_S: Final = 3  # between being asked to stop and leaving clients


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalServeOptions:
    """What may follow MODEL where this process runs it."""

    host: str = option("127.0.0.1", "What the server listens on.")
    port: int = option(30_000, type=click.IntRange(1, 65_535))
    api_key: str | None = option(
        None, "Clients have to send it [NPRDSL_API_KEY of the environment]."
    )
    served_model_name: str | None = option(None, "[the name of MODEL]")
    device: str = option("cpu", "cpu, cuda, cuda:1 or mps.")
    dtype: str = option("auto", "auto, fp32, bf16 or fp16.")
    max_kv_tokens: int = option(
        65_536, "Tokens in memory, of all prompts together.", type=AT_LEAST_1
    )
    schemas: str | None = option(
        None,
        "Which schemas are taken [any on an address of this machine, else registered].",
        type=click.Choice(["shipped", "registered", "any"]),
    )
    schema_folder: str = option("", "Its .lark files are registered.", show_default=False)
    schema_timeout: float = option(5.0, "Seconds in which a client's schema must be read.")
    max_body: float = option(8.0, "Megabytes that a request's body may have.")


def read_options(arguments: Sequence[str]) -> LocalServeOptions:
    """The options behind MODEL. A `click.UsageError` where one is wrong."""
    return parsed(LocalServeOptions, "nprdsl serve --engine local", arguments)


def serve_local(model: str | None, options: LocalServeOptions) -> None:
    """Serves the model until it is stopped by a signal."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with requiring("serve", user="this command"):
        import uvicorn

        from nprdsl.runtime.http.app import make_app
    from nprdsl.runtime.api_key import api_key
    from nprdsl.runtime.bundled import ARITH, is_bundled
    from nprdsl.runtime.http.listening import CannotServeError, check_port, url_of
    from nprdsl.runtime.http.schema_intake import checked_settings
    from nprdsl.runtime.http.spans import export_spans

    name = ARITH if model is None else model
    given: dict[str, Any] = {"schemas": options.schemas, "schema_folder": options.schema_folder}
    with as_failure(ValueError, CannotServeError):
        given |= {"schema_timeout": options.schema_timeout, "max_body": options.max_body}
        settings = checked_settings(given)
        key = api_key(options.api_key)
        check_port(options.host, options.port)
    with working(f"loading {name}"):
        engine = load_model(name, options.device, options.dtype, options.max_kv_tokens)
    export_spans()
    served = options.served_model_name or (name if is_bundled(name) else Path(name).name)
    app = make_app(
        engine,
        model=served,
        settings=settings,
        host=options.host,
        api_key=key or None,
    )
    url = url_of(options.host, options.port)

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                click.echo(f"ready: {url} (OpenAI: {url}/v1), the model is `{served}`")

    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        log_level="warning",
        timeout_graceful_shutdown=_GRACE_S,
    )
    Server(config).run()
