"""Unconstrained text from a server: stock requests, all in one call.

The server draws with a generator of its own: equal seeds do not give equal text. Log-probabilities
are asked of the server; it gives those of its sampling distribution, so they are those of the model
at temperature 1 without truncation. Non-goals: traces (see `calls`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nprdsl.events import EndReason
from nprdsl.runtime.prompts import Ids
from nprdsl.runtime.results import Completion
from nprdsl.runtime.sampling import Sampling
from nprdsl.runtime.sglang.transport import ServerError, Transport
from nprdsl.vocabulary import Vocabulary


def completions(
    transport: Transport,
    vocabulary: Vocabulary,
    prompts: Sequence[Ids],
    budgets: Sequence[int],
    sampling: Sequence[Sampling],
) -> list[Completion]:
    """One for each prompt. Raises EngineUnavailableError, ServerError."""
    if not prompts:
        return []
    body = {
        "input_ids": [list(prompt) for prompt in prompts],
        "sampling_params": [
            _settings(budget, settings) for budget, settings in zip(budgets, sampling, strict=True)
        ],
        "return_logprob": True,
    }
    found = transport.post("/generate", body)
    told = found if isinstance(found, list) else [found]
    return [_read(one, prompt, vocabulary) for one, prompt in zip(told, prompts, strict=True)]


def _settings(budget: int, settings: Sampling) -> dict[str, Any]:
    return {
        "max_new_tokens": budget,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": settings.top_k or -1,
        "min_p": settings.min_p,
        "repetition_penalty": settings.repetition_penalty,
        "frequency_penalty": settings.frequency_penalty,
        "presence_penalty": settings.presence_penalty,
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
        "no_stop_trim": True,
    }


def _read(told: dict[str, Any], prompt: Ids, vocabulary: Vocabulary) -> Completion:
    meta = told["meta_info"]
    ids = tuple(int(token) for token in told["output_ids"])
    finish, error = _finish(meta["finish_reason"])
    drawn = meta["output_token_logprobs"]
    if [int(token) for _, token, *_ in drawn] != list(ids):
        raise ServerError(500, "the server's log-probabilities are not those of its tokens")
    ended = ids[-1:] == (vocabulary.eos_id,)
    return Completion(
        prompt_ids=prompt,
        text=vocabulary.text(ids[: len(ids) - ended]),
        token_ids=ids,
        logprobs=tuple(float(value) for value, *_ in drawn),
        finish=finish,
        error=error,
    )


def _finish(reason: dict[str, Any] | None) -> tuple[EndReason, str]:
    match reason:
        case {"type": "stop"}:
            return EndReason.COMPLETED, ""
        case {"type": "length"}:
            return EndReason.BUDGET, ""
        case {"type": "abort", **rest}:
            return EndReason.FAILED, str(rest.get("message") or "the server stopped it")
    return EndReason.FAILED, f"the server gives no reason for its end: {reason}"
