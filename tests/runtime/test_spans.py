"""Spans of OpenTelemetry: one a request, one a branch below what it forked from."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from nprdsl.runtime import LocalEngine
from nprdsl.runtime.http import spans
from nprdsl.runtime.http.app import make_app
from nprdsl.runtime.http.request_models import TraceRequest

export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")

PROMPT = "37*42+85*19?"
ASKED: dict[str, Any] = {
    "messages": [{"role": "user", "content": PROMPT}],
    "schema": "arith",
    "temperature": 0,
    "max_tokens": 300,
}


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    return LocalEngine.from_pretrained("arith", dtype="fp32")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Any:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider, exporter = TracerProvider(), export.InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    monkeypatch.setattr(
        "nprdsl.runtime.http.app.spanned", lambda runner: spans.SpannedTraces(runner, tracer)
    )
    return exporter


def ask(engine: LocalEngine, path: str, body: dict[str, Any]) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(make_app(engine, model="arith"))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.post(path, json=body)

    return asyncio.run(asked())


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_request_has_a_span_and_each_branch_one_below(
    engine: LocalEngine, made: Any, stream: bool
) -> None:
    got = ask(engine, "/v1/chat/completions", {**ASKED, "stream": stream})
    assert got.status_code == 200
    *branches, request = made.get_finished_spans()
    assert request.name == "chat arith" and request.parent is None
    told = dict(request.attributes)
    assert told["gen_ai.operation.name"] == "chat" and told["gen_ai.request.max_tokens"] == 300
    assert told["gen_ai.response.finish_reasons"] == ("completed",)
    if not stream:
        usage = got.json()["usage"]
        assert told["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
        assert told["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert sorted(span.name for span in branches) == ["step 1", "step 2"]
    for span in branches:
        assert span.parent.span_id == request.context.span_id
        assert request.start_time <= span.start_time < span.end_time <= request.end_time
        assert span.attributes["nprdsl.reason"] == "completed"
    parts = sum(span.attributes["gen_ai.usage.output_tokens"] for span in branches)
    assert parts + told["nprdsl.trunk_tokens"] == told["gen_ai.usage.output_tokens"]


def test_a_client_that_goes_away_before_its_trace_runs_ends_the_span() -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    class Waiting:
        model = "arith"

        async def start(self, *_: object) -> None:
            await asyncio.Event().wait()

    provider, exporter = TracerProvider(), export.InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    runner: Any = Waiting()
    traces = spans.SpannedTraces(runner, provider.get_tracer("test"))

    async def leave() -> None:
        task = asyncio.create_task(traces.start(TraceRequest.model_validate(ASKED), [0], None))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(leave())
    (request,) = exporter.get_finished_spans()
    assert request.attributes["error.type"] == "CancelledError"


def test_answers_of_one_request_share_its_span(engine: LocalEngine, made: Any) -> None:
    assert ask(engine, "/v1/chat/completions", {**ASKED, "n": 2}).status_code == 200
    *branches, request = made.get_finished_spans()
    assert request.attributes["gen_ai.request.choice.count"] == 2
    assert {span.attributes["nprdsl.choice"] for span in branches} == {0, 1}


@pytest.mark.parametrize("changes", [{"schema": "arth"}, {"max_tokens": 3}], ids=str)
def test_what_is_refused_is_an_error(
    engine: LocalEngine, made: Any, changes: dict[str, Any]
) -> None:
    assert ask(engine, "/v1/chat/completions", {**ASKED, **changes}).status_code == 400
    (request,) = made.get_finished_spans()
    assert request.status.status_code.name == "ERROR"
    assert request.attributes["error.type"] == "RefusedError"


def test_responses_and_agents_have_spans_too(engine: LocalEngine, made: Any) -> None:
    response = {"input": PROMPT, "schema": "arith", "temperature": 0}
    assert ask(engine, "/v1/responses", response).status_code == 200
    run = {"threadId": "t", "runId": "r", "messages": ASKED["messages"]}
    assert ask(engine, "/ag-ui", {**run, "forwardedProps": {"schema": "arith"}}).status_code == 200
    names = [span.name for span in made.get_finished_spans()]
    assert names.count("chat arith") == 2
