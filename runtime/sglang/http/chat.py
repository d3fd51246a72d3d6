"""`/v1/chat/completions` with a schema: the answer is the message, the trace a field beside it.

The request is SGLang's own with more fields (`ChatOptions`). What cannot work is refused with 400
before anything runs: an unknown schema, a budget that no trace can meet, options without a meaning
for a trace.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, TypeVar

from fastapi.responses import ORJSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sglang.srt.managers.io_struct import GenerateReqInput

from nprdsl.grammar.diagnostics import did_you_mean
from nprdsl.prompting.instructions import instructions
from nprdsl.runtime.outcome import Ending, outcome
from nprdsl.runtime.prompts import PromptEncoder
from nprdsl.runtime.results import Result
from nprdsl.runtime.sampling import PER_RULE
from nprdsl.runtime.sglang.http import openai_forms
from nprdsl.runtime.sglang.protocol import ForkRequest, LimitsForm, Report, SchemaForm, reports
from nprdsl.runtime.sglang.requests import Library, Prepared, RefusedError, described
from nprdsl.runtime.sglang.server_info import ServerInfo
from nprdsl.runtime.sglang.written import written_of
from nprdsl.structure.events import EndReason
from nprdsl.tokens.vocabulary import Vocabulary
from nprdsl.trace.lexemes import TagMode

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
    """What a chat says of its trace. `schema` is the name of a shipped one or a whole `SchemaForm`;
    `rules` are sampling settings for single rules; `instructions` puts the format's explanation
    before the first message of the user, by default where the tags are no special tokens."""

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
class _Choice:
    """One of the `n` answers that a chat asks for."""

    index: int
    prompt: tuple[int, ...]
    fork: ForkRequest
    prepared: Prepared


class Chats:
    """All chats of one server."""

    _made: Chats | None = None

    def __init__(self, serving: Any, info: ServerInfo) -> None:
        self._serving = serving
        self._manager = serving.tokenizer_manager
        self._info = info
        vocabulary = Vocabulary.from_tokenizer(self._manager.tokenizer)
        self._prompts = PromptEncoder(self._manager.tokenizer, vocabulary)
        self._library = Library(vocabulary, info.outputs)
        self._worker = ThreadPoolExecutor(1)  # reads requests and results beside the event loop

    @classmethod
    def of(cls, serving: Any, info: ServerInfo) -> Chats:
        """Made when the first chat with a schema comes: it reads the whole vocabulary."""
        if cls._made is None:
            cls._made = cls(serving, info)
        return cls._made

    async def answer(self, request: Any, body: Mapping[str, Any], raw: Any) -> Any:
        """The response to one chat."""
        try:
            choices = await self._aside(lambda: self._read(request, body))
        except RefusedError as error:
            return self._refused(str(error))
        head = openai_forms.Head.of(self._manager.served_model_name)
        if request.stream:
            usage = bool(request.stream_options and request.stream_options.include_usage)
            chunks = self._chunks(head, choices, raw, usage=usage)
            return StreamingResponse(chunks, media_type="text/event-stream")
        try:
            results = await asyncio.gather(*(self._run(choice, raw) for choice in choices))
        except ValueError as error:  # refused by the scheduler
            return self._refused(str(error))
        failed = [result.error for result in results if result.finish is EndReason.FAILED]
        if failed:
            return self._serving.create_error_response(failed[0], "InternalServerError", 500)
        vocabulary = self._library.vocabulary if request.logprobs else None
        return ORJSONResponse(openai_forms.whole(head, results, vocabulary))

    async def _aside(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    def _refused(self, message: str) -> Any:
        return self._serving.create_error_response(message, "BadRequestError", 400)

    # -- reading -----------------------------------------------------------------------------------

    def _read(self, request: Any, body: Mapping[str, Any]) -> list[_Choice]:
        """Raises RefusedError."""
        known = {*type(request).model_fields, *_names(ChatOptions)}
        for name in body.keys() - known:
            hint = did_you_mean(name, sorted(known)) or "see docs/serving.md"
            raise RefusedError(f"a chat with a schema has no field `{name}`; {hint}")
        for name in _NO_MEANING:
            if name in body and body[name] not in (None, type(request).model_fields[name].default):
                raise RefusedError(f"`{name}` has no meaning in a chat with a schema")
        if not 1 <= request.n <= _MOST_CHOICES:
            raise RefusedError(f"n is {request.n}, it must be 1 to {_MOST_CHOICES}")
        try:
            options = ChatOptions.model_validate(dict(body))
            language = options.language
            form = SchemaForm(name=language) if isinstance(language, str) else language
            prompt = self._prompt(form, options, body["messages"])
            return [self._choice(i, form, options, request, prompt) for i in range(request.n)]
        except ValidationError as error:
            raise RefusedError(described(error)) from error
        except (ValueError, FileNotFoundError) as error:
            raise RefusedError(str(error)) from error

    def _prompt(
        self, form: SchemaForm, options: ChatOptions, messages: list[dict[str, Any]]
    ) -> tuple[int, ...]:
        bound = self._library.bound(form)
        wanted = options.instructions
        if wanted is None:
            wanted = bound.mode is not TagMode.SPECIAL
        lead = f"{instructions(bound.grammar)}\n" if wanted else ""
        return self._prompts.chat([_plain(message) for message in messages], lead)

    def _choice(
        self,
        index: int,
        form: SchemaForm,
        options: ChatOptions,
        request: Any,
        prompt: tuple[int, ...],
    ) -> _Choice:
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
        )
        info = self._info
        prepared = self._library.prepare(
            fork, prompt, positions=info.positions, capacity=info.capacity
        )
        lowered = LimitsForm.of(prepared.machine.limits)  # to the positions that there are
        return _Choice(index, prompt, fork.model_copy(update={"limits": lowered}), prepared)

    # -- running -----------------------------------------------------------------------------------

    def _asked(self, choice: _Choice, *, stream: bool) -> GenerateReqInput:
        return GenerateReqInput(
            input_ids=list(choice.prompt),
            sampling_params=choice.fork.sampling_params(),
            rid=uuid.uuid4().hex,
            stream=stream,
        )

    async def _run(self, choice: _Choice, raw: Any) -> Result:
        asked = self._asked(choice, stream=False)
        out = await anext(self._manager.generate_request(asked, raw))
        final = reports(out["meta_info"])[-1]
        return await self._aside(lambda: _result(choice, final))

    async def _chunks(
        self, head: openai_forms.Head, choices: list[_Choice], raw: Any, *, usage: bool
    ) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        results: list[Result] = []
        tasks = [
            asyncio.create_task(self._follow(head, choice, raw, queue, results))
            for choice in choices
        ]
        try:
            running = len(tasks)
            while running:
                chunk = await queue.get()
                running -= chunk is None
                if chunk is not None:
                    yield chunk
            if usage:
                yield openai_forms.event(openai_forms.usage_chunk(head, results))
            yield openai_forms.DONE
        finally:  # a client that goes away leaves them behind
            for task in tasks:
                task.cancel()

    async def _follow(
        self,
        head: openai_forms.Head,
        choice: _Choice,
        raw: Any,
        queue: asyncio.Queue[bytes | None],
        results: list[Result],
    ) -> None:
        """Puts the chunks of one choice into the queue, and None behind them."""
        asked = self._asked(choice, stream=True)
        ended = False
        try:
            await queue.put(openai_forms.event(openai_forms.first_chunk(head, choice.index)))
            async for out in self._manager.generate_request(asked, raw):
                for report in reports(out["meta_info"]):
                    for happened in report.seen():
                        chunk = openai_forms.event_chunk(head, choice.index, happened)
                        await queue.put(openai_forms.event(chunk))
                    if report.final:
                        ended = True
                        results.append(await self._aside(partial(_result, choice, report)))
                        for chunk in openai_forms.last_chunks(head, choice.index, results[-1]):
                            await queue.put(openai_forms.event(chunk))
            if not ended:
                message = str(out["meta_info"]["finish_reason"].get("message", "aborted"))
                await queue.put(openai_forms.event(openai_forms.failure(message)))
        except ValueError as error:
            await queue.put(openai_forms.event(openai_forms.failure(str(error))))
        finally:
            if not ended:
                self._manager.abort_request(asked.rid)
            queue.put_nowait(None)


def _result(choice: _Choice, report: Report) -> Result:
    machine = choice.prepared.machine
    assert report.finish is not None
    ending = Ending(0, report.finish, report.forwards, 0.0, len(report.ids), report.error)
    return outcome(machine.bound, choice.prompt, written_of(report), ending)


def _names(options: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in options.model_fields.items()}


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


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """The message with its content as one text. Raises RefusedError for images and the like."""
    content = message.get("content")
    if isinstance(content, list):
        strange = [part.get("type") for part in content if part.get("type") != "text"]
        if strange:
            raise RefusedError(f"a chat with a schema takes text only, not `{strange[0]}`")
        content = "".join(part["text"] for part in content)
    return {**message, "content": content or ""}
