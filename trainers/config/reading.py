"""Reads a configuration from TOML, and changes to it from the command line.

A file and the class of a stage go in, the checked configuration comes out, or an error that lists
every fault at once with a way out of each.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from nprdsl.grammar.diagnostics import did_you_mean

Config = TypeVar("Config", bound=BaseModel)


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names all that is wrong with it."""


def read_config(kind: type[Config], path: Path, changes: Sequence[str] = ()) -> Config:
    """The configuration in a TOML file. `changes`: `section.key=value` each, the value as TOML has
    it; text may stand without quotes. Raises ConfigError."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read `{path}`: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"`{path}` is not TOML: {error}") from error
    for change in changes:
        _change(data, change)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        faults = [_fault(kind, fault) for fault in error.errors()]
        lines = "".join(f"\n  {fault}" for fault in faults)
        raise ConfigError(f"`{path}` cannot be used:{lines}") from error


def _change(data: dict[str, Any], change: str) -> None:
    place, separator, text = change.partition("=")
    keys = [key.strip() for key in place.split(".")]
    if not separator or not all(keys):
        raise ConfigError(f"`{change}` is not KEY=VALUE, such as optimizer.learning_rate=1e-6")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *sections, last = keys
    for number, key in enumerate(sections):
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise ConfigError(f"`{'.'.join(sections[: number + 1])}` is a value, not a section")
    data[last] = value


def _fault(kind: type[BaseModel], fault: ErrorDetails) -> str:
    places = [str(part) for part in fault["loc"]]
    where = ".".join(places)
    match fault["type"]:
        case "extra_forbidden":
            known = _keys(kind, places[:-1])
            hint = did_you_mean(places[-1], known) or f"known: {', '.join(known)}"
            section = f" in [{'.'.join(places[:-1])}]" if len(places) > 1 else ""
            return f"there is no key `{places[-1]}`{section}; {hint}"
        case "missing":
            return f"`{where}` is missing"
        case "value_error":
            about = f"`{where}`: " if where else ""
            return about + fault["msg"].removeprefix("Value error, ")
    message = fault["msg"][:1].lower() + fault["msg"][1:]
    return f"`{where}` is {fault['input']!r}: {message}"


def _keys(kind: type[BaseModel], places: Sequence[str]) -> list[str]:
    """The keys of a section, as they stand in TOML."""
    for place in places:
        for name, field in kind.model_fields.items():
            if place == (field.alias or name):
                kind = _model(field.annotation)
    return [field.alias or name for name, field in kind.model_fields.items()]


def _model(annotation: Any) -> type[BaseModel]:
    """The model that a field holds, optional or not."""
    kinds = get_args(annotation) or (annotation,)
    models = [one for one in kinds if isinstance(one, type) and issubclass(one, BaseModel)]
    assert models, "only sections have keys"
    return models[0]
