"""The text of tokens that come one after another, in whole characters.

A token may end inside a character; its text then comes with the token that completes it.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Final

from nprdsl.tokens.vocabulary import Vocabulary

_Utf8Decoder: Final = codecs.getincrementaldecoder("utf-8")


class TextDecoder:
    """The text of one sequence of tokens; special tokens stand in it by name."""

    __slots__ = ("_decoder", "_vocabulary")

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._decoder = _Utf8Decoder("replace")

    def add(self, tokens: Sequence[int]) -> str:
        """The characters that these tokens complete."""
        names, spelled = self._vocabulary.special_text, self._vocabulary.bytes_of
        pieces = (names[t].encode() if t in names else spelled(t) for t in tokens)
        return self._decoder.decode(b"".join(pieces))

    def end(self) -> str:
        """What stands for a character that will not be completed."""
        return self._decoder.decode(b"", True)
