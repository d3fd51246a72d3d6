"""Sends requests to one OpenAI-compatible endpoint, keeps the replies, and counts their cost.

The `openai` client retries time-outs, lost connections, 408, 409, 429 and 5xx with exponential
back-off, and honours Retry-After. On top of it: requests carry the JSON schema of the reply where
the endpoint takes one; a reply is written to the cache before it is used; the same request is sent
once even if it is made twice at the same time. The secret comes from the environment and goes into
one header; it is cut out of whatever the endpoint says before that is shown or kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import openai
import pydantic

from nprdsl.trace.journal import write_whole

CACHE_VERSION: Final = 1  # of what a reply is kept under
NO_SECRET: Final = "-"  # for servers that want none; the client refuses an empty one
_SHORTEST_SECRET: Final = 8  # characters; shorter ones, such as `none`, are words
_LONGEST_MESSAGE: Final = 500  # characters of what an endpoint says
_HIDDEN: Final = "[secret]"
_SUFFIX: Final = "/chat/completions"
ChatMessage = Mapping[str, str]


class Structured(StrEnum):
    """Whether requests carry the JSON schema of the reply."""

    AUTO = "auto"  # until the endpoint refuses one
    ALWAYS = "always"
    NEVER = "never"


class EndpointError(RuntimeError):
    """One request failed for good; others may not."""


class UnusableEndpointError(RuntimeError):
    """No request can succeed: nothing answers, the secret is refused, there is no such model."""


class Reply(pydantic.BaseModel):
    """What a model said. Token counts are -1 where the endpoint gave none."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    text: str
    refusal: str
    finish: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class ReplyRequest:
    """All that a reply depends on. `json_schema` is that of the object in the reply. The `key` of
    the cache is a digest of it; neither the address nor the secret of the endpoint is in it."""

    model: str
    messages: Sequence[ChatMessage]
    json_schema: Mapping[str, object]
    sampling: Mapping[str, object]

    @property
    def key(self) -> str:
        messages = [dict(message) for message in self.messages]
        content = [CACHE_VERSION, self.model, messages, self.json_schema, self.sampling]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Cache:
    """Replies on disk, in `folder`, which is made when the first is kept: a reply is paid for once.

    There is a file for each reply, written whole or not at all, so that a kill at any moment leaves
    a cache that can be used; several runs may share one. A file that cannot be read is no reply.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, request: ReplyRequest) -> Reply | None:
        try:
            return Reply.model_validate_json(self._file(request.key).read_bytes())
        except (FileNotFoundError, pydantic.ValidationError):
            return None

    def keep(self, request: ReplyRequest, reply: Reply) -> None:
        """Raises OSError where the folder cannot be written."""
        file = self._file(request.key)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, reply.model_dump_json())

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


@dataclass(slots=True)
class StepCost:
    """The calls of one step. Tokens are those of `calls` alone; those of `cached` calls were paid
    before. `uncounted` calls came back without a count of tokens."""

    calls: int = 0
    cached: int = 0
    again: int = 0  # calls with a reason why the reply before was refused
    retries: int = 0  # requests that were sent again by the transport
    uncounted: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Account:
    """The costs of one run, step by step."""

    def __init__(self) -> None:
        self._steps: defaultdict[str, StepCost] = defaultdict(StepCost)

    def of(self, step: str) -> StepCost:
        return self._steps[step]

    @property
    def total(self) -> StepCost:
        return StepCost(*map(sum, zip(*map(astuple, self._steps.values()), strict=True)))

    def to_dict(self) -> dict[str, dict[str, int]]:
        """The costs of every step that was asked, and their sum, as JSON values."""
        return {
            **{name: asdict(cost) for name, cost in self._steps.items()},
            "total": asdict(self.total),
        }


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret that is not shown. Raises nothing: an empty one is `NO_SECRET`."""

    value: str = field(default=NO_SECRET, repr=False)

    @classmethod
    def from_environment(cls, *names: str) -> Secret:
        """The value of the first environment variable that is set, or none."""
        values = (os.environ.get(name, "").strip() for name in names)
        return cls.given(next(filter(None, values), ""))

    @classmethod
    def given(cls, value: str) -> Secret:
        """One that was given by hand; none where it is empty."""
        return cls(value or NO_SECRET)

    def hidden(self, text: str) -> str:
        """`text` without the secret."""
        return text.replace(self.value, _HIDDEN) if len(self.value) >= _SHORTEST_SECRET else text


@dataclass(frozen=True, slots=True)
class Service:
    """Where to ask, and how."""

    url: str
    secret: Secret = Secret()
    structured: Structured = Structured.AUTO
    retries: int = 5
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        base_url(self.url)
        if self.retries < 0 or self.timeout_s <= 0:
            raise ValueError("retries must be 0 or more, and the time-out more than 0 seconds")


def base_url(url: str) -> str:
    """The address below which `/chat/completions` lies. ValueError if it is none, or holds a
    secret."""
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"`{url}` is no address of an endpoint, such as http://127.0.0.1:30000/v1")
    if parts.username or parts.password or parts.query:
        raise ValueError(
            "the address of the endpoint must hold no name, password or query; "
            "give the secret in an environment variable"
        )
    path = parts.path.rstrip("/").removesuffix(_SUFFIX)
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


_REFUSALS: Final = (openai.BadRequestError, openai.UnprocessableEntityError)


