"""Chats and text completions without a schema, on an engine of this process.

In goes the JSON of a request, out comes a whole answer or a stream in OpenAI's format. The model
writes as it likes, on one branch; a text of `stop` ends an answer before it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import ExitStack, aclosing
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from nprdsl.runtime.errors import ErrorBoundary
from nprdsl.runtime.http.completion_format import DONE
from nprdsl.runtime.http.followed import Followed, submitted
from nprdsl.runtime.http.refusals import PreparationError, RefusedError, as_refusal, refusing
from nprdsl.runtime.http.replies import (
    JsonReply,
    Reply,
    StreamReply,
    error_event,
    error_reply,
    server_sent_event,
)
from nprdsl.runtime.http.request_fields import PLAIN_CHAT, TEXT, check_fields
from nprdsl.runtime.http.request_models import PlainChatRequest, TextRequest
from nprdsl.runtime.http.text_format import ChatForm, PlainForm, TextForm
from nprdsl.runtime.http.written_answers import WrittenAnswer
from nprdsl.runtime.prompts import Prompt
from nprdsl.runtime.results import Completion
from nprdsl.structure.events import EndReason, TokenEvent

if TYPE_CHECKING:
    from nprdsl.runtime.local.engine import LocalEngine

CHAT_TOKENS: Final = 2048  # of an answer of a chat that says nothing
TEXT_TOKENS: Final = 16  # of a text completion; OpenAI's own


Asked = PlainChatRequest | TextRequest
Running = Followed[TokenEvent | Completion]


class PlainTexts:
    """The endpoints over one engine, which is served as `model`."""

    def __init__(self, engine: LocalEngine, model: str) -> None:
        self._engine = engine
        self._model = model

    async def chat(self, body: Mapping[str, Any]) -> Reply:
        """The answer to a chat without a schema, whose JSON is `body`."""
        refusals: list[RefusedError | PreparationError] = []
        with ErrorBoundary(lambda error: refusals.append(as_refusal(error, body))):
            asked = _chat_of(body)
            running = await self.start_chat(asked)
        for refusal in refusals:
            return error_reply(str(refusal), refusal.status)
        told = self._engine.vocabulary if asked.logprobs else None
        return await self._reply(ChatForm(self._model, told), asked, running)

    async def text(self, body: Mapping[str, Any]) -> Reply:
        """The answers to a text completion, `n` to each prompt."""
        refusals: list[RefusedError | PreparationError] = []
        with ErrorBoundary(lambda error: refusals.append(as_refusal(error, body))):
            asked = _text_of(body)
            running = await self._start(asked, asked.prompts, TEXT_TOKENS)
        for refusal in refusals:
            return error_reply(str(refusal), refusal.status)
        told = None if asked.logprobs is None else self._engine.vocabulary
        return await self._reply(TextForm(self._model, told), asked, running)

    async def start_chat(self, asked: PlainChatRequest) -> Running:
        """Starts the answers to a chat. Raises RefusedError."""
        return await self._start(asked, [asked.texts()], CHAT_TOKENS)

    async def _start(self, asked: Asked, prompts: Sequence[Prompt], most: int) -> Running:
        """Raises RefusedError."""
        engine = self._engine
        numbers = await submitted(lambda: self._submit(asked, prompts, most), engine.discard)
        return Followed(numbers, engine.afollow_text, engine.abort)

    @refusing()
    def _submit(self, asked: Asked, prompts: Sequence[Prompt], most: int) -> list[int]:
        """Starts all answers, or none. Raises RefusedError."""
        engine = self._engine
        budget = most if asked.budget is None else asked.budget
        seeds = asked.seeds(asked.count * len(prompts))
        numbers: list[int] = []
        with ExitStack() as begun:
            for index, seed in enumerate(seeds):
                number = engine.submit_text(
                    prompts[index // asked.count],
                    max_tokens=budget,
                    sampling=asked.sampling(engine.sampling_defaults, seed),
                )
                begun.callback(engine.discard, number)
                numbers.append(number)
            begun.pop_all()
        return numbers

    # -- answering ---------------------------------------------------------------------------------

    async def _reply(self, form: PlainForm, asked: Asked, running: Running) -> Reply:
        answers = [WrittenAnswer(i // asked.count, asked.stops) for i in range(running.count)]
        if isinstance(asked, TextRequest) and asked.echo:
            for answer in answers:
                answer.lead = self._spelled(asked.prompts[answer.prompt])
        if asked.stream:
            return StreamReply(self._chunks(form, asked, answers, running), running.aclose)
        async with aclosing(running):
            async for index, item in running:
                if isinstance(item, TokenEvent):
                    _add(answers[index], item, partial(running.stop, index))
                elif item.finish is EndReason.FAILED:
                    return error_reply(item.error, HTTPStatus.INTERNAL_SERVER_ERROR)
                else:
                    answers[index].end(item)
        return JsonReply(form.whole(answers))

    def _spelled(self, prompt: str | list[int]) -> str:
        return prompt if isinstance(prompt, str) else self._engine.vocabulary.text(prompt)

    async def _chunks(
        self, form: PlainForm, asked: Asked, answers: list[WrittenAnswer], running: Running
    ) -> AsyncGenerator[bytes]:
        """The server-sent events of a stream."""
        for index in range(len(answers)):
            first = form.first(index)
            if first is not None:
                yield server_sent_event(first)
            if answers[index].lead:
                yield server_sent_event(form.piece(answers[index], index, answers[index].lead))
        async with aclosing(running):
            async for index, item in running:
                answer = answers[index]
                if isinstance(item, TokenEvent):
                    text = _add(answer, item, partial(running.stop, index))
                    if text or form.tells:
                        yield server_sent_event(form.piece(answer, index, text))
                elif item.finish is EndReason.FAILED:
                    yield error_event(item.error, HTTPStatus.INTERNAL_SERVER_ERROR)
                else:
                    text = answer.end(item)
                    yield server_sent_event(form.piece(answer, index, text, answer.finish))
        if asked.tells_usage:
            yield server_sent_event(form.usage_chunk(answers))
        yield DONE


def _add(answer: WrittenAnswer, event: TokenEvent, stop: Callable[[], None]) -> str:
    """The text that is new; at a text of `stop` the request is stopped, and writes in vain from
    then on."""
    if answer.finish:
        return ""
    text = answer.add(event)
    if answer.finish:
        stop()
    return text


@refusing()
def _chat_of(body: Mapping[str, Any]) -> PlainChatRequest:
    """Raises RefusedError."""
    check_fields(body, PLAIN_CHAT)
    return PlainChatRequest.model_validate(dict(body))


@refusing()
def _text_of(body: Mapping[str, Any]) -> TextRequest:
    """Raises RefusedError."""
    check_fields(body, TEXT)
    asked = TextRequest.model_validate(dict(body))
    if asked.logprobs is not None and not 0 <= asked.logprobs <= 1:
        raise RefusedError(f"logprobs is {asked.logprobs}, it must be 0 or 1: of the token itself")
    if asked.logprobs is not None and asked.echo:
        raise RefusedError(
            "`echo` with `logprobs` asks for those of the prompt, which are not told: leave out one"
        )
    return asked
