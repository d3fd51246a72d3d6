"""Fields of a chat with a schema: each is honoured or refused by name; without SGLang."""

from __future__ import annotations

from typing import Any

import pytest

from nprdsl.runtime.http.refusals import RefusedError
from nprdsl.runtime.http.request_fields import ROUTING, TRACE_CHAT, check_fields

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
        {"modalities": ["text"]},
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
        ({"n": 0}, "n is 0"),
        ({"n": 1000}, "n is 1000"),
    ],
    ids=str,
)
def test_what_would_not_be_honoured_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(RefusedError, match=named):
        check_fields(CHAT | fields, TRACE_CHAT, ROUTING)
