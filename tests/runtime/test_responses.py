"""OpenAI's `/v1/responses` over the local engine: items for branches, as the official client has
them; without a server, but for the last."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given, settings

from nprdsl.runtime import Sampling
from nprdsl.runtime.http.app import make_app
from nprdsl.runtime.http.refusals import RefusedError
from nprdsl.runtime.http.replies import JsonReply
from nprdsl.runtime.http.response_writer import ResponseWriter
from nprdsl.runtime.http.responses import Responses
from nprdsl.runtime.http.trace_writing import OnlyTraces
from nprdsl.runtime.results import Result
from nprdsl.structure.events import EndReason, Event, TokenEvent
from nprdsl.tokens.vocabulary import Vocabulary
from tests.runtime.event_runs import ARITH, PROMPT, engine, runs, told, written

responses = pytest.importorskip("openai.types.responses")
openai = pytest.importorskip("openai")

EVENTS = {
    kind.model_fields["type"].annotation.__args__[0]: kind
    for kind in (
        responses.ResponseCreatedEvent,
        responses.ResponseInProgressEvent,
        responses.ResponseOutputItemAddedEvent,
        responses.ResponseContentPartAddedEvent,
        responses.ResponseReasoningTextDeltaEvent,
        responses.ResponseReasoningTextDoneEvent,
        responses.ResponseTextDeltaEvent,
        responses.ResponseTextDoneEvent,
        responses.ResponseContentPartDoneEvent,
        responses.ResponseOutputItemDoneEvent,
        responses.ResponseCompletedEvent,
        responses.ResponseIncompleteEvent,
        responses.ResponseFailedEvent,
    )
}


def check(made: list[dict[str, Any]]) -> dict[str, Any]:
    """Each event is one of the official package; deltas, parts and items agree. Gives the whole
    response."""
    open_items: dict[str, str] = {}
    done: dict[int, dict[str, Any]] = {}
    for number, event in enumerate(made):
        EVENTS[event["type"]].model_validate(event)
        assert event["sequence_number"] == number
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert event["output_index"] == len(open_items) + len(done)
            open_items[event["item"]["id"]] = ""
        elif kind.endswith("text.delta"):
            assert event["delta"]
            open_items[event["item_id"]] += event["delta"]
        elif kind.endswith("text.done"):
            assert event["text"] == open_items[event["item_id"]]
        elif kind == "output_item.done":
            assert event["item"]["content"][0]["text"] == open_items.pop(event["item"]["id"])
            done[event["output_index"]] = event["item"]
    assert open_items == {}
    whole: dict[str, Any] = made[-1]["response"]
    assert whole["output"] == [done[index] for index in range(len(done))]
    return whole


def test_each_branch_is_an_item_and_the_answer_the_message() -> None:
    events, result = written()
    made = told(ResponseWriter("arith", {}), list(events), result)
    whole = check(made)
    *thoughts, answer = whole["output"]
    assert responses.Response.model_validate(whole).output_text == result.answer
    assert answer["type"] == "message" and answer["phase"] == "final_answer"
    assert [item["label"] for item in thoughts] == ["", "1", "2", ""]
    texts = ["".join(p["text"] for p in item["content"]) for item in thoughts]
    assert "".join(texts) == result.text.removesuffix("<eos>")
    deltas = [e["output_index"] for e in made if e["type"] == "response.reasoning_text.delta"]
    assert deltas.index(2) < len(deltas) - 1 - deltas[::-1].index(1), "one branch after another"
    usage = whole["usage"]
    assert usage["output_tokens"] == result.usage.total
    assert usage["output_tokens_details"]["critical_path"] == result.usage.critical_path
    assert usage["output_tokens_details"]["branches"] == 2


@settings(max_examples=1000, deadline=None)
@given(runs())
def test_any_run_is_told_in_events_of_the_official_package(events: list[Event]) -> None:
    _, result = written()
    whole = check(told(ResponseWriter("arith", {}), events, result))
    texts: dict[int, str] = {}
    for event in events:
        if isinstance(event, TokenEvent):
            texts[event.branch] = texts.get(event.branch, "") + event.text
    *thoughts, _ = whole["output"]
    for branch, text in texts.items():
        items = [item for item in thoughts if item["branch"] == branch]
        assert "".join(item["content"][0]["text"] for item in items) == text


def ask(*bodies: dict[str, Any]) -> list[httpx.Response]:
    async def asked() -> list[httpx.Response]:
        transport = httpx.ASGITransport(make_app(engine(), model="arith"))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return [await client.post("/v1/responses", json=body) for body in bodies]

    return asyncio.run(asked())


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    lines = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_the_endpoint_answers_whole_and_as_a_stream() -> None:
    _, result = written()
    body: dict[str, Any] = {"model": "arith", "input": PROMPT, "schema": "arith", "temperature": 0}
    parts = [{"role": "user", "content": [{"type": "input_text", "text": PROMPT}]}]
    whole, streamed, plain, cut = ask(
        body,
        body | {"stream": True, "input": parts},
        {"input": PROMPT, "temperature": 0, "max_output_tokens": 12, "stream": True},
        body | {"max_output_tokens": 60},
    )
    read = responses.Response.model_validate(whole.json())
    assert (read.status, read.output_text) == ("completed", result.answer)
    assert whole.json()["trace"]["token_ids"] == list(result.token_ids)
    made = events_of(streamed)
    assert check(made)["trace"]["token_ids"] == list(result.token_ids)
    said = check(events_of(plain))
    wanted = engine().complete(
        ARITH, [PROMPT], max_tokens=12, chat=True, sampling=Sampling(temperature=0)
    )
    assert [item["type"] for item in said["output"]] == ["message"]
    assert said["output"][0]["content"][0]["text"] == wanted[0].text
    assert said["incomplete_details"] == {"reason": "max_output_tokens"}
    assert cut.json()["status"] == "incomplete"
    assert cut.json()["usage"]["output_tokens"] <= 60


def test_the_official_client_puts_the_stream_together() -> None:
    """Its own reader of streams, over the events of the engine."""
    _, result = written()

    async def read() -> Any:
        transport = httpx.ASGITransport(make_app(engine(), model="arith"))
        client = openai.AsyncOpenAI(
            base_url="http://server/v1",
            api_key="none",
            http_client=httpx.AsyncClient(transport=transport),
        )
        async with client.responses.stream(
            model="arith", input=PROMPT, temperature=0, extra_body={"schema": "arith"}
        ) as stream:
            async for _ in stream:
                pass
            return await stream.get_final_response()

    final = asyncio.run(read())
    assert final.output_text == result.answer
    assert [item.type for item in final.output] == ["reasoning"] * 4 + ["message"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"previous_response_id": "resp_1"}, "`previous_response_id` has no meaning in a response"),
        ({"background": True}, "`background` has no meaning in a response"),
        ({"messages": []}, "a response has no field `messages`"),
        ({"input": [{"type": "function_call"}]}, "takes messages only, not `function_call`"),
        ({"input": 7}, "input.str: Input should be a valid string"),
        ({"max_output_tokens": 3, "schema": "arith"}, "takes 16 tokens"),
        ({"schema": "arth"}, "did you mean `arith`?"),
        ({"schema": "../arith"}, "it must be a plain file name"),
        ({"join": "first"}, "`join` has no meaning in a chat without a schema"),
        ({"parallel": False}, "`parallel` has no meaning in a chat without a schema"),
        ({"stream": "often"}, "stream: Input should be a valid boolean"),
        ({"stream_options": "usage"}, "stream_options: Input should be a valid dictionary"),
    ],
    ids=str,
)
def test_what_cannot_work_is_a_400_that_says_why(changes: dict[str, Any], message: str) -> None:
    (got,) = ask({"model": "arith", "input": PROMPT, **changes})
    assert got.status_code == 400
    assert message in got.json()["error"]["message"]


class Ending:
    """A server whose traces come to nothing but this."""

    model = "arith"
    honoured = ()

    def __init__(self, end: Result | RefusedError) -> None:
        self._end = end

    @property
    def vocabulary(self) -> Vocabulary:
        return engine().vocabulary

    async def start(self, *_: object) -> AsyncGenerator[tuple[int, Result | RefusedError]]:
        async def items() -> AsyncGenerator[tuple[int, Result | RefusedError]]:
            yield 0, self._end

        return items()


def test_what_is_refused_or_fails_while_it_runs_has_the_status_of_a_chat() -> None:
    """As where SGLang's scheduler refuses what was let in."""
    failed = replace(written()[1], finish=EndReason.FAILED, error="no memory")
    for end, status, message in (
        (RefusedError("it is too long"), 400, "it is too long"),
        (failed, 500, "no memory"),
    ):
        endpoint = Responses(Ending(end), OnlyTraces())
        reply = asyncio.run(endpoint.answer({"input": PROMPT, "schema": "arith"}, None))
        assert isinstance(reply, JsonReply) and reply.status == status
        assert reply.content["error"]["message"] == message
