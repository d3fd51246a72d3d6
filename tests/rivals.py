"""xgrammar, llguidance and outlines-core as oracles: the tokens each allows, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nprdsl.export import Export
from nprdsl.tokens.vocabulary import Vocabulary

Allowed = NDArray[np.bool_]  # [V]


class Rival(Protocol):
    def restart(self) -> None: ...

    def allowed(self) -> Allowed: ...

    def take(self, token: int) -> None: ...


def unpack(row: NDArray[np.int32], size: int) -> Allowed:
    bits = np.unpackbits(np.ascontiguousarray(row).view(np.uint8), bitorder="little")
    return bits[:size].astype(bool)


class XGrammar:
    """Special tokens are given by name; `exact_text` exports exclude these names from text."""

    def __init__(self, export: Export, vocabulary: Vocabulary) -> None:
        import xgrammar

        pieces = [
            vocabulary.special_text[token].encode()
            if token in vocabulary.special_text
            else vocabulary.bytes_of(token)
            for token in range(vocabulary.size)
        ]
        info = xgrammar.TokenizerInfo(
            pieces,
            xgrammar.VocabType.RAW,
            vocab_size=vocabulary.size,
            stop_token_ids=[vocabulary.eos_id],
        )
        compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self._compiled = compiler.compile_grammar(export.text)
        self._size = vocabulary.size
        self._row = xgrammar.allocate_token_bitmask(1, vocabulary.size)
        self.restart()

    def restart(self) -> None:
        import xgrammar

        self._matcher = xgrammar.GrammarMatcher(self._compiled)

    def allowed(self) -> Allowed:
        self._matcher.fill_next_token_bitmask(self._row)
        return unpack(self._row.numpy()[0], self._size)

    def take(self, token: int) -> None:
        assert self._matcher.accept_token(token)

    def accepts(self, text: str) -> bool:
        """Whether a whole text (tags spelled) is in the language."""
        import xgrammar

        matcher = xgrammar.GrammarMatcher(self._compiled, terminate_without_stop_token=True)
        return bool(matcher.accept_string(text)) and bool(matcher.is_completed())


class LLGuidance:
    """`tokenizer` is that of `tokenizer_of`, or one from a Hugging Face tokenizer."""

    def __init__(self, export: Export, tokenizer: Any, size: int) -> None:
        import llguidance

        self._grammar = llguidance.LLMatcher.grammar_from_lark(export.text)
        self._tokenizer, self._size = tokenizer, size
        self.restart()

    @staticmethod
    def tokenizer_of(vocabulary: Vocabulary) -> Any:
        """Without a way to encode text, so that no spelling is preferred to another."""
        import llguidance

        return llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(_Spelled(vocabulary)), n_vocab=vocabulary.size
        )

    def restart(self) -> None:
        import llguidance

        self._matcher = llguidance.LLMatcher(self._tokenizer, self._grammar)
        assert not self._matcher.is_error(), self._matcher.get_error()

    def allowed(self) -> Allowed:
        row = np.frombuffer(self._matcher.compute_bitmask(), np.int32)
        return unpack(row, self._size)

    def take(self, token: int) -> None:
        assert self._matcher.consume_token(token), self._matcher.get_error()

    def forced(self) -> list[int]:
        return list(self._matcher.compute_ff_tokens())

    def accepts(self, text: str) -> bool:
        """Whether a whole text (tags spelled) is in the language; tokens are bytes."""
        self.restart()
        taken = all(self._matcher.consume_token(byte) for byte in text.encode())
        return bool(taken and self._matcher.is_accepting())


class _Spelled:
    """What `TokenizerWrapper` asks of a tokenizer."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.eos_token_id = vocabulary.eos_id
        self.bos_token_id = None
        self.special_token_ids = sorted(vocabulary.special_text)
        names = vocabulary.special_text
        self.tokens = [
            names[token].encode() if token in names else vocabulary.bytes_of(token)
            for token in range(vocabulary.size)
        ]

    def __call__(self, text: bytes | str) -> Sequence[int]:
        data = text.encode() if isinstance(text, str) else text
        return list(data)  # the first 256 tokens are the bytes


class Outlines:
    def __init__(self, export: Export, vocabulary: Vocabulary) -> None:
        from outlines_core import Guide, Index
        from outlines_core import Vocabulary as Pieces

        pieces: dict[bytes, list[int]] = {}
        for token in range(vocabulary.size):
            if token not in vocabulary.special_text:
                pieces.setdefault(vocabulary.bytes_of(token), []).append(token)
        for tag, character in export.stand_ins.items():
            pieces[character.encode()] = [vocabulary.special[tag]]
        index = Index(export.text, Pieces(vocabulary.eos_id, pieces))
        self._size = vocabulary.size
        self._new = lambda: Guide(index)
        self.restart()

    def restart(self) -> None:
        self._guide = self._new()

    def allowed(self) -> Allowed:
        found = np.zeros(self._size, bool)
        found[self._guide.get_tokens()] = True
        return found

    def take(self, token: int) -> None:
        self._guide.advance(token)
