"""`nprdsl lsp`: the language server that editors start."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

from nprdsl.cli.failures import Failure
from nprdsl.cli.options import command, terminals_option
from nprdsl.cli.terminals import read_types, typed_terminals


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageServerOptions:
    terminals: str | None = terminals_option()


@command(LanguageServerOptions, name="lsp", short_help="The language server for editors.")
def language_server(options: LanguageServerOptions) -> None:
    """Tell an editor the faults of schemas as they are written, with their fixes; names, hover,
    completion, rename, formatting.

    Editors start it and speak the Language Server Protocol over stdin and stdout.
    """
    try:
        from nprdsl.cli.language_server import server
    except ModuleNotFoundError as error:
        raise Failure(
            f"the language server needs {error.name}; install it: pip install 'nprdsl[studio]'"
        ) from error
    given = {} if options.terminals is None else read_types(options.terminals)
    server(typed_terminals(given), version("nprdsl")).start_io()
