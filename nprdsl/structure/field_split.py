"""Which stretch of a field's content each of its symbols takes.

A field is a sequence of pieces: fixed texts, glue, free text, values of terminals that have a
pattern. `split` reads a content by them, without backtracking: in one walk where every piece can
take as much as it will, else in a walk that follows all readings at once. Where there are several
readings the first piece takes as much as any of them gives it, then the second, and so on. Values
are read by the automaton from which the masks are made, so both know the same language.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Final

import numpy as np

from nprdsl.regular.dfa import Dfa, compile_regex

BLANKS: Final = " \t\n\r\f\v"
_BLANKS: Final = BLANKS.encode()
_DEAD: Final = 0
_Way = tuple["_Way", int] | None  # where the pieces so far ended, the last one first
_Thread = tuple[int, int, _Way]  # number of the piece, its state, and the way to it


class Piece(ABC):
    """One piece of a field, read byte by byte. States are numbers; 0 is the dead one."""

    __slots__ = ()

    @property
    def start(self) -> int:
        """The state before the first byte."""
        return 1

    @abstractmethod
    def longest(self, data: bytes, at: int) -> int:
        """The last place where the piece may end that begins at `at`; -1 if there is none."""

    @abstractmethod
    def step(self, state: int, byte: int) -> int:
        """The state behind one more byte."""

    @abstractmethod
    def accepts(self, state: int) -> bool:
        """Whether the piece may end in this state."""


class FixedPiece(Piece):
    """A text that stands there as it is. Its state is one more than the bytes read."""

    __slots__ = ("_data",)

    def __init__(self, text: str) -> None:
        self._data = text.encode()

    def longest(self, data: bytes, at: int) -> int:
        return at + len(self._data) if data.startswith(self._data, at) else -1

    def step(self, state: int, byte: int) -> int:
        fits = state <= len(self._data) and self._data[state - 1] == byte
        return state + 1 if fits else _DEAD

    def accepts(self, state: int) -> bool:
        return state > len(self._data)


class GluePiece(Piece):
    """Any white space, or none."""

    __slots__ = ()

    def longest(self, data: bytes, at: int) -> int:
        return len(data) - len(data[at:].lstrip(_BLANKS))

    def step(self, state: int, byte: int) -> int:
        return 1 if byte in _BLANKS else _DEAD

    def accepts(self, state: int) -> bool:
        return True


class ProsePiece(Piece):
    """Free text with a character that is not blank. State 2: there was one."""

    __slots__ = ()

    def longest(self, data: bytes, at: int) -> int:
        return len(data) if data[at:].strip(_BLANKS) else -1

    def step(self, state: int, byte: int) -> int:
        return state if byte in _BLANKS else 2

    def accepts(self, state: int) -> bool:
        return state == 2


class AnyPiece(ProsePiece):
    """Any text, blank or empty ones too."""

    __slots__ = ()

    def longest(self, data: bytes, at: int) -> int:
        return len(data)

    def accepts(self, state: int) -> bool:
        return True


class ValuePiece(Piece):
    """A value of a pattern. Its states are those of the automaton in another order, 256 times: the
    accepting ones come last."""

    __slots__ = ("_accepting", "_moves", "_start")

    def __init__(self, dfa: Dfa) -> None:
        rank = np.empty(len(dfa.accepting), dtype=np.int32)
        order = np.argsort(dfa.accepting[1:], kind="stable")
        rank[order + 1] = np.arange(1, len(rank), dtype=np.int32) << 8
        rank[0] = _DEAD
        table = np.zeros_like(dfa.table)
        table[1:] = rank[dfa.table[order + 1]]
        self._moves = memoryview(table.tobytes()).cast("i")
        self._start = int(rank[dfa.start])
        self._accepting = int(len(rank) - np.count_nonzero(dfa.accepting)) << 8

    @property
    def start(self) -> int:
        return self._start

    def longest(self, data: bytes, at: int) -> int:
        moves, accepting, state = self._moves, self._accepting, self._start
        end = at if state >= accepting else -1
        for place, byte in enumerate(data[at:] if at else data, at + 1):
            state = moves[state + byte]
            if state >= accepting:
                end = place
            elif not state:
                break
        return end

    def step(self, state: int, byte: int) -> int:
        return self._moves[state + byte]

    def accepts(self, state: int) -> bool:
        return state >= self._accepting


GLUE: Final = GluePiece()
TEXT: Final = ProsePiece()
ANY: Final = AnyPiece()


@lru_cache(maxsize=512)
def value_piece(pattern: str) -> ValuePiece:
    """The piece of a terminal with this pattern."""
    return ValuePiece(compile_regex(pattern))


def split(content: str, pieces: Sequence[Piece]) -> list[int] | None:
    """Where each piece ends, in characters; None if the content is no such field, or no UTF-8."""
    data = encoded(content)
    if data is None:
        return None
    ends = _greedy(data, pieces)
    if ends is None and len(pieces) > 1:
        ends = _search(data, pieces)
    if ends is None or len(data) == len(content):
        return ends
    lengths = (len(data[start:end].decode()) for start, end in pairwise((0, *ends)))
    return list(accumulate(lengths))


def encoded(content: str) -> bytes | None:
    """The bytes of a content; None if it holds lone surrogates, which stand for broken UTF-8."""
    try:
        return content.encode()
    except UnicodeEncodeError:
        return None


def _greedy(data: bytes, pieces: Sequence[Piece]) -> list[int] | None:
    """Every piece takes as much as it will."""
    ends, at = [], 0
    for piece in pieces:
        at = piece.longest(data, at)
        if at < 0:
            return None
        ends.append(at)
    return ends if at == len(data) else None


def _search(data: bytes, pieces: Sequence[Piece]) -> list[int] | None:
    """All readings side by side, those that the first pieces prefer in front; of two that have come
    to the same place only the preferred one goes on."""
    threads = list(_ways(pieces, [(0, pieces[0].start, None)], 0))
    for at, byte in enumerate(data, 1):
        moved = ((n, pieces[n].step(state, byte), way) for n, state, way in threads)
        if at < len(data) and data[at] & 0xC0 == 0x80:  # within a character nothing ends
            threads = [thread for thread in moved if thread[1] != _DEAD]
        else:
            threads = list(_ways(pieces, moved, at))
        if not threads:
            return None
    for number, state, way in threads:
        if number == len(pieces) - 1 and pieces[number].accepts(state):
            ends = [len(data)]
            while way is not None:
                way, end = way
                ends.append(end)
            return ends[::-1]
    return None


def _ways(pieces: Sequence[Piece], threads: Iterable[_Thread], at: int) -> Iterator[_Thread]:
    """The threads that live and, where the piece of one may end, those of the pieces behind it."""
    met: set[tuple[int, int]] = {(number, _DEAD) for number in range(len(pieces))}
    for number, state, way in threads:
        while (number, state) not in met:
            met.add((number, state))
            yield number, state, way
            if number + 1 == len(pieces) or not pieces[number].accepts(state):
                break
            number, state, way = number + 1, pieces[number + 1].start, (way, at)
