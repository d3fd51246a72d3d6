"""The bytes that each token of a Hugging Face fast tokenizer stands for.

A tokenizer lists its tokens as pieces in a spelling of its own (`Ġthe`, `▁the`, `<0x0A>`), and its
decoder says how pieces become text again. `read_tokenizer` follows the decoder and gives what a
`Vocabulary` is made of. A decoder that puts text between tokens (WordPiece, CTC) is refused, for
such tokens have no bytes of their own. Neither `transformers` nor `tokenizers` is imported: the
protocols below name the few members that are used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nprdsl.grammar.tag_shapes import is_tag

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# Decoders that change only the two ends of a whole text, or nothing at all.
_NEUTRAL = frozenset({"Fuse", "Strip"})


class AddedToken(Protocol):
    content: str
    special: bool


class Encoding(Protocol):
    ids: list[int]


class Decoder(Protocol):
    def __getstate__(self) -> Any: ...


@runtime_checkable
class Backend(Protocol):
    """The part of `tokenizers.Tokenizer` that is read."""

    @property
    def decoder(self) -> Decoder | None: ...
    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]: ...
    def get_added_tokens_decoder(self) -> Mapping[int, AddedToken]: ...
    def encode(self, sequence: str, *, add_special_tokens: bool = True) -> Encoding: ...


@runtime_checkable
class FastTokenizer(Protocol):
    """The part of `transformers.PreTrainedTokenizerFast` that is read."""

    @property
    def backend_tokenizer(self) -> Backend: ...
    @property
    def eos_token(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class TokenBytes:
    """`added`: the ordinary tokens that the tokenizer never splits nor joins with others."""

    tokens: dict[int, bytes]
    special: dict[str, int]
    added: dict[str, int]
    eos: str | None
    encode: Callable[[str], Sequence[int]]


@dataclass(frozen=True, slots=True)
class PlainEncoding:
    """A tokenizer's own text -> ids, without what it puts around a text."""

    backend: Backend

    def __call__(self, text: str) -> Sequence[int]:
        return self.backend.encode(text, add_special_tokens=False).ids


def read_tokenizer(tokenizer: object) -> TokenBytes:
    """What there is to know of `tokenizer`; ValueError if it cannot be read."""
    eos: str | None = None
    if isinstance(tokenizer, FastTokenizer):
        backend, eos = tokenizer.backend_tokenizer, tokenizer.eos_token
    elif isinstance(tokenizer, Backend):
        backend = tokenizer
    else:
        raise ValueError(
            f"{type(tokenizer).__name__} is not a fast tokenizer: the bytes of its tokens "
            "cannot be read; load a fast one, or give Vocabulary(tokens={id: bytes}) yourself"
        )
    added = backend.get_added_tokens_decoder()
    special = {
        token.content: i for i, token in added.items() if token.special or is_tag(token.content)
    }
    plain = {token.content: i for i, token in added.items() if token.content not in special}
    to_bytes, byte_fallback = _piece_decoder(backend.decoder)
    pieces = {i: piece for piece, i in backend.get_vocab().items() if i not in added}
    tokens = dict(zip(pieces, to_bytes(list(pieces.values())), strict=True))
    tokens |= {i: content.encode() for content, i in plain.items()}
    if byte_fallback:
        # Last, so that `A` rather than `<0x41>` spells the letter.
        tokens = _bytes_last(tokens, pieces)

    return TokenBytes(tokens, special, plain, eos, PlainEncoding(backend))


def _bytes_last(tokens: dict[int, bytes], pieces: Mapping[int, str]) -> dict[int, bytes]:
    raw = {i: _BYTE_TOKEN.fullmatch(piece) for i, piece in pieces.items()}
    plain = {i: spelled for i, spelled in tokens.items() if not raw.get(i)}
    return plain | {i: bytes.fromhex(match[1]) for i, match in raw.items() if match}


def _piece_decoder(decoder: Decoder | None) -> tuple[Callable[[Sequence[str]], list[bytes]], bool]:
    """How pieces become bytes, and whether `<0x0A>` pieces are single bytes."""
    if decoder is None:
        raise ValueError(
            "the tokenizer has no decoder, so the text between its tokens is unknown; set "
            "tokenizer.decoder (for plain pieces: tokenizers.decoders.Fuse())"
        )
    replace: dict[str, str] = {}
    byte_fallback = False
    for step in _steps(json.loads(decoder.__getstate__())):
        match step:
            case {"type": "ByteLevel"}:
                return _byte_level, False
            case {"type": "ByteFallback"}:
                byte_fallback = True
            case {"type": "Metaspace", "replacement": str(mark)}:
                replace[mark] = " "
            case {"type": "Replace", "pattern": {"String": str(mark)}, "content": str(content)}:
                replace[mark] = content
            case {"type": str(name)} if name in _NEUTRAL:
                pass
            case _:
                raise ValueError(
                    f"the tokenizer's decoder {step['type']!r} does not join tokens byte by byte; "
                    "give Vocabulary(tokens={id: bytes}) yourself"
                )

    def to_bytes(pieces: Sequence[str]) -> list[bytes]:
        for mark, content in replace.items():
            pieces = [piece.replace(mark, content) for piece in pieces]
        return [piece.encode() for piece in pieces]

    return to_bytes, byte_fallback


def _steps(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    if decoder["type"] != "Sequence":
        return [decoder]
    return [step for part in decoder["decoders"] for step in _steps(part)]


def _byte_alphabet() -> NDArray[np.int16]:
    """Code point -> byte of the GPT-2 alphabet, -1 for none: visible Latin-1 stands for itself, the
    other bytes for the code points from 256 on, in order (Radford et al. 2019)."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = sorted(set(range(256)) - set(visible))
    alphabet = np.full(256 + len(hidden) + 1, -1, dtype=np.int16)
    alphabet[visible] = visible
    alphabet[256:-1] = hidden
    return alphabet


_ALPHABET = _byte_alphabet()


def _byte_level(pieces: Sequence[str]) -> list[bytes]:
    """Bytes of `pieces`; one with a letter outside the alphabet stands for itself."""
    points = np.frombuffer("".join(pieces).encode("utf-32-le"), dtype=np.uint32)
    values = _ALPHABET[np.minimum(points, len(_ALPHABET) - 1)]
    spelled = values.astype(np.uint8).tobytes()
    ends = list(accumulate(map(len, pieces)))
    tokens = [spelled[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    for i in set(np.searchsorted(ends, np.flatnonzero(values < 0), side="right").tolist()):
        tokens[i] = pieces[i].encode()
    return tokens
