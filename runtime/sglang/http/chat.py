"""Runs the traces of `/v1/chat/completions` in SGLang: the `TraceRunner` of a server with the
plugin.

Each answer is a request of its own for SGLang's tokenizer manager, prepared here first, so that a
bad chat is refused with a 400 before anything runs. The endpoint itself is that of every server
(`nprdsl.runtime.http.trace_chats`).
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi.responses import ORJSONResponse, StreamingResponse
from sglang.srt.managers.io_struct import GenerateReqInput

from nprdsl.masks.bound_schema import TagMode
from nprdsl.prompting.instructions import instructions
from nprdsl.runtime.http.refusals import RefusedError, refusing
from nprdsl.runtime.http.replies import JsonReply
from nprdsl.runtime.http.request_fields import ROUTING
from nprdsl.runtime.http.request_models import TraceRequest
from nprdsl.runtime.http.spans import spanned
from nprdsl.runtime.http.trace_chats import TraceChats, TraceRunner
from nprdsl.runtime.http.wire_forms import LimitsForm
from nprdsl.runtime.prompts import PromptEncoder
from nprdsl.runtime.results import Ending, Result, result_of
from nprdsl.runtime.sglang.http.intake import Intake
from nprdsl.runtime.sglang.http.intake_hooks import client_of
from nprdsl.runtime.sglang.preparation import PreparedTrace
from nprdsl.runtime.sglang.protocol import ForkRequest, ServerInfo, TraceReport, read_reports
from nprdsl.structure.events import Event
from nprdsl.tokens.vocabulary import Vocabulary

Item = tuple[int, Event | Result | RefusedError]


@dataclass(frozen=True, slots=True)
class SGLangChat:
    """A chat as it came: `request` is SGLang's reading of it, `raw` the HTTP request."""

    request: Any
    raw: Any


@dataclass(frozen=True, slots=True)
class _ChatChoice:
    """One of the `n` answers that a chat asks for. `rid` names it in SGLang."""

    rid: str
    prompt: tuple[int, ...]
    fork: ForkRequest
    prepared: PreparedTrace

    def result(self, report: TraceReport) -> Result:
        """The result that a final report describes."""
        assert report.finish is not None
        ending = Ending(0, report.finish, report.forwards, 0.0, len(report.ids), report.error)
        bound = self.prepared.machine.bound
        return result_of(bound, self.prompt, report.written(), ending)


