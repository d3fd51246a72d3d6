"""Requests that any SGLang server answers, with or without the plugin.

`completions` asks for unconstrained text, all prompts in one call. `MaskedRuns` asks for tokens
under a mask of a schema, one branch at a time: a run of tokens is first drawn without a constraint;
if its first token is forbidden, that one is drawn again with a `logit_bias` that leaves only
allowed tokens, so that it follows the model's distribution under the mask.

The server draws with random numbers of its own: equal seeds do not give equal text.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.runtime.prompts import Ids
from nprdsl.runtime.results import Completion
from nprdsl.runtime.sampling import DEFAULT, PER_RULE, Sampling
from nprdsl.runtime.sglang.client.transport import ServerError, Transport
from nprdsl.structure.events import EndReason
from nprdsl.tokens.bitmask import Mask, allows, unpack
from nprdsl.tokens.vocabulary import Vocabulary

_RUN: Final = 32  # tokens that are drawn before the schema is asked
_FEW: Final = 64  # allowed tokens of a large vocabulary that are drawn under the mask at once
_BIAS: Final = 200.0  # added to a logit: no other logit can compete
_PENALTIES: Final = ("repetition_penalty", "frequency_penalty", "presence_penalty")


def _sampling_params(settings: Sampling, max_tokens: int) -> dict[str, Any]:
    """SGLang has our settings under our names; it turns top-k off by -1."""
    values = {name: getattr(settings, name) for name in PER_RULE}
    values["top_k"] = settings.top_k or -1
    return {**values, "max_new_tokens": max_tokens, "skip_special_tokens": False}


# -- unconstrained text ----------------------------------------------------------------------------


def completions(
    transport: Transport,
    vocabulary: Vocabulary,
    prompts: Sequence[Ids],
    budgets: Sequence[int],
    sampling: Sequence[Sampling],
) -> list[Completion]:
    """One completion for each prompt, of at most `budgets` tokens.

    A completion also ends at every end token that the model's generation config names. Where
    penalties or a temperature change the distribution that the server reports log-probabilities
    of, a second pass gives those of the model's own. Raises EngineUnavailableError, ServerError.
    """
    params = [
        _sampling_params(settings, budget)
        | {"spaces_between_special_tokens": False, "no_stop_trim": True}
        for settings, budget in zip(sampling, budgets, strict=True)
    ]
    answers = _generate(transport, prompts, {"sampling_params": params})
    done = [_completion(*pair, vocabulary) for pair in zip(answers, prompts, strict=True)]
    again = [i for i, s in enumerate(sampling) if _changes_logprobs(s) and done[i].token_ids]
    own = _own_logprobs(transport, [done[i] for i in again])
    for i, logprobs in zip(again, own, strict=True):
        done[i] = replace(done[i], logprobs=logprobs)
    return done


def _generate(
    transport: Transport, prompts: Sequence[Ids], fields: dict[str, Any]
) -> list[dict[str, Any]]:
    if not prompts:
        return []
    body = {"input_ids": [list(prompt) for prompt in prompts], "return_logprob": True, **fields}
    answers: list[dict[str, Any]] = transport.post("/generate", body)
    return answers


def _changes_logprobs(settings: Sampling) -> bool:
    """Whether the server's log-probabilities are not the model's own. Truncation (top-k, top-p,
    min-p) comes behind them."""
    penalised = any(getattr(settings, name) != getattr(DEFAULT, name) for name in _PENALTIES)
    return penalised or settings.temperature not in (0.0, 1.0)


def _own_logprobs(transport: Transport, done: Sequence[Completion]) -> list[tuple[float, ...]]:
    """Log-probabilities of the completions' tokens under the model's own distribution."""
    texts = [(*one.prompt_ids, *one.token_ids) for one in done]
    fields = {
        "sampling_params": {"max_new_tokens": 0, "temperature": 0.0},
        "logprob_start_len": [len(one.prompt_ids) - 1 for one in done],
    }
    return [
        tuple(float(value) for value, *_ in answer["meta_info"]["input_token_logprobs"][1:])
        for answer in _generate(transport, texts, fields)
    ]


def _completion(answer: dict[str, Any], prompt: Ids, vocabulary: Vocabulary) -> Completion:
    meta = answer["meta_info"]
    ids = tuple(int(token) for token in answer["output_ids"])
    finish, error = _finish(meta["finish_reason"])
    logprobs = meta["output_token_logprobs"]
    if [int(token) for _, token, *_ in logprobs] != list(ids):
        raise ServerError(500, "the server's log-probabilities are not those of its tokens")
    ended = ids[-1:] == (vocabulary.eos_id,)
    return Completion(
        prompt_ids=prompt,
        text=vocabulary.text(ids[: len(ids) - ended]),
        token_ids=ids,
        logprobs=tuple(float(value) for value, *_ in logprobs),
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


# -- tokens under a mask ---------------------------------------------------------------------------


class MaskedRuns:
    """Runs of tokens for the branches of one request, whose plain requests are named `rid`-1, -2,
    …; so one abort of `rid` reaches them all. `forwards`: tokens that were drawn, and passes over
    finished branches."""

    def __init__(self, rid: str, transport: Transport, bound: BoundSchema) -> None:
        self.forwards = 0
        self._rid = rid
        self._transport = transport
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._size = bound.vocabulary.size
        self._tags = list(bound.tag_tokens.values())

    def draw(self, seen: Sequence[int], mask: Mask, settings: Sampling, left: int) -> list[int]:
        """One to `left` tokens that follow those `seen`; the mask, int32 [ceil(V/32)], holds for
        the first. Raises ServerError."""
        allowed = unpack(mask, self._size)  # the mask's padding left out: it has no tokens
        if np.count_nonzero(allowed) > min(_FEW, self._size // 4):
            most = min(_RUN, left)
            tokens = self._generate(seen, settings, most, {"stop_token_ids": self._tags})
            if tokens and allows(mask, tokens[0]):
                return tokens
        tokens = self._generate(seen, settings, 1, {"logit_bias": _bias(allowed)})
        if tokens and tokens[0] >= self._size:  # padding of the model's outputs, which got no bias
            tokens = self._generate(seen, settings, 1, {"logit_bias": _raised(allowed)})
        if not tokens or not allows(mask, tokens[0]):
            raise ServerError(500, "the server does not heed logit_bias")
        return tokens

    def score(self, seen: Sequence[int], indices: Sequence[int]) -> dict[int, float]:
        """Log-probabilities of the tokens at these indices (ascending) of `seen`, under the model's
        own distribution."""
        first = indices[0] - 1
        answer = self._post(
            seen,
            {"max_new_tokens": 1, "temperature": 0},
            return_logprob=True,
            logprob_start_len=first,
        )
        logprobs = answer["meta_info"]["input_token_logprobs"]
        return {index: float(logprobs[index - first][0]) for index in indices}

    def _generate(
        self, seen: Sequence[int], settings: Sampling, most: int, more: Mapping[str, Any]
    ) -> list[int]:
        answer = self._post(seen, {**_sampling_params(settings, most), **more})
        return list(answer["output_ids"])

    def _post(self, seen: Sequence[int], params: dict[str, Any], **more: Any) -> dict[str, Any]:
        with self._lock:
            name = f"{self._rid}-{next(self._numbers)}"
        body = {"rid": name, "input_ids": list(seen), "sampling_params": params, **more}
        answer: dict[str, Any] = self._transport.post("/generate", body)
        with self._lock:
            self.forwards += int(answer["meta_info"]["completion_tokens"])
        return answer


def _bias(allowed: NDArray[np.bool_]) -> dict[str, float]:
    """Raises allowed tokens or lowers forbidden ones, whichever are fewer."""
    if 2 * np.count_nonzero(allowed) <= len(allowed):
        return _raised(allowed)
    return {str(token): -_BIAS for token in np.flatnonzero(~allowed).tolist()}


def _raised(allowed: NDArray[np.bool_]) -> dict[str, float]:
    return {str(token): _BIAS for token in np.flatnonzero(allowed).tolist()}