# the part of a chat completion that is read; a server that gives more, or less usage, is fine


class _ChatMessage(pydantic.BaseModel):
    content: str | None = None
    refusal: str | None = None


class _CompletionChoice(pydantic.BaseModel):
    message: _ChatMessage
    finish_reason: str | None = None


class _TokenUsage(pydantic.BaseModel):
    prompt_tokens: int = -1
    completion_tokens: int = -1


class _ChatCompletion(pydantic.BaseModel):
    choices: list[_CompletionChoice] = pydantic.Field(min_length=1)
    usage: _TokenUsage | None = None


class Endpoint:
    """Asks one service; replies go through `cache`, costs into `account`."""

    def __init__(self, service: Service, cache: Cache, account: Account) -> None:
        self._service = service
        self._cache = cache
        self._account = account
        self._structured = service.structured
        self._in_flight: dict[str, asyncio.Future[Reply]] = {}
        self._client = openai.AsyncOpenAI(
            api_key=service.secret.value,
            base_url=base_url(service.url),
            timeout=service.timeout_s,
            max_retries=service.retries,
        )

    async def close(self) -> None:
        await self._client.close()

    async def ask(self, step: str, request: ReplyRequest) -> Reply:
        """The reply to a request. Raises EndpointError, UnusableEndpointError, OSError."""
        cost, key = self._account.of(step), request.key
        flight = self._in_flight.get(key)
        if flight is not None:
            cost.cached += 1
            return await flight
        reply = self._cache.find(request)
        if reply is not None:
            cost.cached += 1
            return reply
        flight = self._in_flight[key] = asyncio.ensure_future(self._send(request, cost))
        try:
            return await flight
        finally:
            del self._in_flight[key]

    async def _send(self, request: ReplyRequest, cost: StepCost) -> Reply:
        for malformed in range(self._service.retries + 1):
            cost.retries += bool(malformed)
            body = await self._post(request, cost)
            reply = self._read(body)
            if reply is not None:
                cost.calls += 1
                cost.uncounted += reply.completion_tokens < 0
                cost.prompt_tokens += max(reply.prompt_tokens, 0)
                cost.completion_tokens += max(reply.completion_tokens, 0)
                self._cache.keep(request, reply)
                return reply
        raise EndpointError("the endpoint's reply is no chat completion")

    def _read(self, body: str) -> Reply | None:
        """The reply in a response; None where it is none."""
        try:
            completion = _ChatCompletion.model_validate_json(body)
        except pydantic.ValidationError:
            return None
        choice, usage = completion.choices[0], completion.usage or _TokenUsage()
        hidden = self._service.secret.hidden
        return Reply(
            text=hidden(choice.message.content or ""),
            refusal=hidden(choice.message.refusal or ""),
            finish=choice.finish_reason or "",
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
        )

    async def _post(self, request: ReplyRequest, cost: StepCost) -> str:
        """The response to a request; where a JSON schema is refused, to the request without it."""
        asked = self._structured  # other replies may change it meanwhile
        form = {} if asked is Structured.NEVER else _format(request)
        outcome = await self._try(request, cost, form)
        works = Structured.ALWAYS
        if isinstance(outcome, _REFUSALS) and asked is Structured.AUTO:
            outcome = await self._try(request, cost, {})
            works = Structured.NEVER
        if isinstance(outcome, openai.OpenAIError):
            raise self._fault(outcome)
        if self._structured is Structured.AUTO:
            self._structured = works
        return outcome

    async def _try(
        self, request: ReplyRequest, cost: StepCost, form: Mapping[str, Any]
    ) -> str | openai.OpenAIError:
        """Errors are values here: a later one must not carry an earlier one, whose words are the
        endpoint's, into a log."""
        messages: Any = [dict(message) for message in request.messages]
        try:
            response = await self._client.chat.completions.with_raw_response.create(
                model=request.model, messages=messages, extra_body={**request.sampling, **form}
            )
        except openai.OpenAIError as error:
            return error
        cost.retries += response.retries_taken
        return response.text

    def _fault(self, error: openai.OpenAIError) -> EndpointError | UnusableEndpointError:
        match error:
            case openai.APITimeoutError():
                return EndpointError(f"no reply within {self._service.timeout_s:g} s")
            case openai.APIConnectionError():
                cause = f" ({error.__cause__})" if str(error.__cause__ or "") else ""
                return UnusableEndpointError(
                    self._service.secret.hidden(f"nothing answers at {self._service.url}{cause}")
                )
            case (
                openai.AuthenticationError()
                | openai.PermissionDeniedError()
                | openai.NotFoundError()
            ):
                return UnusableEndpointError(self._words(error))
            case openai.APIStatusError():
                return EndpointError(self._words(error))
            case _:
                return EndpointError(self._service.secret.hidden(str(error)))

    def _words(self, error: openai.APIStatusError) -> str:
        """The status and the endpoint's own words."""
        body = error.body
        message = body.get("message") if isinstance(body, dict) else None
        words = message if isinstance(message, str) else error.message
        shown = "".join(c if c.isprintable() else " " for c in words)
        return self._service.secret.hidden(f"HTTP {error.status_code}: {shown}")[:_LONGEST_MESSAGE]


def _format(request: ReplyRequest) -> dict[str, object]:
    name, schema = str(request.json_schema.get("title", "reply")), dict(request.json_schema)
    json_schema = {"name": name, "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": json_schema}}
