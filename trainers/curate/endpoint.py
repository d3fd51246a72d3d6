"""One OpenAI-compatible endpoint: structured outputs where it has them, retries, cache, cost.

The transport is the `openai` client: it retries time-outs, lost connections, 408, 409, 429 and 5xx
with exponential back-off, and honours Retry-After. A reply that was received is kept on disk before
it is used, and the same request is sent once even if it is made twice at the same time.
The secret comes from the environment and goes into one header; what the endpoint says is told, and
kept, without it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

import openai
import pydantic

from nprdsl.trainers.curate.cache import Cache, Reply, Request
from nprdsl.trainers.curate.cost import Account, StepCost

NO_SECRET: Final = "-"  # for servers that want none; the client refuses an empty one
_SHORTEST_SECRET: Final = 8  # characters; shorter ones, such as `none`, are words
_LONGEST_MESSAGE: Final = 500  # characters of what an endpoint says
_HIDDEN: Final = "[secret]"
_SUFFIX: Final = "/chat/completions"


class Structured(StrEnum):
    """Whether requests carry the JSON schema of the reply."""

    AUTO = "auto"  # until the endpoint refuses one
    ALWAYS = "always"
    NEVER = "never"


class EndpointError(RuntimeError):
    """One request failed for good; others may not."""


class UnusableEndpointError(RuntimeError):
    """No request can succeed: nothing answers, the secret is refused, there is no such model."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret that is not shown. Raises nothing: an empty one is `NO_SECRET`."""

    value: str = field(default=NO_SECRET, repr=False)

    @classmethod
    def from_environment(cls, name: str) -> Secret:
        """The value of an environment variable, or none where it is not set."""
        return cls(os.environ.get(name, "").strip() or NO_SECRET)

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


class _Message(pydantic.BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(pydantic.BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(pydantic.BaseModel):
    prompt_tokens: int = -1
    completion_tokens: int = -1


class _Completion(pydantic.BaseModel):
    choices: list[_Choice] = pydantic.Field(min_length=1)
    usage: _Usage | None = None


class Endpoint:
    """Asks one service; replies go through `cache`, costs into `account`."""

    def __init__(self, service: Service, cache: Cache, account: Account) -> None:
        self._service = service
        self._cache = cache
        self._account = account
        self._structured = service.structured
        self._flights: dict[str, asyncio.Future[Reply]] = {}
        self._client = openai.AsyncOpenAI(
            api_key=service.secret.value,
            base_url=base_url(service.url),
            timeout=service.timeout_s,
            max_retries=service.retries,
        )

    async def close(self) -> None:
        await self._client.close()

    async def ask(self, step: str, request: Request) -> Reply:
        """The reply to a request. Raises EndpointError, UnusableEndpointError, OSError."""
        cost, key = self._account.of(step), request.key
        flight = self._flights.get(key)
        if flight is not None:
            cost.cached += 1
            return await flight
        found = self._cache.find(request)
        if found is not None:
            cost.cached += 1
            return found
        flight = self._flights[key] = asyncio.ensure_future(self._send(request, cost))
        try:
            return await flight
        finally:
            del self._flights[key]

    async def _send(self, request: Request, cost: StepCost) -> Reply:
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
            completion = _Completion.model_validate_json(body)
        except pydantic.ValidationError:
            return None
        choice, usage = completion.choices[0], completion.usage or _Usage()
        hidden = self._service.secret.hidden
        return Reply(
            text=hidden(choice.message.content or ""),
            refusal=hidden(choice.message.refusal or ""),
            finish=choice.finish_reason or "",
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
        )

    async def _post(self, request: Request, cost: StepCost) -> str:
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
        self, request: Request, cost: StepCost, form: Mapping[str, Any]
    ) -> str | openai.OpenAIError:
        """Errors are values here: a later one must not carry an earlier one, whose words are the
        endpoint's, into a log."""
        try:
            return await self._call(request, cost, form)
        except openai.OpenAIError as error:
            return error

    async def _call(self, request: Request, cost: StepCost, form: Mapping[str, Any]) -> str:
        messages: Any = [dict(message) for message in request.messages]
        response = await self._client.chat.completions.with_raw_response.create(
            model=request.model,
            messages=messages,
            extra_body={**request.sampling, **form},
        )
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
                return UnusableEndpointError(self._said(error))
            case openai.APIStatusError():
                return EndpointError(self._said(error))
            case _:
                return EndpointError(self._service.secret.hidden(str(error)))

    def _said(self, error: openai.APIStatusError) -> str:
        """The status and the endpoint's own words."""
        body = error.body
        message = body.get("message") if isinstance(body, dict) else None
        told = message if isinstance(message, str) else error.message
        shown = "".join(c if c.isprintable() else " " for c in told)
        return self._service.secret.hidden(f"HTTP {error.status_code}: {shown}")[:_LONGEST_MESSAGE]


def _format(request: Request) -> dict[str, object]:
    schema = {"name": str(request.form.get("title", "reply")), "schema": dict(request.form)}
    return {"response_format": {"type": "json_schema", "json_schema": {**schema, "strict": True}}}
