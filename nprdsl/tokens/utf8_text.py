"""Which tokens of a vocabulary continue plain text, whatever schema they are used with.

Text is a sequence of bytes that is valid UTF-8, and a token may end inside a character. So the
tables here are indexed by the state of the UTF-8 automaton in which a token begins: between two
characters, or with one to three bytes of a character missing. They depend on the vocabulary alone:
`text_tables` computes them once for each vocabulary, and the masks of all schemas share them.
"""

from __future__ import annotations

from typing import Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from nprdsl.regular.dfa import UTF8, WHITESPACE
from nprdsl.tokens.bitmask import Mask, pack
from nprdsl.tokens.spelling import Spelling
from nprdsl.tokens.vocabulary import Vocabulary

START: Final = int(UTF8.start)  # between two characters

_BLANK, _FILLED, _ENDS_BLANK = 1, 2, 3  # what was read: only white space, more, more and then that
_WHITE_SPACE = np.full((4, 256), _FILLED, np.int32)
_WHITE_SPACE[:, list(WHITESPACE)] = [[0], [_BLANK], [_ENDS_BLANK], [_ENDS_BLANK]]


class TextTables:
    """Tables over the tokens of one vocabulary, by state of the UTF-8 automaton.

    `blank` is bool [V]: the tokens of white space only; `ends_blank`, bool [V], those that end with
    white space. The vocabulary itself is not kept, only
    its trie, so that the tables live as long as the vocabulary and no longer.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._trie = vocabulary.trie
        self._finishable = _finishable(vocabulary)
        self._ends: dict[int, NDArray[np.int32]] = {}
        self._usable: dict[int, NDArray[np.bool_]] = {}
        self._masks: dict[int, Mask] = {}
        self.mask(START)
        ends = self._trie.walk(_WHITE_SPACE, _BLANK)
        self.blank: NDArray[np.bool_] = ends == _BLANK
        self.ends_blank: NDArray[np.bool_] = self.blank | (ends == _ENDS_BLANK)

    def ends(self, state: int) -> NDArray[np.int32]:
        """int32 [V]: the state that each token leads to from `state`, 0 where it is invalid."""
        ends = self._ends.get(state)
        if ends is None:
            ends = self._ends[state] = self._trie.walk(UTF8.table, state)
        return ends

    def usable(self, state: int) -> NDArray[np.bool_]:
        """bool [V]: tokens that are valid from `state`, and whose last character can be finished
        where they leave it open."""
        usable = self._usable.get(state)
        if usable is None:
            usable = self._usable[state] = self._finishable[self.ends(state)]
        return usable

    def mask(self, state: int) -> Mask:
        """`usable` as a mask; read-only."""
        mask = self._masks.get(state)
        if mask is None:
            mask = self._masks[state] = pack(self.usable(state), (self._trie.size + 31) // 32)
            mask.flags.writeable = False
        return mask


_TABLES: WeakKeyDictionary[Vocabulary, TextTables] = WeakKeyDictionary()


def text_tables(vocabulary: Vocabulary) -> TextTables:
    """The tables of `vocabulary`, computed when they are first asked for."""
    tables = _TABLES.get(vocabulary)
    if tables is None:
        tables = _TABLES[vocabulary] = TextTables(vocabulary)
    return tables


def _finishable(vocabulary: Vocabulary) -> NDArray[np.bool_]:
    """bool [S]: the states from which tokens can finish the character."""
    finishable = np.ones(len(UTF8.table), bool)
    finishable[0] = False
    if not vocabulary.single_bytes[0x80:0xC0].all():
        spelling = Spelling(vocabulary)
        finishable[1:] = [
            spelling.completion(UTF8, state) is not None for state in range(1, len(finishable))
        ]
    return finishable
