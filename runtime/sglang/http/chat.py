"""`/v1/chat/completions` with a schema: the message is the answer, the trace a field beside it.

In goes SGLang's own request with more fields (`ChatOptions`); out comes its response, whole or as a
stream. Everything that cannot work is refused with a 400 before anything runs: an unknown schema, a
budget that no trace can meet, options that have no meaning for a trace.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Literal

from fastapi.responses import ORJSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from sglang.srt.managers.io_struct import GenerateReqInput

from nprdsl.masks.bound_schema import TagMode
from nprdsl.prompting.instructions import instructions
from nprdsl.runtime.errors import ErrorBoundary
from nprdsl.runtime.http.chat_fields import SAMPLING, check_fields
from nprdsl.runtime.http.completion_format import DONE, CompletionHead, server_sent_event
from nprdsl.runtime.http.refusals import PreparationError, RefusedError, as_refusal, refusing
from nprdsl.runtime.http.wire_forms import LimitsForm, SchemaForm
from nprdsl.runtime.prompts import PromptEncoder
from nprdsl.runtime.results import Ending, Result, result_of
from nprdsl.runtime.sglang.http.intake import Intake
from nprdsl.runtime.sglang.http.intake_hooks import client_of
from nprdsl.runtime.sglang.preparation import PreparedTrace
from nprdsl.runtime.sglang.protocol import ForkRequest, ServerInfo, TraceReport, read_reports
from nprdsl.structure.events import EndReason

_ERROR_NAMES: Final = {
    HTTPStatus.BAD_REQUEST: "BadRequestError",
    HTTPStatus.TOO_MANY_REQUESTS: "RateLimitError",
    HTTPStatus.INTERNAL_SERVER_ERROR: "InternalServerError",
}
_SEEDS: Final = 2**31  # as many are drawn from, where a chat names none


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
    def form(self) -> SchemaForm:
        """The schema as it is sent on."""
        given = self.language
        return SchemaForm(name=given) if isinstance(given, str) else given

    @property
    def quorum(self) -> int | None:
        return {"all": None, "first": 1}[self.join] if isinstance(self.join, str) else self.join


@dataclass(frozen=True, slots=True)
class _ChatChoice:
    """One of the `n` answers that a chat asks for. `rid` names it in SGLang."""

    rid: str
    prompt: tuple[int, ...]
    fork: ForkRequest
    prepared: PreparedTrace

    @property
    def seed(self) -> int:
        return self.prepared.sampling.seed

    def result(self, report: TraceReport) -> Result:
        """The result that a final report describes."""
        assert report.finish is not None
        ending = Ending(0, report.finish, report.forwards, 0.0, len(report.ids), report.error)
        bound = self.prepared.machine.bound
        return result_of(bound, self.prompt, report.written(), ending)


class ChatEndpoint:
    """All chats with schemas of one server; `serving` is SGLang's handler of chats."""

    def __init__(self, serving: Any, info: ServerInfo, intake: Intake) -> None:
        self._serving = serving
        self._manager = serving.tokenizer_manager
        self._info = info
        self._intake = intake
        self._library = intake.library
        self._prompts = PromptEncoder(self._manager.tokenizer, self._library.vocabulary)
        self._open: dict[str, list[str]] = {}  # the names of answers, by the name of their chat

    async def answer(self, request: Any, body: Mapping[str, Any], raw: Any) -> Any:
        """The response to one chat. `request` is SGLang's reading of it, `body` its JSON, `raw` the
        HTTP request."""
        refusals: list[RefusedError | PreparationError] = []
        with ErrorBoundary(lambda error: refusals.append(as_refusal(error, body))):
            options = self._options(request, body)
            packed = await self._intake.packed(options.form, client_of(raw))
            choices = await self._intake.in_thread(
                lambda: self._read(request, body, options, packed)
            )
        for refusal in refusals:
            return self._serving.create_error_response(
                str(refusal), _ERROR_NAMES[refusal.status], refusal.status
            )
        head = CompletionHead.of(self._manager.served_model_name)
        batch = GenerateReqInput(
            rid=[choice.rid for choice in choices],
            input_ids=[list(choice.prompt) for choice in choices],
            sampling_params=[choice.fork.sampling_params() for choice in choices],
            stream=request.stream,
            extra_key=request.extra_key,
            cache_salt=request.cache_salt,
            routed_dp_rank=request.routed_dp_rank,
        )
        if request.stream:
            usage = bool(request.stream_options and request.stream_options.include_usage)
            chunks = self._chunks(head, choices, request.rid, batch, raw, usage=usage)
            return StreamingResponse(chunks, media_type="text/event-stream")
        try:
            async with self._abortable(request.rid, batch.rid):
                outputs = await anext(self._manager.generate_request(batch, raw))
        except ValueError as error:  # refused by the scheduler
            return self._serving.create_error_response(str(error))
        finals = [read_reports(output["meta_info"])[-1] for output in outputs]
        pairs = list(zip(choices, finals, strict=True))
        results = await self._intake.in_thread(
            lambda: [choice.result(final) for choice, final in pairs]
        )
        failed = [result.error for result in results if result.finish is EndReason.FAILED]
        if failed:
            return self._serving.create_error_response(failed[0], "InternalServerError", 500)
        vocabulary = self._library.vocabulary if request.logprobs else None
        seeds = [choice.seed for choice in choices]
        return ORJSONResponse(head.whole(results, seeds, vocabulary))

    def rids_of(self, rid: str) -> list[str]:
        """The names of all answers to an open chat of that name; the name itself of others."""
        return self._open.get(rid, [rid])

    @asynccontextmanager
    async def _abortable(self, rid: object, answers: list[str]) -> AsyncIterator[None]:
        """While a chat is open, an abort of its name reaches all its answers."""
        if not isinstance(rid, str) or answers == [rid]:
            yield
            return
        self._open[rid] = answers
        try:
            yield
        finally:
            self._open.pop(rid, None)

    # -- reading a request -------------------------------------------------------------------------

    @refusing()
    def _options(self, request: Any, body: Mapping[str, Any]) -> ChatOptions:
        """Raises RefusedError."""
        check_fields(body)
        _, adapter = self._serving._parse_model_parameter(request.model)
        if adapter is not None:
            raise RefusedError(f"a chat with a schema cannot have the adapter `{adapter}` (LoRA)")
        return ChatOptions.model_validate(dict(body))

    @refusing()
    def _read(
        self, request: Any, body: Mapping[str, Any], options: ChatOptions, packed: str
    ) -> list[_ChatChoice]:
        """`packed`: the grammar of the schema. Raises RefusedError."""
        prompt = self._prompt(packed, options, body["messages"])
        first = secrets.randbelow(_SEEDS) if request.seed is None else request.seed
        return [
            self._choice(rid, first + i, packed, options, request, prompt)
            for i, rid in enumerate(_rids(request.rid, request.n))
        ]

    def _prompt(
        self, packed: str, options: ChatOptions, messages: list[dict[str, Any]]
    ) -> tuple[int, ...]:
        bound = self._library.bound(packed)
        wanted = options.instructions
        if wanted is None:
            wanted = bound.mode is not TagMode.SPECIAL
        lead = f"{instructions(bound.grammar)}\n" if wanted else ""
        return self._prompts.chat([_with_text_content(message) for message in messages], lead)

    def _choice(
        self,
        rid: str,
        seed: int,
        packed: str,
        options: ChatOptions,
        request: Any,
        prompt: tuple[int, ...],
    ) -> _ChatChoice:
        given = {name: getattr(request, name) for name in SAMPLING}
        sampling = self._info.sampling | {n: v for n, v in given.items() if v is not None}
        fork = ForkRequest(
            language=options.form,
            limits=_limits(options.limits, request),
            quorum=options.quorum,
            sampling=sampling | {"seed": seed, "rules": options.rules},
            parallel=options.parallel,
            events=request.stream,
            logprobs=bool(request.logprobs),
        )
        info = self._info
        prepared = self._library.prepare(
            fork, packed, prompt, positions=info.positions, capacity=info.capacity
        )
        lowered = LimitsForm.of(prepared.machine.limits)  # to the positions that there are
        return _ChatChoice(rid, prompt, fork.model_copy(update={"limits": lowered}), prepared)

    # -- streaming ---------------------------------------------------------------------------------

    async def _chunks(
        self,
        head: CompletionHead,
        choices: list[_ChatChoice],
        rid: str | list[str] | None,
        batch: GenerateReqInput,
        raw: Any,
        *,
        usage: bool,
    ) -> AsyncIterator[bytes]:
        """The server-sent events of a stream. SGLang merges the streams of all choices, and aborts
        them if the client goes away."""
        results: list[Result] = []
        told = self._library.vocabulary if choices[0].fork.logprobs else None
        for index in range(len(choices)):
            yield server_sent_event(head.first_chunk(index))
        try:
            stream = self._manager.generate_request(batch, raw)
            async with self._abortable(rid, batch.rid), aclosing(stream) as outputs:
                async for output in outputs:
                    index, meta = output["index"], output["meta_info"]
                    reports = read_reports(meta)
                    for event in (e for report in reports for e in report.read_events()):
                        yield server_sent_event(head.event_chunk(index, event, told))
                    if reports and reports[-1].final:
                        make = partial(choices[index].result, reports[-1])
                        results.append(await self._intake.in_thread(make))
                        if results[-1].finish is EndReason.FAILED:
                            yield self._error_event(results[-1].error, 500)
                            continue
                        for chunk in head.last_chunks(index, results[-1], choices[index].seed):
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


def _rids(rid: str | list[str] | None, count: int) -> list[str]:
    """A name for each answer: those that are given, or made of one. Raises RefusedError."""
    if rid is None:
        return [uuid.uuid4().hex for _ in range(count)]
    if isinstance(rid, str):
        return [rid] if count == 1 else [f"{rid}_{i}" for i in range(count)]
    if len(rid) != count or len(set(rid)) != count:
        raise RefusedError(f"`rid` has {len(rid)} names, n is {count}: give {count} unlike ones")
    return rid


def _limits(limits: LimitsForm, request: Any) -> LimitsForm:
    """`max_completion_tokens`, or the older `max_tokens`, is the budget of the trace."""
    wanted = request.max_completion_tokens
    wanted = request.max_tokens if wanted is None else wanted
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
