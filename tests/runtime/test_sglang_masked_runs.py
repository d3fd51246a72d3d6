"""What is asked of a stock server for tokens under a mask: without SGLang, and without a server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nprdsl.grammar.resolve import read_grammar
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.runtime.sampling import Sampling
from nprdsl.runtime.sglang.client.stock_requests import MaskedRuns
from nprdsl.runtime.sglang.client.transport import ServerError
from nprdsl.schema import Schema
from nprdsl.tokens.vocabulary import Vocabulary

SIZE = 49  # no multiple of a mask's words
VOCABULARY = Vocabulary(
    {i: chr(ord("A") + i) for i in range(SIZE - 1)}, {"<eos>": SIZE - 1}, "<eos>"
)


def bound() -> BoundSchema:
    source = "start: TEXT\n%declare TEXT\n"
    return Schema(read_grammar(source, file="own.lark", name="own", types={})).bind(VOCABULARY)


class Server:
    """Answers with the token of the highest bias, or without a bias with a fixed one; refuses a
    bias on what the model has no output for, as SGLang does. It has `more` outputs than tokens, and
    likes those best."""

    def __init__(self, free: int, more: int = 0) -> None:
        self.free = free
        self.outputs = SIZE + more
        self.biased = 0

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        bias = body["sampling_params"].get("logit_bias")
        token = self.free
        if bias is not None:
            self.biased += 1
            assert all(0 <= int(key) < self.outputs for key in bias), "refused"
            token = max(reversed(range(self.outputs)), key=lambda one: bias.get(str(one), 0.0))
        return {"output_ids": [token], "meta_info": {"completion_tokens": 1}}


def packed(allowed: set[int]) -> Any:
    flags = np.zeros(-(-SIZE // 32) * 32, dtype=bool)
    flags[list(allowed)] = True
    return np.packbits(flags, bitorder="little").view(np.int32)


FEW = st.sets(st.integers(0, SIZE - 1), min_size=1, max_size=9)


@given(FEW, st.booleans(), st.data())
def test_a_forbidden_token_is_drawn_again_from_what_is_allowed(
    few: set[int], forbids: bool, data: st.DataObject
) -> None:
    """Few allowed or few forbidden: a bias names tokens of the vocabulary alone."""
    others = set(range(SIZE)) - few
    allowed, forbidden = (others, few) if forbids else (few, others)
    server: Any = Server(data.draw(st.sampled_from(sorted(forbidden))))
    (token,) = MaskedRuns("one", server, bound()).draw([1], packed(allowed), Sampling(), 9)
    assert token in allowed and server.biased == 1


@given(FEW, st.booleans(), st.integers(1, 40))
def test_outputs_that_are_no_token_are_not_drawn(few: set[int], forbids: bool, more: int) -> None:
    """Models have more outputs than their tokenizers have tokens: padding."""
    allowed = set(range(SIZE)) - few if forbids else few
    server: Any = Server(SIZE, more)
    (token,) = MaskedRuns("one", server, bound()).draw([1], packed(allowed), Sampling(), 9)
    assert token in allowed


def test_a_server_without_bias_is_told() -> None:
    server: Any = Server(free=3)
    server.post = lambda path, body: {"output_ids": [3], "meta_info": {"completion_tokens": 1}}
    with pytest.raises(ServerError, match="does not heed logit_bias"):
        MaskedRuns("one", server, bound()).draw([1], packed({5}), Sampling(), 9)