class SGLangChats:
    """All chats with schemas of one server; `serving` is SGLang's handler of chats, `runner` what
    endpoints run traces with."""

    honoured = ROUTING

    def __init__(self, serving: Any, info: ServerInfo, intake: Intake) -> None:
        self._serving = serving
        self._manager = serving.tokenizer_manager
        self._info = info
        self._intake = intake
        self._library = intake.library
        self._prompts = PromptEncoder(self._manager.tokenizer, self._library.vocabulary)
        self._open: dict[str, list[str]] = {}  # the names of answers, by the name of their chat
        self.runner: TraceRunner[SGLangChat] = spanned(self)
        self._endpoint = TraceChats(self.runner)

    @property
    def model(self) -> str:
        return str(self._manager.served_model_name)

    @property
    def vocabulary(self) -> Vocabulary:
        return self._library.vocabulary

    async def response(self, request: Any, body: Mapping[str, Any], raw: Any) -> Any:
        """The HTTP response to one chat; `body` is its JSON."""
        reply = await self._endpoint.answer(body, SGLangChat(request, raw))
        if isinstance(reply, JsonReply):
            return ORJSONResponse(reply.content, reply.status)
        return StreamingResponse(reply.chunks, media_type="text/event-stream")

    def rids_of(self, rid: str) -> list[str]:
        """The names of all answers to an open chat of that name; the name itself of others."""
        return self._open.get(rid, [rid])

    async def start(
        self, chat: TraceRequest, seeds: list[int], source: SGLangChat
    ) -> AsyncGenerator[Item]:
        """Raises RefusedError, PreparationError."""
        request, raw = source.request, source.raw
        _, adapter = self._serving._parse_model_parameter(request.model)
        if adapter is not None:
            raise RefusedError(f"a chat with a schema cannot have the adapter `{adapter}` (LoRA)")
        packed = await self._intake.packed(chat.form, client_of(raw))
        choices = await self._intake.in_thread(lambda: self._read(request, chat, packed, seeds))
        batch = GenerateReqInput(
            rid=[choice.rid for choice in choices],
            input_ids=[list(choice.prompt) for choice in choices],
            sampling_params=[choice.fork.sampling_params() for choice in choices],
            stream=bool(chat.stream),
            extra_key=request.extra_key,
            cache_salt=request.cache_salt,
            routed_dp_rank=request.routed_dp_rank,
        )
        return self._items(choices, request.rid, batch, raw)

    @contextmanager
    def _abortable(self, rid: object, answers: list[str]) -> Iterator[None]:
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
    def _read(
        self, request: Any, chat: TraceRequest, packed: str, seeds: list[int]
    ) -> list[_ChatChoice]:
        """`packed`: the grammar of the schema. Raises RefusedError."""
        prompt = self._prompt(packed, chat)
        rids = _rids(request.rid, len(seeds))
        return [
            self._choice(rid, seed, packed, chat, prompt)
            for rid, seed in zip(rids, seeds, strict=True)
        ]

    def _prompt(self, packed: str, chat: TraceRequest) -> tuple[int, ...]:
        bound = self._library.bound(packed)
        wanted = chat.instructions
        if wanted is None:
            wanted = bound.mode is not TagMode.SPECIAL
        lead = f"{instructions(bound.grammar)}\n" if wanted else ""
        return self._prompts.chat(chat.texts(), lead)

    def _choice(
        self, rid: str, seed: int, packed: str, chat: TraceRequest, prompt: tuple[int, ...]
    ) -> _ChatChoice:
        info = self._info
        fork = ForkRequest(
            language=chat.form,
            limits=chat.limits_form,
            quorum=chat.quorum,
            sampling=chat.settings(info.sampling) | {"seed": seed, "rules": chat.rules},
            parallel=chat.parallel,
            events=bool(chat.stream),
            logprobs=bool(chat.logprobs),
        )
        prepared = self._library.prepare(
            fork, packed, prompt, positions=info.positions, capacity=info.capacity
        )
        lowered = LimitsForm.of(prepared.machine.limits)  # to the positions that there are
        return _ChatChoice(rid, prompt, fork.model_copy(update={"limits": lowered}), prepared)

    # -- running it --------------------------------------------------------------------------------

    async def _items(
        self,
        choices: list[_ChatChoice],
        rid: str | list[str] | None,
        batch: GenerateReqInput,
        raw: Any,
    ) -> AsyncGenerator[Item]:
        """SGLang merges the streams of all choices. Those that nobody waits for are aborted."""
        written = self._streamed if batch.stream else self._whole
        try:
            with self._abortable(rid, batch.rid):
                async with aclosing(written(choices, batch, raw)) as items:
                    async for item in items:
                        yield item
        except ValueError as error:  # refused by the scheduler
            yield 0, RefusedError(str(error))
        finally:
            for rid in batch.rid:
                self._manager.abort_request(rid=rid)  # does nothing to those that have ended

    async def _whole(
        self, choices: list[_ChatChoice], batch: GenerateReqInput, raw: Any
    ) -> AsyncGenerator[Item]:
        outputs = await anext(self._manager.generate_request(batch, raw))
        for index, (choice, output) in enumerate(zip(choices, outputs, strict=True)):
            final = read_reports(output["meta_info"])[-1]
            yield index, await self._intake.in_thread(partial(choice.result, final))

    async def _streamed(
        self, choices: list[_ChatChoice], batch: GenerateReqInput, raw: Any
    ) -> AsyncGenerator[Item]:
        stream: AsyncIterator[Any] = self._manager.generate_request(batch, raw)
        async with aclosing(stream) as outputs:  # type: ignore[type-var]
            async for output in outputs:
                index, meta = output["index"], output["meta_info"]
                reports = read_reports(meta)
                for event in (e for report in reports for e in report.read_events()):
                    yield index, event
                if reports and reports[-1].final:
                    make = partial(choices[index].result, reports[-1])
                    yield index, await self._intake.in_thread(make)
                elif meta["finish_reason"] is not None:  # ended before the plugin had it
                    told = meta["finish_reason"].get("message", "aborted")
                    yield index, RefusedError(told)


def _rids(rid: str | list[str] | None, count: int) -> list[str]:
    """A name for each answer: those that are given, or made of one. Raises RefusedError."""
    if rid is None:
        return [uuid.uuid4().hex for _ in range(count)]
    if isinstance(rid, str):
        return [rid] if count == 1 else [f"{rid}_{i}" for i in range(count)]
    if len(rid) != count or len(set(rid)) != count:
        raise RefusedError(f"`rid` has {len(rid)} names, n is {count}: give {count} unlike ones")
    return rid
