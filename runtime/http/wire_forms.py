"""The forms in which schemas and limits travel as JSON, between clients and any server of ours.

A schema travels as text: its source, the sources of the files that it imports, and a regular
expression for each typed terminal. Client and server thus compile it with the same code; values of
typed terminals are converted by the client, which has the Python types.
"""

from __future__ import annotations

import importlib.resources
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

from nprdsl.grammar.diagnostics import did_you_mean
from nprdsl.grammar.resolve import read_grammar
from nprdsl.grammar.terminal_types import FreeText, TerminalType, typed
from nprdsl.machine.budget import DEFAULT_LIMITS, Limits, TextTokens
from nprdsl.schema import Schema, SchemaNotFoundError, shipped

_MAX_SOURCE: Final = 1_000_000  # characters of a schema
_Source = Annotated[str, Field(max_length=_MAX_SOURCE)]


class _WireModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TerminalForm(_WireModel):
    """The type of a declared terminal as a regular expression; `pattern` None is free text."""

    pattern: _Source | None
    description: str = ""

    def type(self, name: str) -> TerminalType:
        """Raises TerminalTypeError if the pattern is not a valid regular expression."""
        if self.pattern is None:
            return typed(name, FreeText)
        made = typed(name, self.pattern)
        return TerminalType(made.pattern, made.convert, self.description or made.description)


class SchemaForm(_WireModel):
    """A schema as text. An empty `source` stands for the shipped schema of that name; `imports`
    are the sources of imported files by relative path, `terminals` the types of terminals."""

    name: str
    source: _Source = ""
    imports: dict[str, _Source] = {}
    terminals: dict[str, TerminalForm] = {}

    @field_validator("name")
    @classmethod
    def _is_a_stem(cls, name: str) -> str:
        if not name or name != Path(name).name or name.startswith("."):
            raise ValueError(f"the name of a schema is {name!r}, it must be a plain file name")
        return name

    @field_validator("imports")
    @classmethod
    def _stay_inside(cls, imports: dict[str, str]) -> dict[str, str]:
        for name in imports:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or path.suffix != ".lark":
                raise ValueError(f"the import {name!r} must be a .lark file beside the schema")
        return imports

    @classmethod
    def of(cls, schema: Schema) -> SchemaForm:
        """The form of a schema; a shipped one is only named."""
        grammar = schema.grammar
        is_shipped = grammar.name in shipped() and grammar.source == _shipped(grammar.name)
        return cls(
            name=grammar.name,
            source="" if is_shipped else grammar.source,
            imports=dict(grammar.imports),
            terminals={
                name: TerminalForm(
                    pattern=None if given.free_text else given.pattern,
                    description=given.description,
                )
                for name, given in grammar.types.items()
            },
        )

    def __hash__(self) -> int:
        return hash((self.name, self.source))

    @property
    def text(self) -> str:
        """The source, that of a shipped schema too. Raises SchemaNotFoundError."""
        return self.source or _shipped(self.name)

    def read(self) -> Schema:
        """The schema. Raises SchemaError, TerminalTypeError or SchemaNotFoundError."""
        types = {name: form.type(name) for name, form in self.terminals.items()}
        file = f"{self.name}.lark"
        imports = {PurePosixPath(name).as_posix(): text for name, text in self.imports.items()}
        return Schema(
            read_grammar(self.text, file=file, name=self.name, types=types, imports=imports)
        )


def _shipped(name: str) -> str:
    """The source of a shipped schema. Other files of the machine are not looked for: the name comes
    from a client."""
    if name not in shipped():
        hint = did_you_mean(name, shipped()) or f"shipped: {', '.join(shipped())}"
        raise SchemaNotFoundError(f"no schema is named `{name}`; {hint}")
    folder = importlib.resources.files("nprdsl.grammars")
    return (folder / f"{name}.lark").read_text(encoding="utf-8")


class LimitsForm(_WireModel):
    """`nprdsl.machine.budget.Limits`, field by field."""

    max_tokens: int = DEFAULT_LIMITS.max_tokens
    max_positions: int | None = None
    branch_tokens: int | None = None
    rule_tokens: dict[str, int] = {}
    depth: int | None = None
    branches: int | None = None
    blocks: int | None = None
    spawn: int | None = None
    text_tokens: TextTokens | None = None

    @classmethod
    def of(cls, limits: Limits) -> LimitsForm:
        return cls.model_validate(limits, from_attributes=True)

    def limits(self) -> Limits:
        """Raises LimitError."""
        return Limits(**dict(self))
