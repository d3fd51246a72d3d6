"""`/v1/chat/completions` with a schema: the message is the answer, the trace a field beside it.

In goes SGLang's own request with more fields (`ChatOptions`); out comes its response, whole or as a
stream. Everything that cannot work is refused with a 400 before anything runs: an unknown schema, a
budget that no trace can meet, options that have no meaning for a trace.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, TypeVar

from fastapi.responses import ORJSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from sglang.srt.managers.io_struct import GenerateReqInput

from nprdsl.grammar.diagnostics import did_you_mean
from nprdsl.masks.bound_schema import TagMode
from nprdsl.prompting.instructions import instructions
from nprdsl.runtime.prompts import PromptEncoder
from nprdsl.runtime.results import Ending, Result, result_of
from nprdsl.runtime.sampling import PER_RULE
from nprdsl.runtime.sglang.http.completion_format import DONE, CompletionHead, server_sent_event
from nprdsl.runtime.sglang.preparation import (
    PreparedTrace,
    RefusedError,
    SchemaLibrary,
    refusing,
)
from nprdsl.runtime.sglang.protocol import (
    ForkRequest,
    LimitsForm,
    SchemaForm,
    ServerInfo,
    TraceReport,
    read_reports,
)
from nprdsl.structure.events import EndReason
from nprdsl.tokens.vocabulary import Vocabulary

T = TypeVar("T")

_SAMPLING: Final = (*PER_RULE, "seed")
_NO_MEANING: Final = (
    "tools",
    "response_format",
    "stop",
    "stop_token_ids",
    "stop_regex",
    "regex",
    "ebnf",
    "logit_bias",
    "top_logprobs",
    "min_tokens",
    "ignore_eos",
    "continue_final_message",
    "lora_path",
    "session_params",
    "custom_logit_processor",
    "chat_template_kwargs",
    "return_hidden_states",
)
_MOST_CHOICES: Final = 128


class ChatOptions(BaseModel):
    """The fields of a chat about its trace.

    `schema`: the name of a shipped schema, or a whole `SchemaForm`. `rules`: sampling settings for
    single rules. `instructions`: whether to explain the format before the first message of the
    user; by default, unless all tags of the schema are tokens of the model.
    """

    model_config = ConfigDict(frozen=True)

    language: str | SchemaForm = Field(alias="schema")
    limits: LimitsForm = LimitsForm()
    join: Literal["all", "first"] | int = "all"
    parallel: bool = True
    instructions: bool | None = None
    rules: dict[str, dict[str, int | float]] = {}

    @property
    def quorum(self) -> int | None:
        return {"all": None, "first": 1}[self.join] if isinstance(self.join, str) else self.join


@dataclass(frozen=True, slots=True)
class _ChatChoice:
    """One of the `n` answers that a chat asks for."""

    prompt: tuple[int, ...]
    fork: ForkRequest
    prepared: PreparedTrace

    def result(self, report: TraceReport) -> Result:
        """The result that a final report describes."""
        assert report.finish is not None
        ending = Ending(0, report.finish, report.forwards, 0.0, len(report.ids), report.error)
        bound = self.prepared.machine.bound
        return result_of(bound, self.prompt, report.written(), ending)


class ChatEndpoint:
    """All chats with schemas of one server; `serving` is SGLang's handler of chats."""

    def __init__(self, serving: Any, info: ServerInfo) -> None:
        self._serving = serving
        self._manager = serving.tokenizer_manager
        self._info = info
        vocabulary = Vocabulary.from_tokenizer(self._manager.tokenizer)
        self._prompts = PromptEncoder(self._manager.tokenizer, vocabulary)
        self._library = SchemaLibrary(vocabulary, info.outputs)
        self._worker = ThreadPoolExecutor(
            1
        )  # compiles and parses, so that the event loop never waits

    async def answer(self, request: Any, body: Mapping[str, Any], raw: Any) -> Any:
        """The response to one chat. `request` is SGLang's reading of it, `body` its JSON, `raw` the
        HTTP request."""
        try:
            choices = await self._in_worker(lambda: self._read(request, body))
        except RefusedError as error:
            return self._serving.create_error_response(str(error))
        head = CompletionHead.of(self._manager.served_model_name)
        batch = GenerateReqInput(
            input_ids=[list(choice.prompt) for choice in choices],
            sampling_params=[choice.fork.sampling_params() for choice in choices],
            stream=request.stream,
        )
        if request.stream:
            usage = bool(request.stream_options and request.stream_options.include_usage)
            chunks = self._chunks(head, choices, batch, raw, usage=usage)
            return StreamingResponse(chunks, media_type="text/event-stream")
        try:
            outputs = await anext(self._manager.generate_request(batch, raw))
        except ValueError as error:  # refused by the scheduler
            return self._serving.create_error_response(str(error))
        finals = [read_reports(output["meta_info"])[-1] for output in outputs]
        pairs = list(zip(choices, finals, strict=True))
        results = await self._in_worker(lambda: [choice.result(final) for choice, final in pairs])
        failed = [result.error for result in results if result.finish is EndReason.FAILED]
        if failed:
            return self._serving.create_error_response(failed[0], "InternalServerError", 500)
        vocabulary = self._library.vocabulary if request.logprobs else None
        return ORJSONResponse(head.whole(results, vocabulary))

    async def _in_worker(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    # -- reading a request -------------------------------------------------------------------------

    @refusing()
    def _read(self, request: Any, body: Mapping[str, Any]) -> list[_ChatChoice]:
        """Raises RefusedError."""
        _check_fields(request, body)
        options = ChatOptions.model_validate(dict(body))
        language = options.language
        form = SchemaForm(name=language) if isinstance(language, str) else language
        prompt = self._prompt(form, options, body["messages"])
        return [self._choice(i, form, options, request, prompt) for i in range(request.n)]

    def _prompt(
        self, form: SchemaForm, options: ChatOptions, messages: list[dict[str, Any]]
    ) -> tuple[int, ...]:
        bound = self._library.bound(form)
        wanted = options.instructions
        if wanted is None:
            wanted = bound.mode is not TagMode.SPECIAL
        lead = f"{instructions(bound.grammar)}\n" if wanted else ""
        return self._prompts.chat([_with_text_content(message) for message in messages], lead)

    def _choice(
        self,
        index: int,
        form: SchemaForm,
        options: ChatOptions,
        request: Any,
        prompt: tuple[int, ...],
    ) -> _ChatChoice:
        given = {name: getattr(request, name) for name in _SAMPLING}
        sampling = self._info.sampling | {n: v for n, v in given.items() if v is not None}
        sampling["seed"] = sampling.get("seed", 0) + index
        fork = ForkRequest(
            language=form,
            limits=_limits(options.limits, request),
            quorum=options.quorum,
            sampling=sampling | {"rules": options.rules},
            parallel=options.parallel,
            events=request.stream,
            logprobs=bool(request.logprobs),
        )
        info = self._info
        prepared = self._library.prepare(
            fork, prompt, positions=info.positions, capacity=info.capacity
        )
        lowered = LimitsForm.of(prepared.machine.limits)  # to the positions that there are
        return _ChatChoice(prompt, fork.model_copy(update={"limits": lowered}), prepared)

    # -- streaming ---------------------------------------------------------------------------------

    async def _chunks(
        self,
        head: CompletionHead,
        choices: list[_ChatChoice],
        batch: GenerateReqInput,
        raw: Any,
        *,
        usage: bool,
    ) -> AsyncIterator[bytes]:
        """The server-sent events of a stream. SGLang merges the streams of all choices, and aborts
        them if the client goes away."""
        results: list[Result] = []
        for index in range(len(choices)):
            yield server_sent_event(head.first_chunk(index))
        try:
            async with aclosing(self._manager.generate_request(batch, raw)) as outputs:
                async for output in outputs:
                    index, meta = output["index"], output["meta_info"]
                    reports = read_reports(meta)
                    for event in (e for report in reports for e in report.read_events()):
                        yield server_sent_event(head.event_chunk(index, event))
                    if reports and reports[-1].final:
                        make = partial(choices[index].result, reports[-1])
                        results.append(await self._in_worker(make))
                        if results[-1].finish is EndReason.FAILED:
                            yield self._error_event(results[-1].error, 500)
                            continue
                        for chunk in head.last_chunks(index, results[-1]):
                            yield server_sent_event(chunk)
                    elif meta["finish_reason"] is not None:  # ended before the plugin had it
                        yield self._error_event(meta["finish_reason"].get("message", "aborted"))
        except ValueError as error:
            yield self._error_event(str(error))
        if usage:
            yield server_sent_event(head.usage_chunk(results))
        yield DONE

    def _error_event(self, message: str, status: int = 400) -> bytes:
        kind = "BadRequestError" if status < 500 else "InternalServerError"
        error: str = self._serving.create_streaming_error_response(message, kind, status)
        return f"data: {error}\n\n".encode()


def _check_fields(request: Any, body: Mapping[str, Any]) -> None:
    """Raises RefusedError for unknown fields, and for those without a meaning for a trace."""
    stock = type(request).model_fields
    own = {field.alias or name for name, field in ChatOptions.model_fields.items()}
    for name in body.keys() - stock.keys() - own:
        hint = did_you_mean(name, sorted({*stock, *own})) or "see docs/serving.md"
        raise RefusedError(f"a chat with a schema has no field `{name}`; {hint}")
    for name in _NO_MEANING:
        if name in body and body[name] not in (None, stock[name].default):
            raise RefusedError(f"`{name}` has no meaning in a chat with a schema")
    if not 1 <= request.n <= _MOST_CHOICES:
        raise RefusedError(f"n is {request.n}, it must be 1 to {_MOST_CHOICES}")


def _limits(limits: LimitsForm, request: Any) -> LimitsForm:
    """`max_completion_tokens`, or the older `max_tokens`, is the budget of the trace."""
    wanted = request.max_completion_tokens or request.max_tokens
    if wanted is None:
        return limits
    if "max_tokens" in limits.model_fields_set and limits.max_tokens != wanted:
        raise RefusedError(
            f"limits.max_tokens is {limits.max_tokens}, but max_completion_tokens is {wanted}: "
            "give one of them"
        )
    return limits.model_copy(update={"max_tokens": wanted})


def _with_text_content(message: dict[str, Any]) -> dict[str, Any]:
    """The message with its content as one text. Raises RefusedError for images and the like."""
    content = message.get("content")
    if isinstance(content, list):
        others = [part.get("type") for part in content if part.get("type") != "text"]
        if others:
            raise RefusedError(f"a chat with a schema takes text only, not `{others[0]}`")
        content = "".join(part["text"] for part in content)
    return {**message, "content": content or ""}
