"""The one boundary between errors and people: a message on stderr and an exit code.

Exit codes: 0 done; 1 what was examined is bad, or the work failed; 2 the command could not begin
(options, files, models, schemas); 130 interrupted. Only errors that have names are translated here:
anything else is a fault of the program, and its traceback is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import click

from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.machine.budget import LimitError
from nprdsl.pictures.messages import render_schema_error
from nprdsl.schema import SchemaNotFoundError


class ExitCode(IntEnum):
    BAD = 1
    USAGE = 2
    INTERRUPTED = 130


class Failure(click.ClickException):
    """The command could not begin: `message` for people, in the form of a diagnostic."""

    exit_code = ExitCode.USAGE

    def show(self, file: object = None) -> None:
        text = self.message if self.message.startswith("error") else f"error: {self.message}"
        click.echo(text.rstrip("\n"), err=True)


class BadResult(Failure):
    """What the command examined is bad, or its work failed."""

    exit_code = ExitCode.BAD


@contextmanager
def as_failure(
    *errors: type[Exception], about: str = "", kind: type[Failure] = Failure
) -> Iterator[None]:
    """These errors become a `kind` that has their message, behind `about`, and nothing else."""
    try:
        yield
    except errors as error:
        message = reason(error)
        raise kind(f"{about}: {message}" if about else message) from error


def reason(error: Exception) -> str:
    """What an error says, in a line for people."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the number and the name, which `about` has
    return str(error).strip() or type(error).__name__


@contextmanager
def requiring(extra: str, *, user: str) -> Iterator[None]:
    """A library that is not installed is named, with the extra of this package that has it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise Failure(
            f"{user} needs {error.name}; install it with: pip install 'nprdsl[{extra}]'"
        ) from error


@contextmanager
def boundary() -> Iterator[None]:
    """Errors of the language itself, wherever a command meets them."""
    try:
        yield
    except SchemaError as error:
        raise Failure(render_schema_error(error)) from error
    except (SchemaNotFoundError, LimitError) as error:
        raise Failure(str(error)) from error
    except RecursionError as error:
        message = "the input is nested too deeply to be read; give a --depth, or cut it"
        raise BadResult(message) from error
    except MemoryError as error:
        raise BadResult("there is not enough memory") from error


@contextmanager
def examining() -> Iterator[None]:
    """Where a schema is what the command examines, its faults are the result."""
    try:
        yield
    except SchemaError as error:
        raise BadResult(render_schema_error(error)) from error
