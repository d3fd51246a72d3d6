"""Which fields a chat with a schema may have: a list of those that are allowed.

In goes the JSON of a chat; out comes an error that names the first field which would not be
honoured. A server of OpenAI's format is sent many fields by many clients, and one that was dropped
in silence would be a promise that is not kept. Values that ask for nothing pass, since clients send
their defaults along.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nprdsl.grammar.diagnostics import did_you_mean
from nprdsl.runtime.http.refusals import RefusedError

SAMPLING: Final = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "seed",
)
OWN: Final = ("schema", "limits", "join", "parallel", "instructions", "rules")
HONOURED: Final = (
    *OWN,
    *SAMPLING,
    "messages",
    "model",
    "n",
    "stream",
    "stream_options",
    "logprobs",
    "max_tokens",
    "max_completion_tokens",
    "rid",
    "cache_salt",
    "extra_key",
    "data_parallel_rank",
    "routed_dp_rank",
)
# What these say is about the request; of the answer they ask nothing.
REMARKS: Final = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
)
# Fields without a meaning for a trace, with the values that ask for nothing; null and what is empty
# asks for nothing in each of them.
WITHOUT_MEANING: Final[Mapping[str, tuple[Any, ...]]] = {
    "audio": (),
    "chat_template_kwargs": (),
    "continue_final_message": (False,),
    "custom_logit_processor": (),
    "custom_params": (),
    "ebnf": (),
    "function_call": ("none", "auto"),
    "functions": (),
    "ignore_eos": (False,),
    "images_config": (),
    "input_ids": (),
    "logit_bias": (),
    "lora_path": (),
    "max_dynamic_patch": (),
    "min_dynamic_patch": (),
    "min_tokens": (0,),
    "mm_processor_kwargs": (),
    "modalities": (["text"],),
    "no_stop_trim": (False, True),
    "parallel_tool_calls": (False, True),
    "prediction": (),
    "priority": (),
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
    "task": (),
    "thinking": (),
    "tool_choice": ("none", "auto"),
    "tools": (),
    "top_logprobs": (0,),
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
_MOST_CHOICES: Final = 128


def check_fields(body: Mapping[str, Any]) -> None:
    """Raises RefusedError for a field that is unknown, or that asks for what a trace has not."""
    for name, value in body.items():
        if name in HONOURED or name in REMARKS:
            continue
        if name not in WITHOUT_MEANING:
            raise RefusedError(f"a chat with a schema has no field `{name}`; {_hint(name)}")
        if not _asks_nothing(value, WITHOUT_MEANING[name]):
            raise RefusedError(f"`{name}` has no meaning in a chat with a schema: leave it out")
    for name, value in (body.get("stream_options") or {}).items():
        if value is not None and not _is_one_of(value, _STREAM_OPTIONS.get(name, ())):
            raise RefusedError(f"`stream_options.{name}` has no meaning in a chat with a schema")
    count = body.get("n")
    if count is not None and not 1 <= count <= _MOST_CHOICES:
        raise RefusedError(f"n is {count}, it must be 1 to {_MOST_CHOICES}")


def _hint(name: str) -> str:
    known = sorted({*HONOURED, *REMARKS, *WITHOUT_MEANING})
    return did_you_mean(name, known) or "see docs/serving.md"


def _asks_nothing(value: Any, neutral: tuple[Any, ...]) -> bool:
    is_empty = value is None or (isinstance(value, str | list | dict) and not value)
    return is_empty or _is_one_of(value, neutral)


def _is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    """Whether it is among the values; true is not 1 here, nor false 0."""
    return any(type(value) is type(each) and value == each for each in allowed)
