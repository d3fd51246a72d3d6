"""Bodies whose lists are wrong throughout are refused for their first entry; in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from sglang.srt.entrypoints.http_server import app
from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest, CompletionRequest

from nprdsl.runtime.sglang.http.first_fault import end_at_first_fault

MANY = 2000
PART = {"type": "text"}  # has no text
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def fields() -> Iterator[dict[str, Any]]:
    """What reads the body of each path of a server that has been set up."""
    routes = [route for route in app.routes if getattr(route, "body_field", None) is not None]
    kept = [route.body_field._type_adapter.validator for route in routes]  # type: ignore[attr-defined]
    end_at_first_fault(app.routes)
    yield {route.path: route.body_field for route in routes}  # type: ignore[attr-defined]
    for route, validator in zip(routes, kept, strict=True):
        route.body_field._type_adapter.validator = validator  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": [1] * MANY}),
        (CHAT, {"messages": [{}] * MANY}),
        (CHAT, {"messages": [{"role": "user", "content": [PART] * MANY}]}),
        (CHAT, {"messages": [{"role": "user", "content": "x"}], "stop": [1] * MANY}),
        (CHAT, {"messages": [{"role": "user", "content": "x"}], "tools": [1] * MANY}),
        ("/v1/completions", {"prompt": [None] * MANY}),
        ("/v1/completions", {"prompt": [[None]] * MANY}),
        ("/v1/messages", {"max_tokens": 1, "messages": [{}] * MANY}),
        ("/v1/responses", {"input": [1] * MANY}),
        ("/generate", {"text": [1] * MANY}),
        ("/tokenize", {"prompt": [1] * MANY}),
    ],
)
def test_one_entry_is_enough(fields: dict[str, Any], path: str, body: dict[str, Any]) -> None:
    value, errors = fields[path].validate({"model": "m", **body})
    assert value is None and 0 < len(errors) < 100


def test_what_is_right_is_read_as_before(fields: dict[str, Any]) -> None:
    chat = {"model": "m", "messages": [{"role": "user", "content": "x"}] * 3, "stop": ["a", "b"]}
    assert fields[CHAT].validate(chat) == (ChatCompletionRequest(**chat), [])
    text = {"model": "m", "prompt": [[1, 2], [3]]}
    assert fields["/v1/completions"].validate(text) == (CompletionRequest(**text), [])


def test_routes_of_another_kind_are_left_alone() -> None:
    end_at_first_fault([*FastAPI().routes, object()])
