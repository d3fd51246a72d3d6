"""Asks a model for one step of the curation until its answer holds.

A `Step` has a question, the pydantic model of its answer, and two functions: one mends what is
certain without the model, one lists the faults that are left. An `Asker` puts the chain of thought
in front of every question, so that a server that caches prefixes reads it once for all steps; it
asks again with the faults, as often as it is allowed to.

`read_reply` takes the JSON object out of a reply. A reply that is JSON is read as it is, but for
one thing: models write `\\frac` where JSON wants `\\\\frac`, and `\\f`, `\\b`, `\\t`, `\\n`, `\\r`
are legal escapes that would eat the letter. Anything else is repaired by `json-repair`, whose guess
the model of the answer then has to accept.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, TypeVar

import json_repair
import pydantic

from nprdsl.trainers.curate.endpoint import (
    Account,
    ChatMessage,
    Endpoint,
    EndpointError,
    Reply,
    ReplyRequest,
)

T = TypeVar("T")
In = TypeVar("In")
Out = TypeVar("Out", bound=pydantic.BaseModel)
SYSTEM: Final = (
    "You are an editor of mathematical and logical reasoning. You are given a problem and a chain "
    "of thought that solves it, as numbered sentences. Step by step the chain is turned into one "
    "in which independent parts are worked out in parallel, without changing what it says. You "
    "never solve the problem anew, never correct the chain, and never invent content. You reply "
    "with one JSON object and nothing else; a backslash of LaTeX is written twice in JSON."
)
_RESERVED: Final = frozenset({"model", "messages", "stream", "n", "response_format"})
_FAULTS_SHOWN: Final = 12  # of one answer, to the model
_ERRORS_SHOWN: Final = 5  # of one reply that is not the object, to the model

_THOUGHT: Final = re.compile(r"^.*</think(?:ing)?>", re.S)
_FENCE: Final = re.compile(r"```(?:json)?\s*\n(.*?)\n\s*```", re.S)
# Escapes that JSON does not know, and those that begin a command of LaTeX: \n, \r, \t only before
# the rest of a known one, as line breaks stand before words too.
_COMMAND: Final = re.compile(
    r"(?<!\\)((?:\\\\)*)\\(?="
    r"[^\"\\/bfnrtu]|u(?![0-9a-fA-F]{4})|[bf][A-Za-z]"
    r"|n(?:eq?|u|abla|ot(?:in)?|ear|eg|ewline|mid|leq|geq|exists|parallel|subseteq)(?![a-z])"
    r"|r(?:ight|ho|angle|floor|ceil|vert|e)(?![a-z])"
    r"|t(?:heta|imes|ext|an|au|frac|o|riangle|ilde|op|herefore|binom)(?![a-z]))"
)


class StepName(StrEnum):
    PARSE = "parse"
    GROUP = "group"
    ARRANGE = "arrange"
    REFILL = "refill"
    WRITE = "write"
    JUDGE = "judge"


class Answer(pydantic.BaseModel):
    """The base of answers: every field is wanted and none else, as strict JSON schemas have it.

    The endpoint is sent the JSON schema of an answer, and the cache is keyed by it: names, fields
    and docstrings of the subclasses are part of both.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Step(Generic[In, Out]):
    """One step. `ask` words the question; `mend` repairs what is certain without the model;
    `faults` lists what is wrong then, in words for the model."""

    name: StepName
    output: type[Out]
    ask: Callable[[In], str]
    mend: Callable[[Out, In], Out]
    faults: Callable[[Out, In], list[str]]


class StepFailedError(ValueError):
    """No answer of a step held; `faults` are those of the last."""

    def __init__(self, step: StepName, faults: list[str]) -> None:
        self.step, self.faults = step, faults
        super().__init__(f"{step}: {'; '.join(faults)}")


class UnansweredError(RuntimeError):
    """The endpoint gave no answer for a step."""

    def __init__(self, step: StepName, fault: str) -> None:
        self.step, self.fault = step, fault
        super().__init__(f"{step}: {fault}")


class ReplyError(ValueError):
    """A reply that is not the object that was asked for; the message is fit for the model."""


Review = Callable[[T], Awaitable[list[str]]]  # a check that has to wait; gives the faults


