"""The vocabulary of a model: which bytes each token id spells, and which ids are special tokens.

A special token (a tag, an end-of-sequence mark) has a name and no bytes, so that text can never
spell it. Everything that searches tokens by their bytes sees the other tokens only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import takewhile
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from nprdsl.grammar.diagnostics import did_you_mean
from nprdsl.tokens.byte_trie import ByteTrie, Int32s
from nprdsl.tokens.tokenizer_bytes import read_tokenizer

_NO_NAMES: Mapping[str, int] = MappingProxyType({})
_CACHED_SPELLINGS = 4096


class UnspellableError(ValueError):
    """A text that no sequence of tokens spells; `offset` is the byte where spelling is stuck."""

    def __init__(self, text: bytes, offset: int) -> None:
        self.text, self.offset = text, offset
        shown = text.decode("utf-8", "backslashreplace")
        super().__init__(
            f"the vocabulary cannot spell {shown!r}: no token spells byte 0x{text[offset]:02x} at "
            f"offset {offset}; add a token for it, or use another text"
        )


class Vocabulary:
    """`tokens`: id -> text (UTF-8 encoded) or bytes; `special`: text -> id of tokens without bytes.

    `eos` names the one special token that ends a sequence; other end tokens of a model are special
    tokens like any. `added` names those of `tokens` that the tokenizer never splits: text, but for
    a schema of which one is a tag. `size` is the width of the logits (default: highest id + 1).
    `encode` is the tokenizer's own text -> ids, used where it is exact. Of two tokens with equal
    bytes the one that comes first in `tokens` is used to spell.
    Raises ValueError for ids that are not integers, repeated, negative or beyond `size`, and for an
    `eos` that is not special.
    """

    def __init__(
        self,
        tokens: Mapping[int, str | bytes],
        special: Mapping[str, int] = _NO_NAMES,
        eos: str | None = None,
        *,
        added: Mapping[str, int] = _NO_NAMES,
        size: int | None = None,
        encode: Callable[[str], Sequence[int]] | None = None,
    ) -> None:
        self.special = dict(special)
        self.added = dict(added)
        self.special_text = {token: text for text, token in special.items()}
        _check_ids(tokens, self.special, self.special_text)
        _check_added(tokens, self.added)
        highest = max(max(tokens, default=-1), max(self.special_text, default=-1))
        self.size = highest + 1 if size is None else size
        if self.size <= highest:
            raise ValueError(
                f"size {self.size} is too small: the highest token id is {highest}; "
                f"give size={highest + 1} or more"
            )
        if eos is not None and eos not in self.special:
            hint = did_you_mean(eos, self.special) or f'add it: special={{"{eos}": id}}'
            raise ValueError(f"eos {eos!r} is not among the special tokens; {hint}")
        self.eos_id = None if eos is None else self.special[eos]
        spelled = {i: t.encode() if isinstance(t, str) else t for i, t in tokens.items() if t}
        self.trie = ByteTrie(list(spelled), list(spelled.values()), self.size)
        self._encode = encode
        self._texts: dict[int, str] = {}
        self._spellings: dict[bytes, tuple[int, ...] | None] = {}
        self._byte_index: dict[int, list[tuple[int, bytes]]] = {}
        _ = self.digest  # prepared with the rest: rows on disk are named by it

    @classmethod
    def from_tokenizer(
        cls, tokenizer: object, size: int | None = None, *, eos: str | None = None
    ) -> Vocabulary:
        """The vocabulary of a Hugging Face fast tokenizer, or of a `tokenizers.Tokenizer`.

        Byte-level BPE, SentencePiece style (`▁`, byte fallback) and plain pieces are understood;
        others raise ValueError. Added tokens that are marked special, or that look like a tag
        (`<…>`, `[…]`, `⟨…⟩`), become special; others are text, and tags where a schema has them
        as tags. `eos` overrides the tokenizer's own.
        """
        read = read_tokenizer(tokenizer)
        end = eos or read.eos
        return cls(read.tokens, read.special, end, added=read.added, size=size, encode=read.encode)

    def __repr__(self) -> str:
        return f"<Vocabulary: {self.size} ids, {len(self.special)} special>"

    def tag_tokens(self, tags: Iterable[str]) -> dict[str, int]:
        """The ids of those of `tags` that are special or added tokens; all others are spelled."""
        found = ((tag, self.special.get(tag, self.added.get(tag))) for tag in tags)
        return {tag: token for tag, token in found if token is not None}

    def bytes_of(self, token: int) -> bytes:
        """The bytes that `token` spells; empty for special and unused ids, and for numbers that are
        none."""
        return self.trie.bytes_of(token) if 0 <= token < self.size else b""

    def text(self, ids: Iterable[int]) -> str:
        """The text of `ids`: special tokens by name, what is not UTF-8 as U+FFFD."""
        if isinstance(ids, tuple) and len(ids) == 1:
            return self._text_of(ids[0])
        return self._spelled(ids)

    def _text_of(self, token: int) -> str:
        """One token; a stream asks for the same ones again and again."""
        known = self._texts.get(token)
        if known is None:
            known = self._texts[token] = self._spelled((token,))
        return known

    def _spelled(self, ids: Iterable[int]) -> str:
        special = self.special_text
        parts = [special[i].encode() if i in special else self.bytes_of(i) for i in ids]
        return b"".join(parts).decode("utf-8", "replace")

    @cached_property
    def digest(self) -> str:
        """A hash of the content: tokens, special and added tokens, end of sequence and size."""
        trie = self.trie
        content = hashlib.blake2b(trie.blob, digest_size=32)
        content.update(trie.offsets.tobytes())
        content.update(trie.order.tobytes())
        content.update(repr((self.eos_id, self.size)).encode())
        content.update(repr((sorted(self.special.items()), sorted(self.added.items()))).encode())
        return content.hexdigest()

    @cached_property
    def single_bytes(self) -> NDArray[np.bool_]:
        """bool [256]: the bytes that are tokens of their own."""
        return np.array([bool(self.exactly(bytes((byte,)))) for byte in range(256)])

    def prefixed(self, prefix: bytes) -> Int32s:
        """Ids of the tokens whose bytes start with `prefix`, ascending."""
        low, high = self.trie.ranks(prefix)
        return np.sort(self.trie.order[low:high])

    def exactly(self, data: bytes) -> list[int]:
        """Ids of the tokens with just these bytes."""
        ids = map(int, self.trie.order[slice(*self.trie.ranks(data))])
        return list(takewhile(lambda token: self.bytes_of(token) == data, ids))

    def containing(self, part: bytes) -> Int32s:
        """Ids of the tokens whose bytes contain `part`, ascending."""
        if not part:
            return np.sort(self.trie.order)
        tokens = self._with_byte(part[0])
        return np.array([token for token, data in tokens if part in data], dtype=np.int32)

    def _with_byte(self, byte: int) -> list[tuple[int, bytes]]:
        """The tokens that contain `byte`, with their bytes, ascending; few for brackets."""
        if byte not in self._byte_index:
            ids = self.trie.with_byte(byte).tolist()
            self._byte_index[byte] = [(token, self.bytes_of(token)) for token in ids]
        return self._byte_index[byte]

    def spell(self, text: bytes) -> tuple[int, ...] | None:
        """Fewest tokens that spell `text` exactly (ties: longest first token), or None."""
        if text not in self._spellings:
            if len(self._spellings) >= _CACHED_SPELLINGS:
                self._spellings.clear()
            self._spellings[text] = self._spell(text)
        return self._spellings[text]

    def _spell(self, text: bytes) -> tuple[int, ...] | None:
        # best[i]: (tokens needed for text[i:], length and id of the first of them)
        best: list[tuple[int, int, int] | None] = [None] * len(text) + [(0, 0, -1)]
        for offset in range(len(text) - 1, -1, -1):
            for length, token in reversed(self.trie.tokens_at(text, offset)):
                rest, here = best[offset + length], best[offset]
                if rest is not None and (here is None or rest[0] + 1 < here[0]):
                    best[offset] = (rest[0] + 1, length, token)
        spelling: list[int] = []
        offset = 0
        while offset < len(text):
            step = best[offset]
            if step is None:
                return None
            spelling.append(step[2])
            offset += step[1]
        return tuple(spelling)

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids that spell `text`: the tokenizer's own where they are exact, else the fewest.

        Raises UnspellableError where the vocabulary has no tokens for it.
        """
        wanted = text.encode()
        if self._encode is not None:
            ids = tuple(self._encode(text))
            if b"".join(map(self.bytes_of, ids)) == wanted and self.special_text.keys().isdisjoint(
                ids
            ):
                return ids
        spelling = self.spell(wanted)
        if spelling is None:
            raise UnspellableError(wanted, self._furthest(wanted))
        return spelling

    def _furthest(self, text: bytes) -> int:
        """The last offset that tokens can reach from the start, where spelling is stuck."""
        reached = {0}
        for offset in range(len(text)):
            if offset in reached:
                reached.update(offset + length for length, _ in self.trie.tokens_at(text, offset))
        return max(reached)

    def walk(self, table: Int32s, start: int, *, ids: Int32s | None = None) -> Int32s:
        """End state of every token from state `start` of a byte DFA.

        `table` is int32, C-contiguous, [S, 256]; state 0 is dead (its row is 0). Returns int32 [V];
        0 for tokens on which the DFA dies, for special and for unused ids, and, where `ids` is
        given, for all other ids.
        """
        ends = self.trie.walk(table, start)
        if ids is None:
            return ends
        chosen = np.zeros_like(ends)
        chosen[ids] = ends[ids]
        return chosen


def _check_ids(
    tokens: Mapping[int, str | bytes], special: Mapping[str, int], special_text: Mapping[int, str]
) -> None:
    kinds = set(map(type, tokens)) | set(map(type, special.values()))
    if kinds - {int}:
        named = ", ".join(sorted(kind.__name__ for kind in kinds - {int}))
        raise ValueError(
            f"token ids must be int, not {named}; tokens maps id -> text, special maps text -> id"
        )
    negative = min(min(tokens, default=0), min(special_text, default=0))
    if negative < 0:
        raise ValueError(f"token id {negative} is negative; ids count from 0")
    for text, token in special.items():
        if not text:
            raise ValueError(f"special token {token} has an empty text; name it")
        if special_text[token] != text:
            raise ValueError(
                f"special tokens {text!r} and {special_text[token]!r} have the same id {token}"
            )
        if token in tokens:
            raise ValueError(
                f"id {token} is in tokens ({tokens[token]!r}) and in special ({text!r}); "
                "leave it out of tokens"
            )


def _check_added(tokens: Mapping[int, str | bytes], added: Mapping[str, int]) -> None:
    for text, token in added.items():
        if tokens.get(token) not in (text, text.encode()):
            raise ValueError(f"the added token {text!r} is id {token}, which spells something else")
