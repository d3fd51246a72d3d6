"""Tiny random models on disk for a server; they know all tags, and every byte is a token."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

import nprdsl

SCHEMAS = ("npr", "multiverse", "parallel_r1", "threadweaver")
POSITIONS = 2048


@cache
def tags() -> tuple[str, ...]:
    """The tags of all schemas that ship, each once."""
    return tuple(dict.fromkeys(tag for name in SCHEMAS for tag in nprdsl.load(name).tags))


def tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token; `<eos>` and the tags are special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(t, special=True) for t in ("<eos>", *tags())])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")


def make_model(folder: Path, seed: int = 7) -> Path:
    """A random Qwen3 in float32 with its tokenizer."""
    spelling = tokenizer()
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(spelling),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=POSITIONS,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=spelling.eos_token_id,
        pad_token_id=None,
    )
    model = Qwen3ForCausalLM(config).to(torch.float32)
    sharpen(model, spelling)
    model.save_pretrained(folder)
    spelling.save_pretrained(folder)
    return folder


@torch.no_grad()
def sharpen(model: Qwen3ForCausalLM, spelling: PreTrainedTokenizerFast) -> None:
    """Tags are drawn more often than one in three hundred tokens, so that short traces fork."""
    ids = [spelling.convert_tokens_to_ids(tag) for tag in tags()]
    model.lm_head.weight[ids] *= 1.8
