"""Which fields a request may have, for each kind of request: a list of those that are allowed.

In goes the JSON of a request; out comes an error that names the first field which would not be
honoured. A server of OpenAI's format is sent many fields by many clients, and one that was dropped
in silence would be a promise that is not kept. Values that ask for nothing pass, since clients send
their defaults along.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from nprdsl.grammar.diagnostics import did_you_mean
from nprdsl.runtime.http.refusals import RefusedError
from nprdsl.runtime.http.request_models import SAMPLING

OWN: Final = ("schema", "limits", "join", "parallel", "instructions", "rules")
_ALWAYS: Final = (
    *SAMPLING,
    "seed",
    "model",
    "n",
    "stream",
    "stream_options",
    "logprobs",
    "max_tokens",
)
_CHAT: Final = (*_ALWAYS, "messages", "max_completion_tokens")
# What a server that knows these does with them: names for aborts, and places to run.
ROUTING: Final = ("rid", "cache_salt", "extra_key", "data_parallel_rank", "routed_dp_rank")
# What these say is about the request; of the answer they ask nothing.
REMARKS: Final = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
)
# Fields without a meaning for a trace, with the values that ask for nothing; null and what is empty
# asks for nothing in each of them.
_WITHOUT_MEANING: Final[Mapping[str, tuple[Any, ...]]] = {
    "audio": (),
    "background": (False,),
    "best_of": (1,),
    "chat_template_kwargs": (),
    "cache_salt": (),
    "context_management": (),
    "continue_final_message": (False,),
    "conversation": (),
    "custom_logit_processor": (),
    "custom_params": (),
    "data_parallel_rank": (),
    "ebnf": (),
    "echo": (False,),
    "extra_key": (),
    "function_call": ("none", "auto"),
    "functions": (),
    "ignore_eos": (False,),
    "images_config": (),
    "include": (),
    "input_ids": (),
    "logit_bias": (),
    "lora_path": (),
    "max_dynamic_patch": (),
    "max_tool_calls": (),
    "min_dynamic_patch": (),
    "min_tokens": (0,),
    "mm_processor_kwargs": (),
    "modalities": (["text"],),
    "moderation": (),
    "no_stop_trim": (False, True),
    "parallel_tool_calls": (False, True),
    "prediction": (),
    "previous_response_id": (),
    "priority": (0,),
    "prompt": (),
    "reasoning": (),
    "reasoning_effort": (),
    "regex": (),
    "response_format": ({"type": "text"},),
    "return_cached_tokens_details": (False,),
    "return_flat_raw_output_top_logprobs": (False,),
    "return_hidden_states": (False,),
    "return_input_ids_in_sglext": (False,),
    "return_meta_info": (False,),
    "return_output_ids_in_sglext": (False,),
    "return_prompt_token_ids": (False,),
    "return_routed_experts": (False,),
    "return_sampling_mask": (False,),
    "return_spec_tokens_details": (False,),
    "return_token_ids": (False,),
    "rid": (),
    "routed_dp_rank": (),
    "routed_experts_start_len": (0,),
    "sampling_logprobs_mode": (),
    "separate_reasoning": (False, True),
    "session_id": (),
    "session_params": (),
    "skip_special_tokens": (True,),
    "stop": (),
    "stop_regex": (),
    "stop_token_ids": (),
    "stream_reasoning": (False, True),
    "suffix": (),
    "task": (),
    "text": ({"format": {"type": "text"}},),
    "thinking": (),
    "tool_choice": ("none", "auto"),
    "tools": (),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
    "use_audio_in_video": (False,),
    "verbosity": (),
    "video_config": (),
    "watermark": (),
    "web_search_options": (),
}
_STREAM_OPTIONS: Final[Mapping[str, tuple[Any, ...]]] = {  # with the values that are honoured
    "include_usage": (False, True),
    "include_obfuscation": (False,),
    "continuous_usage_stats": (False,),
}


@dataclass(frozen=True, slots=True)
class FieldRules:
    """What one kind of request may have. `name`: what messages call it."""

    name: str
    honoured: frozenset[str]

    @property
    def known(self) -> list[str]:
        """All fields that have a meaning in it or ask for nothing."""
        return sorted({*self.honoured, *REMARKS, *_WITHOUT_MEANING, *OWN})

    def neutral(self, name: str) -> tuple[Any, ...] | None:
        """The values with which a field asks for nothing; None for an unknown field."""
        return _WITHOUT_MEANING.get(name, () if name in OWN else None)


TRACE_CHAT: Final = FieldRules("a chat with a schema", frozenset({*_CHAT, *OWN}))
PLAIN_CHAT: Final = FieldRules("a chat without a schema", frozenset({*_CHAT, "stop"}))
RESPONSE: Final = FieldRules(
    "a response",
    frozenset(
        {
            *SAMPLING,
            *OWN,
            "seed",
            "model",
            "stream",
            "stream_options",
            "input",
            "max_output_tokens",
        }
    ),
)
AG_UI: Final = FieldRules(
    "a run of AG-UI",
    TRACE_CHAT.honoured - {"messages", "n", "stream", "stream_options", "logprobs"},
)
TEXT: Final = FieldRules("a text completion", frozenset({*_ALWAYS, "prompt", "stop", "echo"}))


def check_fields(body: Mapping[str, Any], kind: FieldRules, also: Collection[str] = ()) -> None:
    """Raises RefusedError for a field that is unknown, or that asks for what will not be done, and
    for text that no answer could repeat. `also`: fields that this server honours beside those of
    the kind."""
    _check_unicode(body)
    for name, value in body.items():
        if name in kind.honoured or name in REMARKS or name in also:
            continue
        if name == "schema" and value is not None and name not in kind.honoured:
            raise RefusedError(
                f"{kind.name} does not run a `schema`: send it to /v1/chat/completions"
            )
        neutral = kind.neutral(name)
        if neutral is None:
            hint = did_you_mean(name, kind.known) or "see docs/serving.md"
            raise RefusedError(f"{kind.name} has no field `{name}`; {hint}")
        if not _asks_nothing(value, neutral):
            raise RefusedError(f"`{name}` has no meaning in {kind.name}: leave it out")
    _check_stream_options(body.get("stream_options"), kind)


def _check_unicode(body: Mapping[str, Any]) -> None:
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise RefusedError("the request has half of a surrogate pair, which is no text") from error


def _check_stream_options(options: Any, kind: FieldRules) -> None:
    if not isinstance(options, Mapping):
        return
    for name, value in options.items():
        if value is not None and not _is_one_of(value, _STREAM_OPTIONS.get(name, ())):
            raise RefusedError(f"`stream_options.{name}` has no meaning in {kind.name}")


def _asks_nothing(value: Any, neutral: tuple[Any, ...]) -> bool:
    if isinstance(value, dict):  # of optional settings
        value = {name: each for name, each in value.items() if each is not None}
    is_empty = value is None or (isinstance(value, str | list | dict) and not value)
    return is_empty or _is_one_of(value, neutral)


def _is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    """Whether it is among the values; true is not 1 here, nor false 0."""
    return any(type(value) is type(each) and value == each for each in allowed)
