"""AG-UI over the local engine: events that the official package reads, in an order that holds."""

from __future__ import annotations

import asyncio
import json
from functools import cache
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from pydantic import TypeAdapter

from nprdsl.runtime.http.ag_ui_writer import AgUiWriter
from nprdsl.runtime.http.app import make_app
from nprdsl.structure.events import Event, ForkEvent, TokenEvent
from tests.runtime.event_runs import PROMPT, engine, runs, told, written

ASKED: dict[str, Any] = {
    "threadId": "t1",
    "runId": "r1",
    "messages": [{"id": "m1", "role": "user", "content": PROMPT}],
    "tools": [],
    "context": [],
    "state": {},
    "forwardedProps": {"schema": "arith", "temperature": 0},
}


def check(made: list[dict[str, Any]]) -> dict[str | None, str]:
    """Messages and subagents begin once and end once, one inside the other. What each subagent
    thought, the trunk under None."""
    assert (made[0]["type"], made[-1]["type"]) == ("RUN_STARTED", "RUN_FINISHED")
    agents: set[str] = set()
    open_agents: set[str] = set()
    messages: dict[str, str] = {}
    open_messages: set[str] = set()
    spans: set[str] = set()
    thoughts: dict[str | None, str] = {}
    for event in made[1:-1]:
        kind, agent, name = event["type"], event.get("subagentRunId"), event.get("messageId", "")
        if kind == "SUBAGENT_STARTED":
            assert agent not in agents and event["name"]
            assert event.get("parentSubagentRunId", agent) in open_agents | {agent}
            agents.add(agent)
            open_agents.add(agent)
            continue
        assert agent is None or agent in open_agents, "it has ended, or not begun"
        match kind:
            case "SUBAGENT_FINISHED":
                open_agents.remove(agent)
            case "REASONING_START":
                spans.add(name)
            case "REASONING_END":
                assert name not in open_messages
                spans.remove(name)
            case "REASONING_MESSAGE_START" | "TEXT_MESSAGE_START":
                assert name not in messages
                messages[name] = ""
                open_messages.add(name)
            case "REASONING_MESSAGE_CONTENT" | "TEXT_MESSAGE_CONTENT":
                assert name in open_messages and event["delta"]
                messages[name] += event["delta"]
                if kind == "REASONING_MESSAGE_CONTENT":
                    assert name in spans
                    thoughts[agent] = thoughts.get(agent, "") + event["delta"]
            case _:
                assert kind in ("REASONING_MESSAGE_END", "TEXT_MESSAGE_END")
                open_messages.remove(name)
    assert open_agents == open_messages == spans == set()
    return thoughts


def test_branches_are_subagents_and_the_answer_is_the_message() -> None:
    events, result = written()
    made = told(AgUiWriter("arith", "t1", "r1"), events, result)
    thoughts = check(made)
    started = [event for event in made if event["type"] == "SUBAGENT_STARTED"]
    assert [(e["name"], e["description"]) for e in started] == [("step", "1"), ("step", "2")]
    one, two = (thoughts[event["subagentRunId"]] for event in started)
    assert one.startswith("<step>1:37*42") and two.startswith("<step>2:85*19")
    said = [event["delta"] for event in made if event["type"] == "TEXT_MESSAGE_CONTENT"]
    assert "".join(said) == result.answer and len(said) > 3
    assert made[-1]["result"]["text"] == result.text
    assert made[-1]["usage"][0]["outputTokens"] == result.usage.total


@cache
def reader() -> TypeAdapter[Any]:
    """Reads an event of any kind of the official package."""
    return TypeAdapter(pytest.importorskip("ag_ui.core").Event)


@settings(max_examples=1000, deadline=None)
@given(runs())
def test_any_run_is_told_in_events_of_the_official_package(events: list[Event]) -> None:
    _, result = written()
    made = told(AgUiWriter("arith", "t1", "r1"), events, result)
    for event in made:
        read = reader().validate_python(event)
        assert read.model_dump(by_alias=True, exclude_none=True, mode="json") == event
        assert not read.model_extra
    thoughts = check(made)
    written_by: dict[int, str] = {}
    for one in events:
        if isinstance(one, TokenEvent) and one.text:
            written_by[one.branch] = written_by.get(one.branch, "") + one.text
    assert sorted(thoughts.values()) == sorted(written_by.values())
    forked = sum(len(one.children) for one in events if isinstance(one, ForkEvent))
    assert sum(event["type"] == "SUBAGENT_STARTED" for event in made) == forked


def ask(*bodies: dict[str, Any]) -> list[httpx.Response]:
    async def asked() -> list[httpx.Response]:
        transport = httpx.ASGITransport(make_app(engine(), model="arith"))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return [await client.post("/ag-ui", json=body) for body in bodies]

    return asyncio.run(asked())


def test_the_endpoint_streams_a_run() -> None:
    (answer,) = ask(ASKED)
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in answer.text.splitlines() if line]
    made = [json.loads(line.removeprefix("data: ")) for line in lines]
    check(made)
    _, result = written()
    assert made[0]["threadId"] == "t1" and made[-1]["runId"] == "r1"
    assert made[-1]["result"]["token_ids"] == list(result.token_ids)


def test_another_model_is_not_found() -> None:
    (got,) = ask({**ASKED, "forwardedProps": {"schema": "arith", "model": "other"}})
    assert got.status_code == 404 and "has no model `other`" in got.json()["error"]["message"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forwardedProps": {}}, "`forwardedProps.schema` is missing"),
        ({"forwardedProps": {"schema": "arth"}}, "did you mean `arith`?"),
        ({"forwardedProps": {"schema": "arith", "n": 2}}, "a run of AG-UI has no field `n`"),
        ({"forwardedProps": {"schema": "arith", "tools": [1]}}, "`tools` has no meaning"),
        ({"tools": [{"name": "f"}]}, "`tools` has no meaning for a trace"),
        ({"messages": []}, "there is no message"),
        ({"messages": [{"role": "tool", "content": "1"}]}, "there is no message"),
        ({"runId": None}, "runId: Input should be a valid string"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_work_is_a_400_that_says_why(changes: dict[str, Any], message: str) -> None:
    (got,) = ask({**ASKED, **changes})
    assert got.status_code == 400
    assert message in got.json()["error"]["message"]
