"""The tokenizer of a GGUF file, rebuilt from the file's own fields.

transformers converts such tokenizers too, but splits text otherwise than the model was trained: it
joins digits, puts tokens before a text, or reads merges as a unigram model. A GGUF file names its
rules (`tokenizer.ggml.model`, `tokenizer.ggml.pre`); in go the fields, out comes a fast tokenizer
that follows them, or an error where the rules have a name that is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import PreTrainedTokenizerFast

Fields = Mapping[str, Any]

_SPACE: Final = "\u2581"  # what SentencePiece writes for a blank
_ROLES: Final = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
# How byte-level BPE splits text before it merges, by llama.cpp's names.
_BY_BLANKS: Final = frozenset({"gpt-2", "mpt", "olmo", "jais", "phi-2", "gpt3-finnish"})
_DIGITS_APART: Final = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell"})
_BY_CLASSES: Final = {  # the most digits in a piece
    "llama-bpe": 3,
    "llama3": 3,
    "llama-v3": 3,
    "dbrx": 3,
    "smaug-bpe": 3,
    "qwen2": 1,
    "stablelm2": 1,
    "deepseek-r1-qwen": 1,
}
_CLASSES: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,{digits}}}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class _TokenKind(IntEnum):
    """`tokenizer.ggml.token_type`."""

    CONTROL = 3
    USER_DEFINED = 4


def gguf_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a GGUF file. Raises ValueError where its rules are not known."""
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError as error:
        raise ValueError(f"`{file.name}` needs gguf; install it with: pip install gguf") from error
    return rebuilt({name: field.contents() for name, field in GGUFReader(file).fields.items()})


def rebuilt(fields: Fields) -> PreTrainedTokenizerFast:
    """The tokenizer that the fields of a file describe. Raises ValueError."""
    match fields["tokenizer.ggml.model"]:
        case "gpt2":
            core = _bytewise(fields)
        case "llama" | "gemma4":
            core = _sentencepiece(fields)
        case other:
            raise _unknown(f"tokenizer.ggml.model = {other}")
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    for kind, special in ((_TokenKind.CONTROL, True), (_TokenKind.USER_DEFINED, False)):
        core.add_tokens(
            [AddedToken(t, special=special, normalized=False) for t in _of_kind(fields, kind)]
        )
    if fields.get("tokenizer.ggml.add_bos_token", fields["tokenizer.ggml.model"] != "gpt2"):
        bos = int(fields["tokenizer.ggml.bos_token_id"])
        core.post_processor = processors.TemplateProcessing(
            single=f"{tokens[bos]} $A", special_tokens=[(tokens[bos], bos)]
        )
    named = {r: fields.get(f"tokenizer.ggml.{name}_token_id") for r, name in _ROLES.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        chat_template=fields.get("tokenizer.chat_template"),
        model_max_length=fields[f"{fields['general.architecture']}.context_length"],
        clean_up_tokenization_spaces=False,
        **{f"{role}_token": tokens[i] for role, i in named.items() if i is not None},
    )


def _bytewise(fields: Fields) -> Tokenizer:
    """Byte-level BPE, whose merges stand in the file."""
    name = fields.get("tokenizer.ggml.pre", "default")
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False)
    steps: list[pre_tokenizers.PreTokenizer]
    if name in _BY_BLANKS:
        steps = [bytewise]
    elif name in _DIGITS_APART:
        steps = [pre_tokenizers.Digits(individual_digits=True), bytewise]
    elif name in _BY_CLASSES:
        pattern = Regex(_CLASSES.format(digits=_BY_CLASSES[name]))
        split = pre_tokenizers.Split(pattern, behavior="isolated")
        steps = [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    else:
        raise _unknown(f"tokenizer.ggml.pre = {name}")
    ids = {token: index for index, token in enumerate(fields["tokenizer.ggml.tokens"])}
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"]]
    whole = _BY_CLASSES.get(name) == 3  # pieces that are tokens are not merged anew
    core = Tokenizer(models.BPE(ids, merges, ignore_merges=whole))
    if name in ("qwen2", "deepseek-r1-qwen"):
        core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(steps)
    core.decoder = decoders.ByteLevel()
    return core


def _sentencepiece(fields: Fields) -> Tokenizer:
    """BPE over characters with bytes for those it lacks; its merges follow from the scores."""
    for name in ("precompiled_charsmap", "remove_extra_whitespaces"):
        if fields.get(f"tokenizer.ggml.{name}"):
            raise _unknown(f"tokenizer.ggml.{name}")
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    ids = {token: index for index, token in enumerate(tokens)}
    scores: list[float] = fields["tokenizer.ggml.scores"]
    apart = {*_of_kind(fields, _TokenKind.CONTROL), *_of_kind(fields, _TokenKind.USER_DEFINED)}
    pairs = [
        (-scores[index], ids[token[:at]], ids[token[at:]], token[:at], token[at:])
        for index, token in enumerate(tokens)
        for at in range(1, len(token))
        if token not in apart and token[:at] in ids and token[at:] in ids
    ]
    merges = [(left, right) for *_, left, right in sorted(pairs)]
    unknown = tokens[fields.get("tokenizer.ggml.unknown_token_id", 0)]
    core = Tokenizer(models.BPE(ids, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    begins = bool(fields.get("tokenizer.ggml.add_space_prefix", True))
    blanks: list[normalizers.Normalizer] = [normalizers.Replace(" ", _SPACE)]
    back: list[decoders.Decoder] = [
        decoders.Replace(_SPACE, " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
    ]
    if begins:
        blanks.insert(0, normalizers.Prepend(_SPACE))
        back.append(decoders.Strip(" ", 1, 0))
    core.normalizer = normalizers.Sequence(blanks)
    core.decoder = decoders.Sequence(back)
    return core


def _of_kind(fields: Fields, kind: _TokenKind) -> list[str]:
    kinds = fields["tokenizer.ggml.token_type"]
    return [
        token
        for token, number in zip(fields["tokenizer.ggml.tokens"], kinds, strict=True)
        if number == kind
    ]


def _unknown(rule: str) -> ValueError:
    return ValueError(
        f"the tokenizer of the GGUF file cannot be rebuilt exactly: its rule {rule} is not known; "
        "load the model and the tokenizer of its original with transformers, and give both to "
        "LocalEngine(model, tokenizer)"
    )
