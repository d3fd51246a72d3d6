"""Tiny random models, and the oracle: one dense forward over all tokens with a brute-force mask."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import ArrayLike
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.runtime.scripted import Fed

WIDTH = 96
WINDOW = 7
SHAPE = {
    "vocab_size": WIDTH,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
NAMES = ("llama", "qwen3", "gemma3")


@cache
def model(name: str, width: int = WIDTH) -> PreTrainedModel:
    """A random model in float32; gemma3 alternates sliding and full attention layers."""
    torch.manual_seed(7)
    shape = SHAPE | {"vocab_size": width}
    if name == "llama":
        return LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, **shape)).eval()
    if name == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(num_hidden_layers=2, **shape)).eval()
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    config = Gemma3TextConfig(
        num_hidden_layers=3, layer_types=kinds, sliding_window=WINDOW, **shape
    )
    return Gemma3ForCausalLM(config).eval()


def byte_tokenizer(tags: Sequence[str]) -> PreTrainedTokenizerFast:
    """Every byte is a token; `<eos>` and the tags are special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(t, special=True) for t in ("<eos>", *tags)])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")


@torch.no_grad()
def dense(
    oracle: PreTrainedModel, ids: Sequence[int], positions: ArrayLike, seen: ArrayLike
) -> torch.Tensor:
    """Log-probabilities `[tokens, vocabulary]` after every token, by the model's eager attention.

    `seen` is bool `[tokens, tokens]`: row sees column.
    """
    place = torch.from_numpy(np.asarray(positions, dtype=np.int64))
    visible = torch.from_numpy(np.asarray(seen, dtype=bool))
    near = place[:, None] - place[None, :] < WINDOW
    mask: torch.Tensor | dict[str, torch.Tensor] = _additive(visible)
    if isinstance(oracle, Gemma3ForCausalLM):
        sliding = _additive(visible & near)
        mask = {"full_attention": _additive(visible), "sliding_attention": sliding}
    before = oracle.config._attn_implementation
    oracle.set_attn_implementation("eager")
    try:
        output = oracle(
            input_ids=torch.tensor([list(ids)]),
            position_ids=place[None],
            attention_mask=mask,
            use_cache=False,
        )
    finally:
        oracle.set_attn_implementation(before)
    return output.logits[0].log_softmax(-1)


def _dense_logprobs(name: str, fed: list[Fed]) -> torch.Tensor:
    """The oracle over all that a scripted machine fed."""
    seen = np.zeros((len(fed), len(fed)), dtype=bool)
    for i, one in enumerate(fed):
        seen[i, sorted(one.sees)] = True
    return dense(model(name), [f.token for f in fed], [f.position for f in fed], seen)


def largest_error(name: str, fed: list[Fed]) -> float:
    """How far the log-probabilities of sampled tokens are from the oracle's."""
    oracle, errors = _dense_logprobs(name, fed), []
    for i, one in enumerate(fed):
        if one.logprob is not None:
            before = max(j for j in one.sees if j < i and fed[j].branch == one.branch)
            errors.append(abs(float(oracle[before, one.token]) - one.logprob))
    assert len(errors) > 3
    return max(errors)


def _additive(visible: torch.Tensor) -> torch.Tensor:
    hidden = torch.finfo(torch.float32).min
    return torch.zeros(visible.shape).masked_fill(~visible, hidden)[None, None]
