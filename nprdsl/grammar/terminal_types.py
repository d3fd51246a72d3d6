"""The types that a program gives to the terminals which a schema declares.

`%declare SCORE` leaves open what a `SCORE` is, and whoever loads the schema says so with a type.
`typed` makes two things of it: a regular expression of the texts that are allowed, which constrains
generation, and a function that converts such a text to its Python value.

A pydantic model (or any type that pydantic understands) and a JSON schema stand for compact JSON:
properties in their order, at most one blank where JSON allows white space, no line breaks. An Enum
or `typing.Literal` stands for the text of one of its values, a regex for the text itself, and
`FreeText` for text without tags.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NewType, get_args, get_origin

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic_core import SchemaError

from nprdsl.grammar.json_patterns import shape_pattern
from nprdsl.grammar.json_schema import JsonSchemaReader
from nprdsl.grammar.json_shapes import JsonSchemaError, JsonShape, sketch
from nprdsl.grammar.pydantic_types import pydantic_shape
from nprdsl.regular.dfa import compile_regex
from nprdsl.regular.syntax import RegexError

_SUPPORTED = (
    "give a pydantic model, a JSON schema (dict), a regex, an Enum, typing.Literal[...] or FreeText"
)
# What pydantic raises for constraints that cannot be: its own error of a core schema, and those of
# Python, by functions of a type, names that are not defined, and packages that are not installed.
_BUILDING = (
    SchemaError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    RecursionError,
    TypeError,
    ValueError,
)
_INLINE_FLAGS = {re.IGNORECASE: "i", re.MULTILINE: "m", re.DOTALL: "s", re.VERBOSE: "x"}


class FreeText:
    """The type of a terminal that is free text: no tag, at least one character not blank."""


@dataclass(frozen=True, slots=True)
class TerminalType:
    """`pattern` (Python `re` syntax, `re.ASCII`) is the regex of the terminal's texts.

    `convert` turns a text into its value and raises ValueError where it stands for none: exactly
    where the pattern does not match. `description` is a phrase for prompts, such as "one of `yes`,
    `no`".
    """

    pattern: str
    convert: Callable[[str], object]
    description: str
    free_text: bool = False


class TerminalTypeError(ValueError):
    """A type that a terminal cannot have; `suggestion` is the way out."""

    def __init__(self, message: str, suggestion: str) -> None:
        self.message, self.suggestion = message, suggestion
        super().__init__(f"{message}; {suggestion}")


def typed(name: str, spec: object) -> TerminalType:
    """The type that `spec` gives to terminal `name`. Raises TerminalTypeError."""
    if spec is FreeText:
        return TerminalType("", str, "text", free_text=True)
    if isinstance(spec, str):
        return _regex(name, spec)
    if isinstance(spec, re.Pattern):
        return _regex(name, _with_flags(name, spec))
    if isinstance(spec, type) and issubclass(spec, Enum):
        return _choice(name, {member: member.value for member in spec})
    if get_origin(spec) is Literal:
        return _choice(name, {v: v.value if isinstance(v, Enum) else v for v in get_args(spec)})
    if isinstance(spec, Mapping):
        return _json_schema(name, spec)
    return _pydantic(name, spec)


def _regex(name: str, pattern: str) -> TerminalType:
    return TerminalType(
        pattern, _checked(name, pattern, lambda text: text), f"text that matches /{pattern}/"
    )


def _with_flags(name: str, spec: re.Pattern[Any]) -> str:
    pattern = spec.pattern
    if not isinstance(pattern, str):
        raise TerminalTypeError(
            f"the type of {name} is a regex over bytes", "compile it from a str"
        )
    if spec.flags & re.LOCALE:
        raise TerminalTypeError(f"the regex of {name} depends on the locale", "drop re.LOCALE")
    flags = "".join(letter for flag, letter in _INLINE_FLAGS.items() if spec.flags & flag)
    # a global flag group is in spec.flags already, and may not stand inside another group
    body = re.sub(r"\A\(\?[aimsux]+\)", "", pattern)
    end = "\n" if spec.flags & re.VERBOSE else ""  # the body may end in a comment
    return f"(?{flags}:{body}{end})" if flags else body


def _choice(name: str, values: Mapping[Any, object]) -> TerminalType:
    chosen: dict[str, object] = {}
    for member, value in values.items():
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise TerminalTypeError(
                f"the type of {name} has the value {value!r}",
                "use values that are int or str and not empty",
            )
        if str(value) in chosen:
            raise TerminalTypeError(
                f"the type of {name} has two values that are written {str(value)!r}",
                "write them differently",
            )
        chosen[str(value)] = member
    if not chosen:
        raise TerminalTypeError(f"the type of {name} has no values", "give it at least one")
    pattern = f"(?:{'|'.join(map(re.escape, chosen))})"
    described = ", ".join(f"`{text}`" for text in chosen)
    return TerminalType(pattern, _checked(name, pattern, chosen.__getitem__), f"one of {described}")


def _json_schema(name: str, schema: Mapping[str, Any]) -> TerminalType:
    with _named(name):
        reader = JsonSchemaReader(schema)
        return _json(name, reader.shape, reader.convert)


def _pydantic(name: str, spec: Any) -> TerminalType:
    if spec is str:
        raise TerminalTypeError(
            f"the type of {name} is str", "give FreeText, or a regex of the texts that are allowed"
        )
    refused = TerminalTypeError(f"the type of {name}, {spec!r}, is not supported", _SUPPORTED)
    if not (isinstance(spec, type | NewType) or get_origin(spec) is not None):
        raise refused
    try:
        adapter: TypeAdapter[object] = TypeAdapter(spec)
        core = adapter.core_schema
        core["type"]  # where names are not defined yet, it is built now
    except PydanticUserError as error:
        if error.code == "class-not-fully-defined":
            raise _unbuilt(name, spec, error) from error
        raise refused from error
    except _BUILDING as error:
        raise _unbuilt(name, spec, error) from error
    with _named(name):
        return _json(name, pydantic_shape(core), adapter.validate_json)


def _unbuilt(name: str, spec: object, error: Exception) -> TerminalTypeError:
    """pydantic, or what a type gives it to call, cannot make a validator of the type."""
    said = str(error).partition("For further information")[0].strip().replace("\n", " ")
    return TerminalTypeError(
        f"the type of {name}, {str(spec)[:200]}, cannot be built by pydantic: {said[:300]}",
        "correct the type: `pydantic.TypeAdapter(…)` must take it",
    )


def _json(name: str, shape: JsonShape, convert: Callable[[str], object]) -> TerminalType:
    pattern = shape_pattern(shape)
    description = f"JSON on one line: {sketch(shape)}"
    return TerminalType(pattern, _checked(name, pattern, convert), description)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Faults of a type of JSON values, told of terminal `name`."""
    try:
        yield
    except JsonSchemaError as error:
        raise TerminalTypeError(f"the type of {name}: {error.message}", error.suggestion) from None


def _checked(name: str, pattern: str, convert: Callable[[str], object]) -> Callable[[str], object]:
    """`convert` for the texts of `pattern` only."""
    try:
        compile_regex(pattern)
    except RegexError as error:
        raise TerminalTypeError(f"the regex of {name}: {str(error)[:300]}", "correct it") from None

    def checked(text: str) -> object:
        if not compile_regex(pattern).accepts(text.encode()):
            raise ValueError(f"{text!r} is not a value of {name}: it must match /{pattern}/")
        return convert(text)

    return checked
