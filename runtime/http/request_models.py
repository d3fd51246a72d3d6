"""The requests of OpenAI's format as they are read: chats with a schema, chats and texts without.

In goes the JSON of a request whose fields were looked at (`nprdsl.runtime.http.request_fields`),
out come the same values with types. The settings that all have in common stand once.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from nprdsl.machine.actions import JoinPolicy
from nprdsl.runtime.http.refusals import RefusedError
from nprdsl.runtime.http.wire_forms import LimitsForm, SchemaForm
from nprdsl.runtime.prompts import ChatMessage
from nprdsl.runtime.sampling import Sampling

SAMPLING: Final = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
)
SEEDS: Final = 2**31  # as many are drawn from, where a request names none
T = TypeVar("T")
Listed = Annotated[list[T], Field(fail_fast=True)]  # collecting all faults takes minutes

MOST_ANSWERS: Final = 128  # to one prompt
MOST_IN_ALL: Final = 4096  # answers, to all prompts of a request


def too_many(count: int) -> str:
    """Why a request for so many answers is refused."""
    return f"the request asks for {count:,} answers, it may for {MOST_IN_ALL:,}: send several"


class StreamOptions(BaseModel):
    """`include_usage`: a last chunk tells the tokens of all answers."""

    include_usage: bool | None = None


class GenerationRequest(BaseModel):
    """What every request may say: the model, the settings, how often and in which form. A field
    that is null is as one that is not there."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model: str = ""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    n: int | None = Field(default=None, ge=1, le=MOST_ANSWERS)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in given.items() if value is not None}

    @property
    def count(self) -> int:
        """How many answers are asked for, to each prompt."""
        return 1 if self.n is None else self.n

    @property
    def tells_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def budget(self) -> int | None:
        """The most tokens of an answer."""
        return self.max_tokens

    def seeds(self, count: int) -> list[int]:
        """A seed for each of so many answers: from the given one on, or from one that is drawn."""
        first = secrets.randbelow(SEEDS) if self.seed is None else self.seed
        return list(range(first, first + count))

    def settings(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """The sampling settings but for the seed, where `own` are those of the model."""
        given = {name: value for name, value in self if name in SAMPLING and value is not None}
        return {**own, **given}


class ChatRequest(GenerationRequest):
    """A chat. `messages` are checked where they are read."""

    messages: Listed[dict[str, Any]]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None

    @field_validator("messages")
    @classmethod
    def _are_messages(cls, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not messages:
            raise ValueError("there is no message")
        for message in messages:
            if not isinstance(message.get("role"), str):
                raise ValueError('each message needs a "role"')
            if not isinstance(message.get("content"), str | list | None):
                raise ValueError('the "content" of a message must be a text, or a list of parts')
        return messages

    @property
    def budget(self) -> int | None:
        newer = self.max_completion_tokens
        return self.max_tokens if newer is None else newer

    def texts(self) -> list[ChatMessage]:
        """The messages, each with its content as one text. Raises RefusedError for images and the
        like."""
        return [_with_text_content(message) for message in self.messages]


def _named(given: Any) -> Any:
    """A schema as the form that is sent on."""
    return {"name": given} if isinstance(given, str) else given


class TraceRequest(ChatRequest):
    """A chat with a schema.

    `form` is its `schema`: the name of one that the server knows, or a whole form. `rules`:
    sampling settings for single rules. `instructions`: whether to explain the format before the
    first message of the user; by default, unless the model knows it.
    """

    form: Annotated[
        SchemaForm, BeforeValidator(_named, json_schema_input_type=str | SchemaForm)
    ] = Field(alias="schema")
    limits: LimitsForm = LimitsForm()
    join: Literal["all", "first"] | int = "all"
    parallel: bool = True
    instructions: bool | None = None
    rules: dict[str, dict[str, int | float]] = Field(default_factory=dict)

    @property
    def quorum(self) -> int | None:
        return {"all": None, "first": 1}[self.join] if isinstance(self.join, str) else self.join

    @property
    def join_policy(self) -> JoinPolicy:
        """Raises LimitError."""
        return JoinPolicy(self.quorum)

    @property
    def limits_form(self) -> LimitsForm:
        """The limits, with the budget of the chat as that of the trace. Raises RefusedError."""
        wanted, limits = self.budget, self.limits
        if wanted is None:
            return limits
        if "max_tokens" in limits.model_fields_set and limits.max_tokens != wanted:
            raise RefusedError(
                f"limits.max_tokens is {limits.max_tokens}, but max_completion_tokens is {wanted}: "
                "give one of them"
            )
        return limits.model_copy(update={"max_tokens": wanted})

    @property
    def has_limits(self) -> bool:
        """Whether the client has set any limit."""
        return self.budget is not None or bool(self.limits.model_fields_set)

    def sampling(self, own: Mapping[str, Any], seed: int) -> Sampling:
        """Raises ValueError that names the setting."""
        return Sampling.from_dict({**self.settings(own), "seed": seed, "rules": self.rules})


class StoppingRequest(GenerationRequest):
    """A request for plain text, which ends before the first of the texts of `stop`."""

    stop: str | Listed[str] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or ()
        return tuple(filter(None, given))

    def sampling(self, own: Mapping[str, Any], seed: int) -> Sampling:
        """Raises ValueError that names the setting."""
        return Sampling.from_dict({**self.settings(own), "seed": seed})


class PlainChatRequest(ChatRequest, StoppingRequest):
    """A chat without a schema."""


class ResponseRequest(BaseModel):
    """What a response says in other words than a chat, which it is read as. `instructions` are the
    first message of the chat where they are a text."""

    model_config = ConfigDict(frozen=True)

    input: str | Listed[dict[str, Any]]
    instructions: str | bool | None = None
    max_output_tokens: int | None = None
    stream: bool | None = None


class TextRequest(StoppingRequest):
    """Texts, or lists of token ids, to go on with. `echo`: the prompt is part of the answer;
    `logprobs`: of the tokens that were written."""

    prompt: str | Listed[str] | Listed[int] | Listed[Listed[int]]
    echo: bool | None = None
    logprobs: int | None = None

    @field_validator("prompt")
    @classmethod
    def _is_something(cls, prompt: Any) -> Any:
        if isinstance(prompt, list) and not prompt:
            raise ValueError("there is no prompt in the list")
        return prompt

    @model_validator(mode="after")
    def _asks_for_few(self) -> Self:
        if (count := self.count * len(self.prompts)) > MOST_IN_ALL:
            raise ValueError(too_many(count))
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        given: Any = self.prompt
        is_one = isinstance(given, str) or isinstance(given[0], int)
        return [given] if is_one else given


def _with_text_content(message: dict[str, Any]) -> dict[str, Any]:
    """The message with its content as one text. Raises RefusedError for images and the like."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(map(_text_of, content))
    return {**message, "content": content or ""}


def _text_of(part: Any) -> str:
    """Of a part of a message."""
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if kind != "text":
        raise RefusedError(f"a chat takes text only, not `{kind}`")
    text = part.get("text")
    if not isinstance(text, str):
        raise RefusedError('a part of a message of the type "text" needs a "text"')
    return text
