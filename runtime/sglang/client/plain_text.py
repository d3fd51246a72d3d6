"""Unconstrained text from a server: stock requests, all in one call.

The server draws with a generator of its own: equal seeds do not give equal text. It ends at every
end token that its model's own settings name. The log-probabilities that it gives are those of
temperature and penalties; where these bend the model's distribution, a second pass over what was
written gives the model's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nprdsl.runtime.prompts import Ids
from nprdsl.runtime.results import Completion
from nprdsl.runtime.sampling import DEFAULT, Sampling
from nprdsl.runtime.sglang.client.transport import ServerError, Transport
from nprdsl.structure.events import EndReason
from nprdsl.tokens.vocabulary import Vocabulary


def completions(
    transport: Transport,
    vocabulary: Vocabulary,
    prompts: Sequence[Ids],
    budgets: Sequence[int],
    sampling: Sequence[Sampling],
) -> list[Completion]:
    """One for each prompt. Raises EngineUnavailableError, ServerError."""
    asked = [_settings(budget, how) for budget, how in zip(budgets, sampling, strict=True)]
    told = _answers(transport, prompts, {"sampling_params": asked})
    found = [_read(one, prompt, vocabulary) for one, prompt in zip(told, prompts, strict=True)]
    bent = [i for i, how in enumerate(sampling) if _bends(how) and found[i].token_ids]
    own = _scores(transport, [found[i] for i in bent])
    for i, logprobs in zip(bent, own, strict=True):
        found[i] = replace(found[i], logprobs=logprobs)
    return found


def _answers(
    transport: Transport, prompts: Sequence[Ids], asked: dict[str, Any]
) -> list[dict[str, Any]]:
    if not prompts:
        return []
    body = {"input_ids": [list(prompt) for prompt in prompts], "return_logprob": True, **asked}
    found: list[dict[str, Any]] = transport.post("/generate", body)
    return found


def _bends(settings: Sampling) -> bool:
    """Whether the server's log-probabilities are not the model's own; truncation comes later."""
    names = ("repetition_penalty", "frequency_penalty", "presence_penalty")
    penalised = any(getattr(settings, name) != getattr(DEFAULT, name) for name in names)
    return penalised or settings.temperature not in (0.0, 1.0)


def _scores(transport: Transport, written: Sequence[Completion]) -> list[tuple[float, ...]]:
    """Log-probabilities of all tokens behind the prompts, under the model's own distribution."""
    whole = [(*one.prompt_ids, *one.token_ids) for one in written]
    asked = {
        "sampling_params": {"max_new_tokens": 0, "temperature": 0.0},
        "logprob_start_len": [len(one.prompt_ids) - 1 for one in written],
    }
    told = [one["meta_info"]["input_token_logprobs"] for one in _answers(transport, whole, asked)]
    return [tuple(float(value) for value, *_ in entries[1:]) for entries in told]


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
