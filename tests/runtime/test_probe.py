"""Models that honour masks and positions pass; each kind of model that does not is named."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertLMHeadModel,
    BloomConfig,
    BloomForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTBigCodeConfig,
    GPTBigCodeForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    JetMoeConfig,
    JetMoeForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    MiniMaxConfig,
    MiniMaxForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    RobertaConfig,
    RobertaForCausalLM,
    RoFormerConfig,
    RoFormerForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperForCausalLM,
)

from benchmarks.architectures import tiny_model
from nprdsl.machine.actions import FeedAction
from nprdsl.runtime.errors import UnsupportedModelError
from nprdsl.runtime.local.attention import AttentionPath
from nprdsl.runtime.local.forward import Forward, arrange
from nprdsl.runtime.local.kv_log import Extent
from nprdsl.runtime.local.model_facts import cache_argument, most_positions
from nprdsl.runtime.local.probe import probe
from nprdsl.runtime.local.trace_log import TraceLog
from tests.runtime.tiny_models import NAMES, SHAPE, model

LLAMA = {**SHAPE, "num_hidden_layers": 2}
BERT = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


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


def minimax() -> PreTrainedModel:
    """Linear attention, with a cache of a form of its own."""
    return MiniMaxForCausalLM(MiniMaxConfig(**LLAMA, num_local_experts=2))


def roformer() -> PreTrainedModel:
    """Its positions matter less than one changed token."""
    return RoFormerForCausalLM(RoFormerConfig(**BERT, embedding_size=32, is_decoder=True))


def roberta() -> PreTrainedModel:
    return RobertaForCausalLM(RobertaConfig(**BERT, is_decoder=True))


def bert() -> PreTrainedModel:
    return BertLMHeadModel(BertConfig(**BERT, is_decoder=False))


def broken() -> PreTrainedModel:
    """As weights are that went wrong in training."""
    made = llama(LlamaForCausalLM)
    made.lm_head.weight.data.fill_(float("nan"))
    return made


def t5() -> PreTrainedModel:
    return T5ForConditionalGeneration(
        T5Config(vocab_size=96, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
    )


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
    """Sees what one forward holds, never what an earlier one put into the cache."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        log = kwargs.get(cache_argument(self))
        if log is not None:
            log.clear(Extent(0, log.capacity))
        return super().forward(*args, **kwargs)


def llama(kind: type[LlamaForCausalLM]) -> PreTrainedModel:
    torch.manual_seed(0)
    return kind(LlamaConfig(**LLAMA)).eval()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (bloom, "attention in code of its own"),
        (minimax, "layers of the kind linear_attention, .* MiniMax uses cache of its own"),
        (roformer, "ignores position_ids"),
        (lambda: roformer().bfloat16(), "ignores position_ids"),
        (roberta, "numbers positions in a way of its own"),
        (bert, "sees tokens that come later"),
        (lambda: llama(NoPositions), "ignores position_ids"),
        (lambda: llama(Leaky), "lets a branch see its sibling"),
        (lambda: llama(Scaled), "other logits over the KV log"),
        (lambda: llama(Forgetful), "does not see what earlier forwards"),
        (lambda: LlamaModel(LlamaConfig(**LLAMA)), "LlamaModel has no logits of each token"),
        (lambda: LlamaForSequenceClassification(LlamaConfig(**LLAMA)), "no logits of each token"),
        (broken, "logits that are not numbers"),
        (t5, "T5ForConditionalGeneration is an encoder and a decoder"),
    ],
)
def test_unfit_models_are_refused(bad: Any, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        probe(bad().eval())


def stirred(kind: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    """Random weights everywhere, where a model's own would begin as zeros or ones."""
    torch.manual_seed(0)
    made = kind(config).float()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return made


def gpt_oss() -> PreTrainedModel:
    """Sinks, sliding layers, experts."""
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
    return stirred(GptOssForCausalLM, GptOssConfig(**LLAMA, **experts, sliding_window=5))


def jetmoe() -> PreTrainedModel:
    """Keys of several query heads, which the model repeats itself."""
    shape = {k: v for k, v in LLAMA.items() if k not in ("num_attention_heads", "head_dim")}
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
    return stirred(JetMoeForCausalLM, JetMoeConfig(**shape, **experts, kv_channels=8))


def gpt_bigcode() -> PreTrainedModel:
    """One KV head for all query heads."""
    config = GPTBigCodeConfig(vocab_size=96, n_embd=32, n_layer=2, n_head=4, multi_query=True)
    return stirred(GPTBigCodeForCausalLM, config)


def deepseek() -> PreTrainedModel:
    """Values that are shorter than keys."""
    ranks = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16}
    shape = LLAMA | {"num_key_value_heads": 4, "first_k_dense_replace": 2}
    del shape["head_dim"]
    return stirred(DeepseekV3ForCausalLM, DeepseekV3Config(**shape, **ranks, v_head_dim=12))


def mimo() -> PreTrainedModel:
    """Rounding sends tokens to other experts; its kinds of layers differ in KV heads and sinks."""
    return tiny_model("mimo_v2_flash")


def whisper() -> PreTrainedModel:
    """A decoder whose configuration has no `max_position_embeddings`."""
    sizes = {"decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 32}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(vocab_size=96, d_model=32, max_target_positions=50, **sizes, **ids)
    return stirred(WhisperForCausalLM, config)


def falcon() -> PreTrainedModel:
    """Attention in code of its own, one KV head."""
    return stirred(FalconForCausalLM, FalconConfig(**BERT, multi_query=True))


def test_attention_code_of_a_model_itself_runs_over_the_whole_log() -> None:
    assert probe(falcon()).path is AttentionPath.MODEL


@pytest.mark.parametrize("make", [gpt_oss, jetmoe, gpt_bigcode, deepseek, whisper, mimo])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_configuration_does_not_tell_is_read_from_tensors(
    make: Any, dtype: torch.dtype
) -> None:
    assert probe(make().to(dtype)).path is AttentionPath.INTERFACE


def test_a_table_of_positions_limits_what_the_configuration_does_not() -> None:
    assert most_positions(whisper()) == 50
    assert most_positions(gpt2()) == 1024


def test_a_model_in_training_drops_nothing_at_random() -> None:
    config = GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.5)
    trained = GPT2LMHeadModel(config).train()
    probe(trained)
    forward = Forward(trained, 8)
    trained.train()  # by a trainer that shares it
    log = TraceLog(8)
    log.apply([FeedAction(0, (1, 2, 3))])
    fed = arrange([(log, Extent(0, 8), log.take(8))])
    assert torch.equal(forward(fed, [2]), forward(fed, [2]))


def test_the_first_error_is_the_reason() -> None:
    """An error before attention is no sign that attention is the model's own."""

    class Broken(LlamaForCausalLM):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            if kwargs["use_cache"]:
                raise KeyError("no such layer")
            return super().forward(*args, **kwargs)

    with pytest.raises(UnsupportedModelError, match=r"Broken does not run .*'no such layer'"):
        probe(llama(Broken))


def test_the_cache_has_the_name_that_the_model_gives_it() -> None:
    assert cache_argument(llama(Scaled)) == cache_argument(llama(LlamaForCausalLM))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probe(llama(LlamaForCausalLM))
