"""Requests as the endpoints read them: a list that is wrong throughout is told for one entry, since
a million faults keep the server's loop for minutes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from nprdsl.runtime.http.ag_ui import RunInput
from nprdsl.runtime.http.engine_requests import GenerateRequest
from nprdsl.runtime.http.request_models import (
    PlainChatRequest,
    ResponseRequest,
    TextRequest,
    TraceRequest,
)

MANY = 2000
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (TraceRequest, {"schema": "npr", "messages": [1] * MANY}),
        (PlainChatRequest, {"messages": [None] * MANY}),
        (PlainChatRequest, {**CHAT, "stop": [1] * MANY}),
        (TextRequest, {"prompt": [None] * MANY}),
        (TextRequest, {"prompt": [[None] * MANY] * MANY}),
        (ResponseRequest, {"input": [1] * MANY}),
        (RunInput, {"threadId": "t", "runId": "r", "messages": [1] * MANY}),
        (GenerateRequest, {"rid": "r", "input_ids": ["x"] * MANY, "sampling_params": {}}),
    ],
)
def test_one_entry_is_enough(model: type[BaseModel], body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(body)
    assert caught.value.error_count() < 10
