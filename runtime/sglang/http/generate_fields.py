"""Which fields a stock request may have beside a `ForkRequest`: a list of those that are allowed.

In goes SGLang's own `GenerateReqInput` as it was received; out comes an error that names the first
field, or sampling parameter, which would not be honoured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from nprdsl.runtime.http.refusals import RefusedError
from nprdsl.runtime.http.request_models import MOST_ANSWERS, MOST_IN_ALL, too_many
from nprdsl.runtime.sglang.http.stop_patterns import check_stop_patterns
from nprdsl.runtime.sglang.protocol import MARKS

HONOURED: Final = frozenset(
    {
        "rid",
        "text",
        "input_ids",
        "sampling_params",
        "stream",
        "return_logprob",
        "return_text_in_logprobs",
        "return_prompt_token_ids",
        "extra_key",
        "cache_salt",
        "routed_dp_rank",
        "data_parallel_rank",
    }
)
# What these say is about the request; of the answer they ask nothing.
REMARKS: Final = frozenset(
    {
        "background",
        "conversation_id",
        "custom_labels",
        "external_trace_header",
        "http_worker_ipc",
        "log_metrics",
        "no_logs",
        "received_time",
        "routing_key",
    }
)
# Sampling parameters that would change an answer. Others have a setting of the same meaning in the
# `ForkRequest`, or are what a client must send along.
WITHOUT_MEANING: Final = (
    "beam_width",
    "ebnf",
    "json_schema",
    "logit_bias",
    "regex",
    "stop",
    "stop_regex",
    "stop_token_ids",
    "structural_tag",
    "watermark",
)
_ONE_EACH: Final = (  # of a request with one prompt; a list has one for each of several
    "rid",
    "sampling_params",
    "return_logprob",
    "logprob_start_len",
    "top_logprobs_num",
    "return_hidden_states",
    "session_params",
    "lora_path",
    "custom_logit_processor",
)
_MOST_TOP_K: Final = 2**31 - 1  # what SGLang's tensor of them holds
_GRAMMARS: Final = ("regex", "json_schema", "ebnf", "structural_tag")  # SGLang's own
_GRAMMAR_CHARACTERS: Final = 65_536  # of one, beyond which its mask keeps the scheduler for seconds
_NEUTRAL: Final[Mapping[str, Iterable[Any]]] = {"logprob_start_len": (-1,)}


def check_settings(settings: Sequence[Any]) -> None:
    """Raises RefusedError for sampling parameters, of any request, that are none, or that ask for
    more answers than a client is given (SGLang makes them all before it looks at another request),
    or for a `top_k` that would end the scheduler, or a grammar or a regex that would keep it."""
    if not settings or not all(isinstance(params, dict | None) for params in settings):
        raise RefusedError("`sampling_params` must be an object, or a list of them")
    for params in settings:
        count = (params or {}).get("n")
        if count is not None and (type(count) is not int or not 1 <= count <= MOST_ANSWERS):
            raise RefusedError(f"`n` is {count!r}, it must be a number from 1 to {MOST_ANSWERS}")
        top_k = (params or {}).get("top_k")
        if isinstance(top_k, int) and top_k > _MOST_TOP_K:
            raise RefusedError(f"`top_k` is {top_k}, it must be at most {_MOST_TOP_K}; -1 is off")
        check_stop_patterns((params or {}).get("stop_regex"))
        _check_grammars(params or {})


def _check_grammars(params: Mapping[str, Any]) -> None:
    for name in _GRAMMARS:
        value = params.get(name)
        if isinstance(value, str) and len(value) > _GRAMMAR_CHARACTERS:
            raise RefusedError(
                f"`{name}` has {len(value):,} characters, more than the {_GRAMMAR_CHARACTERS:,} "
                "that a server takes"
            )


def check_lists(received: Any) -> None:
    """Raises RefusedError for a list, in a request with one prompt, of what each prompt has; some
    of them end the scheduler."""
    for name in () if _has_several(received) else _ONE_EACH:
        if isinstance(getattr(received, name), list):
            raise RefusedError(f"`{name}` is a list, but there is one prompt only")


def _has_several(received: Any) -> bool:
    ids, embeds = received.input_ids or [], received.input_embeds or [[]]
    first_row = embeds[0] if isinstance(embeds[0], list) else []
    return any(isinstance(one, list) for one in (received.text, *ids[:1], *first_row[:1]))


def check_count(received: Any) -> None:
    """Raises RefusedError for more answers, to all prompts together, than one request is given."""
    prompts = next(filter(None, (received.text, received.input_ids, received.input_embeds)), "")
    given = received.sampling_params
    answers = [(params or {}).get("n") or 1 for params in _listed(given)]
    count = sum(answers) if isinstance(given, list) else answers[0]
    if _has_several(received) and not isinstance(given, list):
        count *= len(prompts)
    if count > MOST_IN_ALL:
        raise RefusedError(too_many(count))


def _listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


def check_top(numbers: Any, outputs: int) -> None:
    """Raises RefusedError for more log-probabilities of a place than the model has outputs."""
    for number in _listed(numbers):
        if number is not None and not 0 <= number <= outputs:
            raise RefusedError(f"`top_logprobs_num` is {number}, it must be 0 to {outputs}")


def check_request(received: Any) -> None:
    """Raises RefusedError for a field of a request for a trace that would be dropped."""
    for known in fields(received):
        value = getattr(received, known.name)
        if known.name in HONOURED or known.name in REMARKS or _asks_nothing(known, value):
            continue
        raise RefusedError(f"a request for a trace cannot have `{known.name}`: leave it out")


def check_params(params: Mapping[str, Any]) -> None:
    """Raises RefusedError for stock sampling parameters without a meaning for a trace."""
    for name in WITHOUT_MEANING:
        if params.get(name):
            raise RefusedError(
                f"a request for a trace cannot have the sampling parameter `{name}`: the schema "
                "says what may be written"
            )


def check_names(rid: object) -> None:
    """Raises RefusedError for a name that a row of a trace may have."""
    for name in rid if isinstance(rid, list) else [rid]:
        if isinstance(name, str) and any(mark in name for mark in MARKS):
            raise RefusedError(f"`rid` must not contain {' or '.join(f'`{m}`' for m in MARKS)}")


def _asks_nothing(known: Any, value: Any) -> bool:
    """Whether it is null, empty, or what it is without the client."""
    is_simple = value is None or isinstance(value, bool | int | float | str | list | dict)
    if not is_simple:
        return False
    return not value or value == known.default or value in _NEUTRAL.get(known.name, ())
