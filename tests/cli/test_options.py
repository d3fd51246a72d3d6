"""Fields of a dataclass are the parameters of a command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
from click.testing import CliRunner

from nprdsl.cli.options import (
    AT_LEAST_1,
    Parsed,
    argument,
    command,
    first_given,
    option,
    required_option,
)
from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.schema import load


def _read_even(text: str) -> int:
    if int(text) % 2:
        raise ValueError(f"`{text}` is odd")
    return int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    low: int = option(1, type=AT_LEAST_1)
    even: int | None = option(None, type=Parsed("EVEN", _read_even))


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed(Inner):
    low: int = option(0, "Lower.", show_default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    names: tuple[str, ...] = argument("NAME...", default=())
    needed: float = required_option("Needed.", metavar="X")
    inner: Changed
    kind: Literal["a", "b"] = option("a")
    tags: tuple[str, ...] = option((), flag="--tag")
    quick: bool = option(False)
    chat: bool | None = option(None)
    side: bool = option(True)


def run(*arguments: str, model: Any = Outer) -> tuple[Any, str]:
    """What the function of a command is called with, and what click says."""
    taken: list[Any] = []
    made = command(model)(taken.append)
    result = CliRunner().invoke(made, [*arguments], prog_name="test")
    return (taken[0] if taken else None), result.output


def test_defaults() -> None:
    taken, _ = run("--needed", "2")
    assert taken == Outer(needed=2.0, inner=Changed())


def test_values_arrive_with_their_types() -> None:
    taken, _ = run(
        *("x", "y", "--needed", "2", "--low", "5", "--even", "4", "--kind", "b"),
        *("--tag", "p", "--tag", "q", "--quick", "--no-chat", "--no-side"),
    )
    inner = Changed(low=5, even=4)
    assert taken == Outer(
        names=("x", "y"),
        needed=2.0,
        inner=inner,
        kind="b",
        tags=("p", "q"),
        quick=True,
        chat=False,
        side=False,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing option '--needed'"),  # None by default would count as given
        (("--needed", "2", "--even", "3"), "Invalid value for '--even': `3` is odd"),
        (("--needed", "2", "--kind", "c"), "'c' is not one of 'a', 'b'"),
        (("--needed", "2", "--inner", "1"), "No such option"),
    ],
)
def test_what_is_refused(arguments: tuple[str, ...], said: str) -> None:
    taken, output = run(*arguments)
    assert taken is None and said in output


def test_help_has_the_order_of_the_fields_and_defaults_where_they_say_something() -> None:
    _, output = run("--help")
    lines = [" ".join(line.split()) for line in output.partition("Options:\n")[2].splitlines()]
    assert lines == [
        "--needed X Needed. [required]",
        "--low INTEGER Lower.",
        "--even EVEN",
        "--kind [a|b] [default: a]",
        "--tag TEXT",
        "--quick",
        "--chat / --no-chat",
        "--side / --no-side",
        "--help Show this message and exit.",
    ]
    assert "[default: 1; x>=1]" in run("--help", model=Inner)[1]


@pytest.mark.parametrize(
    ("arguments", "given"),
    [((), None), (("--low", "0"), "--low"), (("--side",), "--no-side"), (("--quick",), None)],
)
def test_what_was_given_is_known_by_its_name(arguments: tuple[str, ...], given: str | None) -> None:
    """Defaults that were typed count; a flag that is on by default is named by its other form."""
    names: list[str | None] = []

    @command(Outer)
    def show(options: Outer) -> None:
        names.append(first_given(("side", "low")))

    CliRunner().invoke(show, ["--needed", "1", *arguments])
    assert names == [given]


def test_errors_of_the_language_are_messages() -> None:
    @command(Inner)
    def show(options: Inner) -> None:
        load("nprr")

    result = CliRunner().invoke(show, [])
    assert (result.exit_code, result.stderr) == (
        2,
        "error: no schema is named `nprr`; did you mean `npr`?\n",
    )
    assert not isinstance(result.exception, SchemaError)
