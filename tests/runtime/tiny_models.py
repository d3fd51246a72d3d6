"""Tiny random models, and the oracle: one dense forward over all tokens with a brute-force mask."""

from __future__ import annotations

from functools import cache

import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
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
def model(name: str) -> PreTrainedModel:
    """A random model in float32; gemma3 alternates sliding and full attention layers."""
    torch.manual_seed(7)
    if name == "llama":
        return LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, **SHAPE)).eval()
    if name == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(num_hidden_layers=2, **SHAPE)).eval()
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    config = Gemma3TextConfig(
        num_hidden_layers=3, layer_types=kinds, sliding_window=WINDOW, **SHAPE
    )
    return Gemma3ForCausalLM(config).eval()


@torch.no_grad()
def dense_logprobs(name: str, fed: list[Fed]) -> torch.Tensor:
    """Log-probabilities `[tokens, vocabulary]` after every token, by the
    model's eager attention.
    """
    count = len(fed)
    seen = torch.zeros(count, count, dtype=torch.bool)
    for i, one in enumerate(fed):
        seen[i, sorted(one.sees)] = True
    positions = torch.tensor([one.position for one in fed])
    far = positions[:, None] - positions[None, :] >= WINDOW

    def additive(visible: torch.Tensor) -> torch.Tensor:
        hidden = torch.finfo(torch.float32).min
        return torch.zeros(count, count).masked_fill(~visible, hidden)[None, None]

    mask: torch.Tensor | dict[str, torch.Tensor] = additive(seen)
    if name == "gemma3":
        mask = {"full_attention": additive(seen), "sliding_attention": additive(seen & ~far)}
    oracle = model(name)
    before = oracle.config._attn_implementation
    oracle.set_attn_implementation("eager")
    try:
        ids = torch.tensor([[one.token for one in fed]])
        output = oracle(
            input_ids=ids, position_ids=positions[None], attention_mask=mask, use_cache=False
        )
    finally:
        oracle.set_attn_implementation(before)
    return output.logits[0].log_softmax(-1)
