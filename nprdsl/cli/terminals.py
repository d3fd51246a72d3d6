"""Schemas by name or path, with the types of their declared terminals from `--terminals`.

`--terminals FILE.json` maps terminals to types: a string is a regex, an object a JSON schema, a
list the texts that are allowed. `--terminals MODULE:NAME` is a mapping as `nprdsl.load` takes it;
the module is imported with the working directory on the path.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from nprdsl.cli.failures import Failure, as_failure, reason
from nprdsl.cli.files import read_text
from nprdsl.grammar.terminal_types import TerminalType, TerminalTypeError, typed
from nprdsl.schema import Schema, SchemaNotFoundError, load


def load_schema(name: str, terminals: str | None) -> Schema:
    """The schema of that name or path with the types that `--terminals` gives."""
    types = None if terminals is None else read_types(terminals)
    try:
        return load(name, types)
    except SchemaNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"cannot read the schema `{name}`: {reason(error)}") from error


def read_types(given: str) -> Mapping[str, object]:
    """The types that `--terminals` names."""
    if given.endswith(".json"):
        return _from_json(given)
    module, separator, name = given.partition(":")
    if not separator or not module or not name:
        raise Failure(f"--terminals is `{given}`; give MODULE:NAME or a .json file")
    return _from_module(module, name)


def typed_terminals(types: Mapping[str, object]) -> dict[str, TerminalType]:
    """The types themselves, for texts of schemas that are still to come."""
    with as_failure(TerminalTypeError):
        return {name: typed(name, spec) for name, spec in types.items()}


def _from_json(file: str) -> dict[str, object]:
    text = read_text(file)
    with as_failure(ValueError, about=f"`{file}` is not JSON"):
        types = json.loads(text)
    if not isinstance(types, dict):
        raise Failure(f"`{file}` must be an object that maps terminals to types")
    return {name: _type(file, name, spec) for name, spec in types.items()}


def _type(file: str, name: str, spec: Any) -> object:
    if isinstance(spec, list):
        return Literal[tuple(spec)]
    if not isinstance(spec, str | dict):
        raise Failure(
            f"`{file}` gives {name} the type {spec!r}; a type is a regex, a JSON schema or a list"
        )
    return spec


def _from_module(module: str, name: str) -> Mapping[str, object]:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    # somebody's module may raise anything
    with as_failure(Exception, about=f"cannot import `{module}`"):
        imported = importlib.import_module(module)
    if name not in vars(imported):
        raise Failure(f"the module `{module}` has no `{name}`")
    types = vars(imported)[name]
    if not isinstance(types, Mapping):
        raise Failure(f"`{module}:{name}` must map terminals to types, not {type(types).__name__}")
    return types
