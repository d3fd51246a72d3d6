"""Spans of OpenTelemetry for traces: one a request, and below it one for each branch.

`spanned` stands around a `TraceRunner` of any engine. Names and attributes are those of
OpenTelemetry's conventions for generative AI (`gen_ai.…`) where there are such, else `nprdsl.…`.
Spans are made only where something records them: an SDK that is set up in the process
(`opentelemetry-instrument`, or `export_spans`).
"""

from __future__ import annotations

import logging
import os
from asyncio import CancelledError
from collections.abc import AsyncGenerator, Collection
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from nprdsl.machine.actions import ROOT
from nprdsl.runtime.http.refusals import PreparationError, RefusedError
from nprdsl.runtime.http.request_models import TraceRequest
from nprdsl.runtime.http.trace_chats import RunningTraces, TraceRunner
from nprdsl.runtime.http.trace_writing import FailureCode
from nprdsl.runtime.results import Result
from nprdsl.structure.events import BranchEndEvent, EndReason, Event, ForkEvent, TokenEvent
from nprdsl.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

SourceT = TypeVar("SourceT")
ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_NAME: Final = "nprdsl"
_ASKED: Final = (
    "temperature",
    "top_p",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "seed",
)
_log = logging.getLogger(__name__)


def spanned(runner: TraceRunner[SourceT]) -> TraceRunner[SourceT]:
    """The runner, with spans where OpenTelemetry is installed."""
    if find_spec("opentelemetry") is None:
        return runner
    from opentelemetry.trace import get_tracer

    return SpannedTraces(runner, get_tracer(_NAME))


def export_spans() -> None:
    """Sends spans to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names, unless an SDK is set up
    already. Without the packages a line in the log says so."""
    if not os.environ.get(ENDPOINT):
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError:
        _log.warning("%s is set, but spans need: pip install 'nprdsl[otel]'", ENDPOINT)
        return
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    name = os.environ.get("OTEL_SERVICE_NAME", _NAME)
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


class SpannedTraces(Generic[SourceT]):
    """A `TraceRunner` around another."""

    def __init__(self, runner: TraceRunner[SourceT], tracer: Tracer) -> None:
        self._runner = runner
        self._tracer = tracer

    @property
    def model(self) -> str:
        return self._runner.model

    @property
    def vocabulary(self) -> Vocabulary:
        return self._runner.vocabulary

    @property
    def honoured(self) -> Collection[str]:
        return self._runner.honoured

    async def start(self, chat: TraceRequest, seeds: list[int], source: SourceT) -> RunningTraces:
        span = self._tracer.start_span(f"chat {self.model}", attributes=self._asked(chat))
        if not span.is_recording():
            return await self._runner.start(chat, seeds, source)
        watched = chat.model_copy(update={"stream": True})  # branches are seen in events
        try:
            running = await self._runner.start(watched, seeds, source)
        except (RefusedError, PreparationError, CancelledError) as error:  # the client went away
            _failed(span, str(error), type(error).__name__)
            span.end()
            raise
        return SpannedRun(running, span, self._tracer)

    def _asked(self, chat: TraceRequest) -> dict[str, Any]:
        given = {f"gen_ai.request.{name}": getattr(chat, name) for name in _ASKED}
        given |= {
            "gen_ai.request.max_tokens": chat.budget,
            "gen_ai.request.choice.count": None if chat.count == 1 else chat.count,
        }
        return {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": _NAME,
            "gen_ai.request.model": chat.model or self.model,
            "gen_ai.response.model": self.model,
            "nprdsl.schema": chat.form.name,
            **{name: value for name, value in given.items() if value is not None},
        }


class SpannedRun:
    """The traces of one request, with their spans; `span` is the request's."""

    def __init__(self, running: RunningTraces, span: Span, tracer: Tracer) -> None:
        self._running = running
        self._span = span
        self._tracer = tracer
        self._branches: dict[tuple[int, int], Span] = {}  # by answer and branch
        self._tokens: dict[tuple[int, int], int] = {}
        self._results: list[Result] = []

    async def __aiter__(self) -> AsyncGenerator[tuple[int, Event | Result | RefusedError]]:
        async for index, item in self._running:
            self._note(index, item)
            yield index, item
        self._end()

    async def aclose(self) -> None:
        self._end()
        await self._running.aclose()

    def _note(self, index: int, item: Event | Result | RefusedError) -> None:
        match item:
            case RefusedError():
                _failed(self._span, str(item), type(item).__name__)
            case Result():
                self._results.append(item)
                if item.finish is EndReason.FAILED:
                    _failed(self._span, item.error, FailureCode.FAILED)
            case TokenEvent():
                place = index, item.branch
                self._tokens[place] = self._tokens.get(place, 0) + len(item.tokens)
            case ForkEvent():
                for at, child in enumerate(item.children):
                    self._begin(index, item, at, child)
            case BranchEndEvent():
                self._close((index, item.branch), item.reason.value)
            case _:
                pass

    def _begin(self, index: int, fork: ForkEvent, at: int, child: int) -> None:
        from opentelemetry.trace import set_span_in_context

        parent = self._branches.get((index, fork.parent), self._span)
        self._branches[index, child] = self._tracer.start_span(
            f"{fork.rule} {fork.labels[at]}".strip(),
            context=set_span_in_context(parent),
            attributes={
                "nprdsl.choice": index,
                "nprdsl.branch": child,
                "nprdsl.path": [*fork.path, fork.block, at],
                "nprdsl.rule": fork.rule,
                "nprdsl.label": fork.labels[at],
            },
        )

    def _close(self, place: tuple[int, int], reason: str) -> None:
        span = self._branches.pop(place)
        span.set_attribute("nprdsl.reason", reason)
        span.set_attribute("gen_ai.usage.output_tokens", self._tokens.get(place, 0))
        span.end()

    def _end(self) -> None:
        """Whatever is open has ended; a second time does nothing."""
        for place in list(self._branches):
            self._close(place, EndReason.ABORTED.value)
        if not self._span.is_recording():
            return
        results = self._results
        usage = [result.usage for result in results]
        trunks = sum(count for (_, branch), count in self._tokens.items() if branch == ROOT)
        finish = [result.finish.value for result in results] or [EndReason.ABORTED.value]
        self._span.set_attribute("gen_ai.response.finish_reasons", finish)
        if results:
            told = {
                "gen_ai.usage.input_tokens": usage[0].prompt_tokens,
                "gen_ai.usage.output_tokens": sum(one.total for one in usage),
                "nprdsl.critical_path": max(one.critical_path for one in usage),
                "nprdsl.trunk_tokens": trunks,
            }
            self._span.set_attributes(told)
        self._span.end()


def _failed(span: Span, message: str, kind: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR, message))
    span.set_attribute("error.type", kind)
