"""Runs of tokens from a stock server: drawn freely, and again under the mask where that is needed.

A run is drawn without a constraint. Where its first token is forbidden, that token is drawn once
more from what is allowed, by `logit_bias`; so it follows the model's distribution under the mask.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.runtime.sampling import Sampling
from nprdsl.runtime.sglang.client.transport import ServerError, Transport
from nprdsl.tokens.bitmask import Mask

_RUN: Final = 32  # tokens that are drawn before the schema is asked
_FEW: Final = 64  # so few allowed tokens, in a large vocabulary, are drawn under the mask at once
_BIAS: Final = 200.0  # on a logit: out of reach of all others


def allows(mask: Mask, token: int) -> bool:
    """Whether a packed mask, int32 [ceil(V/32)], allows the token."""
    word, bit = divmod(token, 32)
    return word < len(mask) and bool(int(mask[word]) >> bit & 1)


class PlainRuns:
    """Plain requests whose names begin with `rid`. `forwards`: tokens computed one by one, and
    passes over branches."""

    def __init__(self, rid: str, transport: Transport, bound: BoundSchema) -> None:
        self.forwards = 0
        self._rid = rid
        self._transport = transport
        self._lock = threading.Lock()
        self._numbers = count(1)
        special = bound.vocabulary.special
        self._size = bound.vocabulary.size
        self._tags = [special[tag] for tag in bound.grammar.tags if tag in special]

    def draw(self, seen: Sequence[int], mask: Mask, settings: Sampling, left: int) -> list[int]:
        """Tokens behind `seen`; the first one is allowed. Raises ServerError."""
        flags = _flags(mask, self._size)
        allowed = np.flatnonzero(flags)
        if len(allowed) > min(_FEW, self._size // 4):
            most = min(_RUN, left)
            tokens = self._generate(seen, settings, most, {"stop_token_ids": self._tags})
            if tokens and allows(mask, tokens[0]):
                return tokens
        tokens = self._generate(seen, settings, 1, {"logit_bias": _bias(flags)})
        if tokens and tokens[0] >= self._size:  # an output that is no token, and was not lowered
            tokens = self._generate(seen, settings, 1, {"logit_bias": _lifted(flags)})
        if not tokens or not allows(mask, tokens[0]):
            raise ServerError(500, "the server does not heed logit_bias")
        return tokens

    def score(self, seen: Sequence[int], places: Sequence[int]) -> dict[int, float]:
        """Log-probabilities of the tokens at these places, under the model's own distribution."""
        first = places[0] - 1
        out = self._post(
            seen,
            {"max_new_tokens": 1, "temperature": 0},
            return_logprob=True,
            logprob_start_len=first,
        )
        told = out["meta_info"]["input_token_logprobs"]
        return {place: float(told[place - first][0]) for place in places}

    def _generate(
        self, seen: Sequence[int], settings: Sampling, most: int, more: Mapping[str, Any]
    ) -> list[int]:
        out = self._post(
            seen,
            {
                "max_new_tokens": most,
                "temperature": settings.temperature,
                "top_p": settings.top_p,
                "top_k": settings.top_k or -1,
                "min_p": settings.min_p,
                "skip_special_tokens": False,
                **more,
            },
        )
        return list(out["output_ids"])

    def _post(self, seen: Sequence[int], settings: dict[str, Any], **more: Any) -> dict[str, Any]:
        with self._lock:
            name = f"{self._rid}-{next(self._numbers)}"
        body = {"rid": name, "input_ids": list(seen), "sampling_params": settings, **more}
        out: dict[str, Any] = self._transport.post("/generate", body)
        with self._lock:
            self.forwards += int(out["meta_info"]["completion_tokens"])
        return out


def _flags(mask: Mask, size: int) -> NDArray[np.bool_]:
    """Whether the mask allows each token: without the bits that fill its last word, since servers
    refuse a bias on what is no token."""
    bits = np.unpackbits(mask.view(np.uint8), count=size, bitorder="little")
    return bits.astype(np.bool_)


def _bias(allowed: NDArray[np.bool_]) -> dict[str, float]:
    """Lifts what is allowed, or lowers what is not, whichever is less to say."""
    if 2 * np.count_nonzero(allowed) <= len(allowed):
        return _lifted(allowed)
    return {str(token): -_BIAS for token in np.flatnonzero(~allowed).tolist()}


def _lifted(allowed: NDArray[np.bool_]) -> dict[str, float]:
    return {str(token): _BIAS for token in np.flatnonzero(allowed).tolist()}
