"""The model of the curriculum: random weights at its beginning, and bf16 files as it ships.

It has the Qwen3 architecture, one token for each character, and the tags as special tokens.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from nprdsl.runtime.local.loading import LoadOptions, load_model, quiet

CHARACTERS: Final = "0123456789ABCDEFGHIJ+*=:;,()x?\\boed{}\n"
_NAMED: Final = ("<pad>", "<bos>", "<eos>")
_TEMPLATE: Final = """\
{#- the question on a line of its own, as the model was trained -#}
{{- bos_token }}{{ messages[-1]['content'] }}{{ '\\n' -}}
"""
_POSITIONS: Final = 2048
_FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
          "tokenizer_config.json", "chat_template.jinja")  # fmt: skip


def write_beginner(folder: Path, tags: tuple[str, ...], seed: int) -> int:
    """Writes a model with random weights and its tokenizer; gives the number of parameters."""
    torch.manual_seed(seed)
    tokenizer = character_tokenizer(tags)
    pad, bos, eos = (tokenizer.convert_tokens_to_ids(name) for name in _NAMED)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=160, intermediate_size=448, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, rope_theta=10_000.0,
        max_position_embeddings=_POSITIONS, tie_word_embeddings=True,
        pad_token_id=pad, bos_token_id=bos, eos_token_id=eos,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def character_tokenizer(
    tags: tuple[str, ...], characters: str = CHARACTERS
) -> PreTrainedTokenizerFast:
    """One token for each character and each tag."""
    names = [*_NAMED, *tags, *characters]
    core = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    core.decoder = decoders.Fuse()
    core.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in (*_NAMED, *tags)]
    )
    pad, bos, eos = _NAMED
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=pad, bos_token=bos, eos_token=eos,
        additional_special_tokens=list(tags), chat_template=_TEMPLATE,
    )  # fmt: skip


def publish(model: Path, folder: Path) -> None:
    """Writes the model over the one in `folder`; files that are not the model's stay. Raises
    ModelNotFoundError, OSError."""
    made = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(made, ignore_errors=True)
    loaded, tokenizer = load_model(str(model), LoadOptions(dtype="bf16"))
    with quiet():
        loaded.save_pretrained(made)
        tokenizer.save_pretrained(made)
    folder.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        (made / name).chmod(0o644)
        (made / name).replace(folder / name)
    shutil.rmtree(made)