async def no_review(_: object) -> list[str]:
    """The review of a step that needs none."""
    return []


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks one model; `attempts` counts all answers of a step, the first included. `sampling` goes
    into the request as it is: `{"temperature": 0.6}`."""

    endpoint: Endpoint
    account: Account
    model: str
    sampling: Mapping[str, object]
    attempts: int

    def __post_init__(self) -> None:
        reserved = _RESERVED & set(self.sampling)
        if reserved:
            names = ", ".join(f"`{name}`" for name in sorted(reserved))
            raise ValueError(f"{names} is no sampling parameter: the curator sets it itself")
        if self.attempts < 1:
            raise ValueError(f"{self.attempts} attempts are too few; a step needs 1 at least")

    async def solve(
        self, step: Step[In, Out], given: In, shown: str, review: Review[Out] = no_review
    ) -> Out:
        """An answer without faults, to the question about `given` behind the chain `shown`.

        Raises StepFailedError, UnansweredError, and what ends the whole run (see `endpoint`).
        """
        question: list[ChatMessage] = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"{shown}\n\n{step.ask(given)}"},
        ]
        messages, faults = question, list[str]()
        for attempt in range(self.attempts):
            self.account.of(step.name).again += bool(attempt)
            schema = step.output.model_json_schema()
            request = ReplyRequest(self.model, messages, schema, self.sampling)
            try:
                reply = await self.endpoint.ask(step.name, request)
            except EndpointError as error:
                raise UnansweredError(step.name, str(error)) from error
            answer, faults = _read(step, given, reply)
            if answer is not None and not faults:
                faults = await review(answer)
                if not faults:
                    return answer
            messages = [*question, *_complaint(attempt + 1, reply, faults)]
        raise StepFailedError(step.name, faults)


def _read(step: Step[In, Out], given: In, reply: Reply) -> tuple[Out | None, list[str]]:
    """The answer in a reply, and what is wrong with it."""
    if reply.refusal:
        return None, [f"the model refused: {reply.refusal}"]
    if reply.finish == "length":
        return None, ["the reply was cut off before its end; say the same in fewer words"]
    try:
        answer = step.mend(read_reply(reply.text, step.output), given)
    except ReplyError as error:
        return None, [str(error)]
    return answer, step.faults(answer, given)


def _complaint(attempt: int, reply: Reply, faults: list[str]) -> list[ChatMessage]:
    """The number makes every request another one, so that the cache does not answer it."""
    listed = "\n".join(f"- {fault}" for fault in faults[:_FAULTS_SHOWN])
    return [
        {"role": "assistant", "content": reply.text or "(nothing)"},
        {
            "role": "user",
            "content": f"Answer {attempt} does not hold:\n{listed}\n"
            "Give the whole JSON object again, mended.",
        },
    ]


def read_reply(text: str, model: type[Out]) -> Out:
    """The object in a reply, without the thoughts before it and the fence around it. Raises
    ReplyError."""
    content = _THOUGHT.sub("", text).strip()
    fenced = _FENCE.findall(content)
    if fenced and not content.startswith("{"):
        content = fenced[-1]
    begin = content.find("{")
    if begin < 0:
        raise ReplyError("the reply holds no JSON object")
    content = _COMMAND.sub(lambda m: f"{m[1]}\\\\", content[begin:])
    try:
        return model.model_validate_json(content)
    except pydantic.ValidationError as error:
        if not any(fault["type"] == "json_invalid" for fault in error.errors()):
            raise ReplyError(_listed(error)) from error
    try:
        return model.model_validate(json_repair.loads(content))
    except pydantic.ValidationError as error:
        raise ReplyError(
            f"the reply is not valid JSON, and as repaired: {_listed(error)}"
        ) from error


def _listed(error: pydantic.ValidationError) -> str:
    faults = [
        f"`{'.'.join(map(str, fault['loc'])) or 'the object'}`: {fault['msg'].lower()}"
        for fault in error.errors()
    ]
    more = f"; and {len(faults) - _ERRORS_SHOWN} more" if len(faults) > _ERRORS_SHOWN else ""
    return "; ".join(faults[:_ERRORS_SHOWN]) + more
