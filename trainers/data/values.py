"""Values of a row, checked by pydantic: texts that are not blank, numbers as texts, choices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from nprdsl.trainers.data.fields import RowError

LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Model = TypeVar("Model", bound=BaseModel)


def _text(value: object) -> str:
    if value is None:
        raise ValueError("is missing")
    if not isinstance(value, str):
        raise ValueError(f"is of type {type(value).__name__}, not a text")
    if not value.strip():
        raise ValueError("is blank")
    return value


def _prompt(value: object) -> str:
    """A text, or the one message of a chat with its user."""
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        roles = [m.get("role") if isinstance(m, Mapping) else None for m in value]
        if roles != ["user"]:
            raise ValueError(f"is a list of {len(value)}, not a text or one message of the user")
        return _text(value[0].get("content"))
    return _text(value)


def _answer(value: object) -> str:
    """A text or a number; several answers in a list are one, joined by commas."""
    if isinstance(value, bool):
        raise ValueError(f"is {value}, neither a text nor a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"is {value}, not a number")
    if isinstance(value, (int, float)):
        return str(int(value)) if value == int(value) else repr(value)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        if not value:
            raise ValueError("is an empty list")
        return ", ".join(_answer(one) for one in value)
    return _text(value).strip()


def _identity(value: object) -> str:
    return _answer(value)


def _choices(value: object) -> tuple[str, ...]:
    """A list of texts, or a mapping from letters to texts."""
    if isinstance(value, Mapping):
        if list(value) != list(LETTERS[: len(value)]):
            raise ValueError(f"are under {', '.join(map(str, value))}, not under A, B, C …")
        value = list(value.values())
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise ValueError(f"are of type {type(value).__name__}, not a list of texts")
    if len(value) > len(LETTERS):
        raise ValueError(f"are {len(value)}, more than there are letters")
    return tuple(_answer(one) for one in value)


Text = Annotated[str, BeforeValidator(_text)]
Prompt = Annotated[str, BeforeValidator(_prompt)]
Answer = Annotated[str, BeforeValidator(_answer)]
Identity = Annotated[str, BeforeValidator(_identity)]
Choices = Annotated[tuple[str, ...], BeforeValidator(_choices)]


class ProblemRow(BaseModel):
    """A problem as it stands in a source."""

    model_config = ConfigDict(frozen=True)

    id: Identity
    prompt: Prompt
    answer: Answer
    context: str = ""
    choices: Choices = ()

    @property
    def text(self) -> str:
        """The whole prompt: context, question, and the choices under their letters."""
        listed = "\n".join(f"{a}. {b}" for a, b in zip(LETTERS, self.choices, strict=False))
        return "\n\n".join(part for part in (self.context, self.prompt, listed) if part)

    @property
    def letter(self) -> str:
        """The letter of the right choice, which may be given as text, letter or index from 0."""
        given = self.answer
        if self.choices.count(given) == 1:
            return LETTERS[self.choices.index(given)]
        known = LETTERS[: len(self.choices)]
        if len(given) == 1 and given.upper() in known:
            return given.upper()
        if given.isdecimal() and int(given) < len(self.choices):
            return LETTERS[int(given)]
        raise RowError(f"the answer `{given}` is none of the {len(self.choices)} choices")


class TraceRow(BaseModel):
    """A trace as it stands in a source."""

    model_config = ConfigDict(frozen=True)

    id: Identity
    prompt: Prompt
    trace: Text


def checked(model: type[Model], values: Mapping[str, Any]) -> Model:
    """The values as a `model`. Raises RowError with the first that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        said = str(fault.get("ctx", {}).get("error", fault["msg"]))
        raise RowError(f"the {fault['loc'][0]} {said}") from error
