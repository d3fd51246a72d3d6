"""What is refused at our own paths before a server has a hand in it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from nprdsl.runtime.sglang.http.trace_endpoints import TraceEndpoints

RESPONSE: dict[str, Any] = {"input": "1+1?", "schema": "arith"}
RUN = {"threadId": "t", "runId": "r", "messages": [{"role": "user", "content": "1+1?"}]}


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/responses", {**RESPONSE, "rid": 5}, "rid"),
        ("/v1/responses", {**RESPONSE, "model": [7]}, "model"),
        ("/ag-ui", {**RUN, "forwardedProps": {"schema": "arith", "rid": {}}}, "rid"),
        ("/ag-ui", {**RUN, "forwardedProps": 3}, "forwardedProps"),
    ],
    ids=str,
)
def test_fields_of_another_type_are_a_400(path: str, body: dict[str, Any], message: str) -> None:
    async def passed_on(*_: object) -> None:
        raise AssertionError("it is ours")

    chats: Any = SimpleNamespace(runner=SimpleNamespace(model="arith", honoured=("rid",)))
    app: Any = TraceEndpoints(passed_on, lambda: chats)

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.post(path, json=body)

    got = asyncio.run(post())
    assert got.status_code == 400
    assert message in got.json()["error"]["message"]
