"""From what a model said to the object that was asked for: fences, thoughts, broken JSON, LaTeX.

A reply that is JSON is read as it is, but for one thing: models write `\\frac` where JSON wants
`\\\\frac`, and `\\f`, `\\b`, `\\t`, `\\n`, `\\r` are legal escapes that would eat the letter.
Anything else is repaired by `json-repair`, whose guess the model of the object then has to accept.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

import json_repair
import pydantic

M = TypeVar("M", bound=pydantic.BaseModel)
_THOUGHT: Final = re.compile(r"^.*</think(?:ing)?>", re.S)
_FENCE: Final = re.compile(r"```(?:json)?\s*\n(.*?)\n\s*```", re.S)
_FAULTS: Final = 5  # told of one reply
# Escapes that JSON does not know, and those that begin a command of LaTeX: \n, \r, \t only before
# the rest of a known one, as line breaks stand before words too.
_COMMAND: Final = re.compile(
    r"(?<!\\)((?:\\\\)*)\\(?="
    r"[^\"\\/bfnrtu]|u(?![0-9a-fA-F]{4})|[bf][A-Za-z]"
    r"|n(?:eq?|u|abla|ot(?:in)?|ear|eg|ewline|mid|leq|geq|exists|parallel|subseteq)(?![a-z])"
    r"|r(?:ight|ho|angle|floor|ceil|vert|e)(?![a-z])"
    r"|t(?:heta|imes|ext|an|au|frac|o|riangle|ilde|op|herefore|binom)(?![a-z]))"
)


class ReplyError(ValueError):
    """A reply that is not the object that was asked for; the message is fit for the model."""


def read_reply(text: str, model: type[M]) -> M:
    """The object in a reply. Raises ReplyError."""
    said = _said(text)
    begin = said.find("{")
    if begin < 0:
        raise ReplyError("the reply holds no JSON object")
    said = _COMMAND.sub(lambda m: f"{m[1]}\\\\", said[begin:])
    try:
        return model.model_validate_json(said)
    except pydantic.ValidationError as error:
        if not any(fault["type"] == "json_invalid" for fault in error.errors()):
            raise ReplyError(_told(error)) from error
    try:
        return model.model_validate(json_repair.loads(said))
    except pydantic.ValidationError as error:
        raise ReplyError(f"the reply is not valid JSON, and as repaired: {_told(error)}") from error


def _said(text: str) -> str:
    """The reply without the thoughts before it and the fence around it."""
    said = _THOUGHT.sub("", text).strip()
    fenced = _FENCE.findall(said)
    return str(fenced[-1]) if fenced and not said.startswith("{") else said


def _told(error: pydantic.ValidationError) -> str:
    faults = [
        f"`{'.'.join(map(str, fault['loc'])) or 'the object'}`: {fault['msg'].lower()}"
        for fault in error.errors()
    ]
    more = f"; and {len(faults) - _FAULTS} more" if len(faults) > _FAULTS else ""
    return "; ".join(faults[:_FAULTS]) + more
