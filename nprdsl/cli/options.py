"""The parameters of a command, written once: as the fields of a frozen dataclass.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class FuzzOptions:
        schema: str = argument("SCHEMA")
        examples: int = option(1000, "How many traces.", type=AT_LEAST_1)

    @command(FuzzOptions, short_help="Test a schema on random traces.")
    def fuzz(options: FuzzOptions) -> None: ...

A field's name and type are those of the parameter. A tuple may be given many times, a `Literal` is
a choice, and a bool is a flag: `--flag`, or `--flag/--no-flag` unless it is False by default. A
field whose type is another such dataclass stands for all fields of that one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import MISSING, field, fields
from functools import partial, wraps
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

import click
from click.core import ParameterSource

from nprdsl.cli.failures import boundary

Model = TypeVar("Model")
Value = TypeVar("Value")

AT_LEAST_0: Final = click.IntRange(0)
AT_LEAST_1: Final = click.IntRange(1)
ABOVE_0: Final = click.FloatRange(0, min_open=True)


class Parsed(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """A value that `read` makes from its text; a ValueError of `read` says what is wrong."""

    def __init__(self, name: str, read: Callable[[str], object]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: object, ctx: object) -> Any:
        if not isinstance(value, str):  # a default, which is a value already
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error))


def argument(metavar: str | None = None, default: Any = MISSING, **attributes: Any) -> Any:
    """A field that is given by its place; required unless it has a default."""
    return _field(default, click.Argument, metavar=metavar, **attributes)


def required_option(help: str, **attributes: Any) -> Any:
    """A field that must be given by its name; see `option`."""
    return _field(MISSING, click.Option, help=help, **attributes)


def option(default: Value, help: str | None = None, **attributes: Any) -> Value:
    """A field that may be given by its name.

    `attributes` are those of `click.Option`, and `flag` where the option has not the field's name.
    Help shows the default unless it is None, a flag's, or `show_default` is False.
    """
    return _field(default, click.Option, help=help, **attributes)  # type: ignore[no-any-return]


def terminals_option() -> str | None:
    """The field of `--terminals`, for `nprdsl.cli.terminals.load_schema`."""
    about = "Types of the terminals that the schema declares."
    return option(None, about, metavar="MODULE:NAME|FILE.json")


def command(
    model: type[Model], name: str | None = None, **attributes: Any
) -> Callable[[Callable[[Model], None]], click.Command]:
    """The click command with the parameters of `model`, which the function gets as one value.

    Errors of the language become messages and exit codes (`nprdsl.cli.failures.boundary`).
    """

    def decorate(function: Callable[[Model], None]) -> click.Command:
        @wraps(function)
        def callback(**values: Any) -> None:
            with boundary():
                function(_made(model, values))

        params = [*_parameters(model)]
        return click.command(name, click.Command, params=params, **attributes)(callback)

    return decorate


def parsed(model: type[Model], name: str, arguments: Sequence[str]) -> Model:
    """What the rest of a command line says, where it belongs to what was chosen before it; `name`
    is that of the command in messages. Raises click.UsageError."""
    names = {"help_option_names": ["-h", "--help"]}
    rest = click.Command(name, params=[*_parameters(model)], context_settings=names)
    with rest.make_context(name, list(arguments)) as context:
        made: Model = _made(model, context.params)
        return made


def first_given(names: Iterable[str]) -> str | None:
    """The first of these options of the running command that the user gave, as it is spelled."""
    context = click.get_current_context()
    spelled = {p.name: (p.secondary_opts or p.opts)[0] for p in context.command.params}
    for name in names:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            return spelled[name]
    return None


def _field(default: Any, kind: type[click.Parameter], **attributes: Any) -> Any:
    made = partial(_parameter, kind, default, attributes)
    return field(default=default, metadata={"parameter": made})


def _parameters(model: Any) -> Iterator[click.Parameter]:
    hints = get_type_hints(model)
    for one in fields(model):
        if "parameter" in one.metadata:
            yield one.metadata["parameter"](one.name, hints[one.name])
        else:
            yield from _parameters(hints[one.name])


def _made(model: Any, values: dict[str, Any]) -> Any:
    hints = get_type_hints(model)
    made = {}
    for one in fields(model):
        is_parameter = "parameter" in one.metadata
        made[one.name] = values[one.name] if is_parameter else _made(hints[one.name], values)
    return model(**made)


def _parameter(
    kind: type[click.Parameter], default: Any, attributes: dict[str, Any], name: str, hint: Any
) -> click.Parameter:
    value_type, many = _value_type(hint)
    given = {"type": value_type, **attributes}
    if default is MISSING:
        given["required"] = True
    else:  # for click even None is a default
        given |= {"required": False, "default": default}
    if kind is click.Argument:
        if many:
            given.pop("default", None)  # click's own is ()
        return kind([name], nargs=-1 if many else 1, **given)
    flag = given.pop("flag", f"--{name.replace('_', '-')}")
    if value_type is bool:
        given |= {"type": None, "is_flag": True}
        flag += "" if default is False else f"/--no-{flag.removeprefix('--')}"
    elif default not in (MISSING, None, ()):
        given.setdefault("show_default", True)
    return kind([flag, name], multiple=many, **given)


def _value_type(hint: Any) -> tuple[Any, bool]:
    """The type of one value as click takes it, and whether there may be many."""
    if get_origin(hint) is tuple:
        return _value_type(get_args(hint)[0])[0], True
    if get_origin(hint) is UnionType:
        (hint,) = (one for one in get_args(hint) if one is not NoneType)
    if get_origin(hint) is Literal:
        return click.Choice(get_args(hint)), False
    return hint, False
