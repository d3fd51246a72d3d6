"""Which tokens of a vocabulary are prose: valid UTF-8 from every state of its automaton, blank or
not.

Belongs to the vocabulary alone, so it is prepared once for all schemas.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from nprdsl.regular.dfa import utf8_dfa
from nprdsl.tokens.spelling import Spelling

if TYPE_CHECKING:
    from nprdsl.tokens.vocabulary import Vocabulary

START: Final = int(utf8_dfa().start)
Row = NDArray[np.int32]


class Prose:
    """Tables over the tokens of one vocabulary, by state of the UTF-8 automaton."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._ends: dict[int, NDArray[np.int32]] = {}
        self._usable: dict[int, NDArray[np.bool_]] = {}
        self._rows: dict[int, Row] = {}
        self._blank: NDArray[np.bool_] | None = None
        self.row(START)
        _ = self.blank

    def ends(self, state: int) -> NDArray[np.int32]:
        """int32 [V]: the state that each token leads to from `state`, 0 where it is invalid."""
        found = self._ends.get(state)
        if found is None:
            found = self._ends[state] = self._vocabulary.walk(utf8_dfa().table, state)
        return found

    def usable(self, state: int) -> NDArray[np.bool_]:
        """bool [V]: tokens that are valid from `state` and leave a character that can be
        finished."""
        found = self._usable.get(state)
        if found is None:
            found = self._usable[state] = self._finishable[self.ends(state)]
        return found

    @cached_property
    def _finishable(self) -> NDArray[np.bool_]:
        """bool [S]: the states from which tokens can finish the character."""
        found = np.ones(len(utf8_dfa().table), bool)
        found[0] = False
        if not self._vocabulary.single_bytes[0x80:0xC0].all():
            spelling = Spelling(self._vocabulary)
            found[1:] = [
                spelling.completion(utf8_dfa(), state) is not None for state in range(1, len(found))
            ]
        return found

    def row(self, state: int) -> Row:
        """`usable`, packed; read-only."""
        found = self._rows.get(state)
        if found is None:
            found = self._rows[state] = pack(self.usable(state), (self._vocabulary.size + 31) // 32)
            found.flags.writeable = False
        return found

    @property
    def blank(self) -> NDArray[np.bool_]:
        """bool [V]: tokens of white space only."""
        if self._blank is None:
            table = np.zeros((2, 256), np.int32)
            table[1, list(b" \t\n\r\f\v")] = 1
            self._blank = self._vocabulary.walk(table, 1) == 1
        return self._blank


def pack(allowed: NDArray[np.bool_], width: int) -> Row:
    """bool [V] -> int32 [width], bit i%32 of word i//32 is entry i."""
    packed = np.packbits(allowed, bitorder="little")
    row = np.zeros(width * 4, np.uint8)
    row[: len(packed)] = packed
    return row.view(np.int32)
