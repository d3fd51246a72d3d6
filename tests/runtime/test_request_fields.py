"""Fields of a chat with a schema: each is honoured or refused by name; without SGLang."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from nprdsl.runtime.http.refusals import RefusedError
from nprdsl.runtime.http.request_fields import OWN, PLAIN_CHAT, ROUTING, TRACE_CHAT, check_fields
from nprdsl.runtime.http.request_models import TraceRequest

CHAT = {"messages": [{"role": "user", "content": "1+1?"}], "schema": "arith"}


@pytest.mark.parametrize(
    "fields",
    [
        {"stop": []},
        {"stop": None, "tools": [], "tool_choice": "none"},
        {"tool_choice": "auto", "parallel_tool_calls": True},
        {"response_format": {"type": "text"}},
        {"top_logprobs": 0, "logprobs": True},
        {"metadata": {"run": "7"}, "service_tier": "auto", "store": False, "user": "me"},
        {"safety_identifier": "a", "prompt_cache_key": "b"},
        {"modalities": ["text"], "priority": 0},
        {"reasoning": {"effort": None, "summary": None}},
        {"logit_bias": {}, "skip_special_tokens": True, "ignore_eos": False},
        {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
        {"rid": "mine", "cache_salt": "a", "extra_key": "b", "data_parallel_rank": 0},
        {"n": None, "seed": None, "temperature": None},
    ],
    ids=str,
)
def test_what_asks_for_nothing_passes(fields: dict[str, Any]) -> None:
    check_fields(CHAT | fields, TRACE_CHAT, ROUTING)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"priority": 3}, "`priority`"),
        ({"session_id": "a"}, "`session_id`"),
        ({"custom_params": {"a": 1}}, "`custom_params`"),
        ({"lora_path": "adapter"}, "`lora_path`"),
        ({"input_ids": [1, 2]}, "`input_ids`"),
        ({"return_token_ids": True}, "`return_token_ids`"),
        ({"skip_special_tokens": False}, "`skip_special_tokens`"),
        ({"reasoning_effort": "high"}, "`reasoning_effort`"),
        ({"tools": [{"type": "function"}]}, "`tools`"),
        ({"tool_choice": "required"}, "`tool_choice`"),
        ({"response_format": {"type": "json_object"}}, "`response_format`"),
        ({"modalities": ["text", "audio"]}, "`modalities`"),
        ({"top_logprobs": 5}, "`top_logprobs`"),
        ({"top_logprobs": True}, "`top_logprobs`"),
        ({"stream_options": {"continuous_usage_stats": True}}, "continuous_usage_stats`"),
        ({"colour": None}, "no field `colour`"),
        ({"limts": {}}, "did you mean `limits`"),
        ({"metadata": {"who": "\ud83d"}}, "half of a surrogate pair"),
    ],
    ids=str,
)
def test_what_would_not_be_honoured_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(RefusedError, match=named):
        check_fields(CHAT | fields, TRACE_CHAT, ROUTING)


@pytest.mark.parametrize("count", [0, "0", 0.0, 129, "200"], ids=repr)
def test_no_answer_and_too_many_are_refused_however_they_are_written(count: Any) -> None:
    with pytest.raises(ValidationError, match=r"n\s+Input should be (greater|less) than or equal"):
        TraceRequest.model_validate(CHAT | {"n": count})


def test_null_is_as_a_field_that_is_not_there() -> None:
    own: dict[str, Any] = dict.fromkeys([*OWN, *PLAIN_CHAT.honoured])
    assert TraceRequest.model_validate({**own, **CHAT}) == TraceRequest.model_validate(CHAT)


@pytest.mark.parametrize("name", ["", "../arith", ".arith"])
def test_a_schema_is_named_by_a_plain_name(name: str) -> None:
    with pytest.raises(ValidationError, match="plain file name"):
        TraceRequest.model_validate(CHAT | {"schema": name})
