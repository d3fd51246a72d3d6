"""Models that honour masks and positions pass; each kind of model that does not is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from nprdsl.runtime.errors import UnsupportedModelError
from nprdsl.runtime.local.probe import probe
from tests.runtime.tiny_models import NAMES, SHAPE, model

LLAMA = {**SHAPE, "num_hidden_layers": 2}


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4))


def mistral() -> PreTrainedModel:
    """Every layer slides, and no layer says so."""
    return MistralForCausalLM(MistralConfig(**LLAMA, sliding_window=4))


def moe() -> PreTrainedModel:
    experts = {"num_experts": 4, "moe_intermediate_size": 16, "num_experts_per_tok": 2}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**LLAMA, **experts))


def gemma2() -> PreTrainedModel:
    """Attention scores are capped."""
    kinds = ["sliding_attention", "full_attention"]
    return Gemma2ForCausalLM(Gemma2Config(**LLAMA, layer_types=kinds, sliding_window=4))


@pytest.mark.parametrize("name", NAMES)
def test_tested_families_pass(name: str) -> None:
    probe(model(name))


@pytest.mark.parametrize("make", [gpt2, mistral, moe, gemma2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_families_pass(make: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    probe(make().to(dtype).eval())


def bloom() -> PreTrainedModel:
    return BloomForCausalLM(BloomConfig(vocab_size=96, hidden_size=32, n_layer=2, n_head=4))


def mamba() -> PreTrainedModel:
    return MambaForCausalLM(MambaConfig(vocab_size=96, hidden_size=32, num_hidden_layers=2))


def lfm2() -> PreTrainedModel:
    return Lfm2ForCausalLM(Lfm2Config(**LLAMA, layer_types=["conv", "full_attention"]))


class NoPositions(LlamaForCausalLM):  # type: ignore[misc]
    """Counts positions itself, by the cache."""

    def forward(self, input_ids: torch.Tensor, position_ids: Any = None, **kwargs: Any) -> Any:
        counted = torch.arange(input_ids.shape[1])[None]
        return super().forward(input_ids, position_ids=counted, **kwargs)


class Leaky(LlamaForCausalLM):  # type: ignore[misc]
    """Adds the running mean of the row's embeddings, as a state-space layer might."""

    def forward(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        embedded = self.model.embed_tokens(input_ids)
        mean = embedded.cumsum(1) / torch.arange(1, embedded.shape[1] + 1)[:, None]
        return super().forward(inputs_embeds=embedded + mean, **kwargs)


class Scaled(LlamaForCausalLM):  # type: ignore[misc]
    """Computes something else over a cache than without."""

    def forward(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        embedded = self.model.embed_tokens(input_ids)
        factor = 3.0 if kwargs.get("use_cache") else 1.0
        return super().forward(inputs_embeds=factor * embedded, **kwargs)


class Forgetful(LlamaForCausalLM):  # type: ignore[misc]
    """Sees what one forward holds, never the cache."""

    def forward(self, *args: Any, past_key_values: Any = None, **kwargs: Any) -> Any:
        mask = kwargs.get("attention_mask")
        if mask is not None:
            rows = kwargs["position_ids"].shape[1]
            kwargs["attention_mask"] = mask.clone()
            kwargs["attention_mask"][..., : mask.shape[3] - rows] = torch.finfo(mask.dtype).min
        return super().forward(*args, past_key_values=past_key_values, **kwargs)


def llama(kind: type[LlamaForCausalLM]) -> PreTrainedModel:
    torch.manual_seed(0)
    return kind(LlamaConfig(**LLAMA)).eval()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (bloom, "does not go through transformers' AttentionInterface"),
        (mamba, "no attention layers"),
        (lfm2, "layers of the kind conv"),
        (lambda: llama(NoPositions), "ignores position_ids"),
        (lambda: llama(Leaky), "lets a branch see its sibling"),
        (lambda: llama(Scaled), "other logits over the KV log"),
        (lambda: llama(Forgetful), "does not see the branches behind their join"),
    ],
)
def test_unfit_models_are_refused(bad: Any, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        probe(bad().eval())
