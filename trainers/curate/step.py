"""What a step is: a question, the form of its answer, a mending and a check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

import pydantic

In = TypeVar("In", bound=pydantic.BaseModel)
Out = TypeVar("Out", bound=pydantic.BaseModel)


class StepName(StrEnum):
    PARSE = "parse"
    GROUP = "group"
    ARRANGE = "arrange"
    REFILL = "refill"
    WRITE = "write"
    JUDGE = "judge"


class Shown(pydantic.BaseModel):
    """The base of inputs."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Answer(pydantic.BaseModel):
    """The base of outputs: every field is wanted and none else, as strict JSON schemas have it."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Step(Generic[In, Out]):
    """One step. `ask` words the question; `mend` repairs what is certain without the model;
    `faults` names what is left, in words that the model is told."""

    name: StepName
    output: type[Out]
    ask: Callable[[In], str]
    mend: Callable[[Out, In], Out]
    faults: Callable[[Out, In], list[str]]
