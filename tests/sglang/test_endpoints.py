"""The endpoints that SGLang has not, or answers otherwise: responses and AG-UI with a schema,
metrics of traces beside its own."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import httpx
import openai
import pytest

from nprdsl.runtime import LocalEngine, Sampling
from tests.sglang.served import ANSWER, PROMPT, Served
from tests.sglang.test_openai import ARITH

RUN: dict[str, Any] = {
    "threadId": "t1",
    "runId": "r1",
    "messages": [{"id": "m1", "role": "user", "content": PROMPT}],
}


@pytest.fixture(scope="module")
def client(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)


def test_a_response_has_an_item_for_each_branch(
    client: openai.OpenAI, bundled: LocalEngine
) -> None:
    wanted = bundled.generate(ARITH, PROMPT, chat=True, sampling=Sampling(temperature=0))
    asked: dict[str, Any] = {"model": "arith", "input": PROMPT, "temperature": 0}
    extra = {"schema": "arith", "instructions": False}
    whole = client.responses.create(**asked, extra_body=extra)
    assert whole.output_text == wanted.answer
    assert [item.type for item in whole.output].count("reasoning") == 4
    assert whole.trace["token_ids"] == list(wanted.token_ids)  # type: ignore[attr-defined]
    with client.responses.stream(**asked, extra_body=extra) as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == wanted.answer
    assert kinds.count("response.output_text.delta") > 3
    budget = client.responses.create(**asked, max_output_tokens=40, extra_body=extra)
    assert budget.status == "incomplete" and budget.usage.output_tokens <= 40


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/responses", {"input": PROMPT, "schema": "arth"}, "did you mean `arith`?"),
        ("/v1/responses", {"input": PROMPT, "schema": "arith", "n": 2}, "no field `n`"),
        ("/ag-ui", {**RUN, "forwardedProps": {}}, "`forwardedProps.schema` is missing"),
        ("/ag-ui", {**RUN, "forwardedProps": {"schema": "arith", "limits": 1}}, "limits"),
        ("/ag-ui", {}, "threadId"),
    ],
    ids=str,
)
def test_what_cannot_work_is_a_400(
    served: Served, path: str, body: dict[str, Any], message: str
) -> None:
    got = httpx.post(f"{served.url}{path}", json=body, timeout=60)
    assert got.status_code == 400
    assert message in got.json()["error"]["message"]


def test_bodies_that_are_no_json_are_refused(served: Served) -> None:
    for body in (b"", b"{", b"[]", b"\xff"):
        got = httpx.post(f"{served.url}/ag-ui", content=body, timeout=60)
        assert got.status_code == 400


def test_a_run_of_ag_ui_is_streamed(served: Served) -> None:
    body = {**RUN, "forwardedProps": {"schema": "arith", "temperature": 0}}
    got = httpx.post(f"{served.url}/ag-ui", json=body, timeout=60).raise_for_status()
    lines = [line.removeprefix("data: ") for line in got.text.splitlines() if line]
    events = [json.loads(line) for line in lines]
    kinds = [event["type"] for event in events]
    assert (kinds[0], kinds[-1]) == ("RUN_STARTED", "RUN_FINISHED")
    assert kinds.count("SUBAGENT_STARTED") == kinds.count("SUBAGENT_FINISHED") == 2
    said = [event["delta"] for event in events if event["type"] == "TEXT_MESSAGE_CONTENT"]
    assert "".join(said) == ANSWER and len(said) > 3


@pytest.mark.parametrize("path", ["/v1/responses", "/ag-ui"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_goes_away_leaves_nothing(served: Served, path: str, stream: bool) -> None:
    """`nothing_left` waits until the server is idle."""
    asked = {"schema": "arith", "temperature": 3.0}
    body = {"input": PROMPT, "stream": stream, **asked}
    body = {**RUN, "forwardedProps": asked} if path == "/ag-ui" else body
    timeout = httpx.Timeout(20, read=20 if stream else 0.2)
    with httpx.Client(timeout=timeout) as http:
        if not stream:
            with suppress(httpx.ReadTimeout):
                http.post(f"{served.url}{path}", json=body)
        else:
            with http.stream("POST", f"{served.url}{path}", json=body) as response:
                assert next(response.iter_lines())


def test_traces_are_measured_beside_what_sglang_measures(
    client: openai.OpenAI, served: Served
) -> None:
    pytest.importorskip("prometheus_client")

    def told() -> dict[str, float]:
        text = httpx.get(f"{served.url}/metrics", timeout=30).raise_for_status().text
        assert "sglang:" in text
        found = re.findall(r"^(nprdsl_\w+(?:\{.*?\})?) (\S+)$", text, re.M)
        return {name: float(value) for name, value in found}

    before = told()
    form = {"name": "broken", "source": f"start: ( // {len(before)}"}
    with pytest.raises(openai.BadRequestError):
        client.responses.create(input=PROMPT, extra_body={"schema": form})
    done = client.responses.create(input=PROMPT, temperature=0, extra_body={"schema": "arith"})
    assert done.usage is not None
    served.settle()
    after = told()
    more = {name: value - before.get(name, 0.0) for name, value in after.items()}
    assert more['nprdsl_traces_total{finish="completed",schema="arith"}'] == 1
    tokens = sum(count for name, count in more.items() if "trace_tokens_total{" in name)
    assert tokens == done.usage.output_tokens
    assert more["nprdsl_trace_degree_count"] == more["nprdsl_trace_waiting_seconds_count"] == 1
    assert more['nprdsl_schemas_total{outcome="refused"}'] == 1
    assert after["nprdsl_traces_running"] == after["nprdsl_branches_live"] == 0
