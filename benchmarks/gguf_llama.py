"""A Llama model in a GGUF file as a Hugging Face folder: configuration, tokenizer, weights.

The tokenizer is rebuilt from the file's own fields, because `from_pretrained(gguf_file=…)` of
transformers 5.23 neither splits digits nor leaves the start of a text alone. Non-goals: other
architectures, other tokenizers than byte-level BPE with single digits (`smollm` of ggml).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from benchmarks.gguf_file import GgufError, GgufFile

CONTROL = 3  # `tokenizer.ggml.token_type` of a special token
TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def write_folder(content: bytes, folder: Path) -> None:
    """Writes the model of a GGUF file into an existing folder, in bfloat16. Raises GgufError."""
    gguf = GgufFile(content)
    family = gguf.text("general.architecture"), gguf.text("tokenizer.ggml.pre")
    if family != ("llama", "smollm"):
        raise GgufError(f"the file holds {family}, only ('llama', 'smollm') can be converted")
    config = _config(gguf)
    config.save_pretrained(folder)
    GenerationConfig.from_model_config(config).save_pretrained(folder)
    _tokenizer(gguf).save_pretrained(folder)
    save_file(dict(_weights(gguf)), folder / "model.safetensors", metadata={"format": "pt"})


def _config(gguf: GgufFile) -> LlamaConfig:
    def count(key: str) -> int:
        return int(gguf.number(f"llama.{key}"))

    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=count("vocab_size"),
        hidden_size=count("embedding_length"),
        intermediate_size=count("feed_forward_length"),
        num_hidden_layers=count("block_count"),
        num_attention_heads=count("attention.head_count"),
        num_key_value_heads=count("attention.head_count_kv"),
        max_position_embeddings=count("context_length"),
        rms_norm_eps=round(gguf.number("llama.attention.layer_norm_rms_epsilon"), 9),
        rope_parameters={
            "rope_type": "default",
            "rope_theta": gguf.number("llama.rope.freq_base"),
        },
        tie_word_embeddings=True,
        bos_token_id=int(gguf.number("tokenizer.ggml.bos_token_id")),
        eos_token_id=int(gguf.number("tokenizer.ggml.eos_token_id")),
        pad_token_id=int(gguf.number("tokenizer.ggml.padding_token_id")),
        dtype="bfloat16",
    )


def _weights(gguf: GgufFile) -> Iterator[tuple[str, torch.Tensor]]:
    heads = {
        "attn_q": int(gguf.number("llama.attention.head_count")),
        "attn_k": int(gguf.number("llama.attention.head_count_kv")),
    }
    for name in gguf.stored:
        values, parts = gguf.tensor(name), name.split(".")
        if parts[0] == "blk":
            if parts[2] in heads:
                values = _rotated_halves(values, heads[parts[2]])
            target = f"model.layers.{parts[1]}.{TENSORS[parts[2]]}.weight"
        else:
            target = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}[parts[0]]
            target += ".weight"
        yield target, torch.from_numpy(np.ascontiguousarray(values)).to(torch.bfloat16)


def _rotated_halves(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows `[heads x width, hidden]`: ggml rotates neighbours, Hugging Face the two halves."""
    pairs = values.reshape(heads, -1, 2, values.shape[1])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _tokenizer(gguf: GgufFile) -> PreTrainedTokenizerFast:
    """Byte-level BPE with every digit on its own, from the file's own tokens and merges."""
    tokens = [str(token) for token in gguf.entries("tokenizer.ggml.tokens")]
    kinds = gguf.entries("tokenizer.ggml.token_type")
    merges = [str(pair).split(" ") for pair in gguf.entries("tokenizer.ggml.merges")]
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(ids, [(left, right) for left, right in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == CONTROL
        ]
    )

    def special(role: str) -> str:
        return tokens[int(gguf.number(f"tokenizer.ggml.{role}_token_id"))]

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=special("bos"),
        eos_token=special("eos"),
        unk_token=special("unknown"),
        pad_token=special("padding"),
        chat_template=gguf.text("tokenizer.chat_template"),
        model_max_length=int(gguf.number("llama.context_length")),
        clean_up_tokenization_spaces=False,
    )
