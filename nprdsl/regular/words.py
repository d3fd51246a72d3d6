"""The words of an automaton, in order: how many there are, which is the n-th, which is still free.

Short words come first, and of one length those whose bytes are plainer, byte by byte. Words are
counted, never listed: from every state it is known how many words of a length follow, and so a
word of a million taken ones is found in as many steps as it has bytes. Labels of one list must
differ, so masks, costs and examples ask here for the first one that is not taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from nprdsl.regular.dfa import PLAINEST_FIRST, Dfa

ENDLESS: Final = 1 << 62  # more words than are counted


class Words:
    """The words of one automaton. A word of a state is what leads from there to acceptance."""

    def __init__(self, dfa: Dfa) -> None:
        self._dfa = dfa
        self._far: list[int] = dfa.distance.tolist()
        self._moves: dict[int, tuple[tuple[int, int], ...]] = {}
        self._ways: dict[int, dict[int, int]] = {}
        self._sizes: dict[int, int] = {}
        self._counts: dict[tuple[int, int], int] = {}

    # how many

    @property
    def size(self) -> int:
        """How many words there are; ENDLESS if there are more than can be counted."""
        return self.size_from(self._dfa.start)

    def size_from(self, state: int) -> int:
        """How many words a state has; ENDLESS behind a loop."""
        if state not in self._sizes:
            self._measure(state)
        return self._sizes[state]

    def _measure(self, start: int) -> None:
        """The sizes of all states from `start`, those that come last first."""
        sizes, open_states, pending = self._sizes, set[int](), [start]
        while pending:
            state = pending[-1]
            ways = self._ways_from(state)
            new = [t for t in ways if t not in sizes and t not in open_states]
            if state not in sizes and state not in open_states:
                open_states.add(state)
                pending += new
                if new:
                    continue
            pending.pop()
            if state in open_states:
                open_states.remove(state)
                # a way to an open state closes a loop
                total = sum(n * sizes.get(target, ENDLESS) for target, n in ways.items())
                sizes[state] = min(total + int(self._dfa.accepting[state]), ENDLESS)

    def count(self, state: int, length: int) -> int:
        """How many words of `length` bytes a state has, up to ENDLESS."""
        known = self._counts.get((state, length))
        if known is not None:
            return known
        counts, pending = self._counts, [(state, length)]
        while pending:
            key = at, left = pending[-1]
            if key in counts:
                pending.pop()
                continue
            if not left:
                counts[key] = int(self._dfa.accepting[at])
                continue
            ways = self._ways_from(at)
            near = [t for t in ways if self._far[t] < left]
            missing = [(t, left - 1) for t in near if (t, left - 1) not in counts]
            if missing:
                pending += missing
                continue
            counts[key] = min(sum(ways[t] * counts[t, left - 1] for t in near), ENDLESS)
        return counts[state, length]

    def _ways_from(self, state: int) -> dict[int, int]:
        """Where a byte leads from a state, and how many bytes lead there."""
        ways = self._ways.get(state)
        if ways is None:
            ways = self._ways[state] = dict(Counter(self._dfa.table[state].tolist()))
            ways.pop(0, None)
        return ways

    # which

    def first(self, state: int, taken: Sequence[bytes] = ()) -> bytes | None:
        """The first word of a state that is not taken, None if all are; `taken` are some of its
        words, each once."""
        if self.size_from(state) <= len(taken):
            return None
        used = Counter(map(len, taken))
        length = self._far[state]
        while self.count(state, length) <= used[length]:
            length += 1
        left = [word for word in taken if len(word) == length]
        word = bytearray()
        while len(word) < length:
            groups: dict[int, list[bytes]] = {}
            for other in left:
                groups.setdefault(other[len(word)], []).append(other)
            for byte, target in self._moves_from(state):
                left = groups.get(byte, [])
                if self._count_behind(target, length - len(word) - 1) > len(left):
                    word.append(byte)
                    state = target
                    break
        return bytes(word)

    def nth(self, rank: int) -> bytes:
        """The word before which `rank` words come; there must be one."""
        assert 0 <= rank < self.size, "there is no such word"
        state = self._dfa.start
        for length in self._lengths():
            count = self.count(state, length)
            if rank < count:
                break
            rank -= count
        word = bytearray()
        while len(word) < length:
            for byte, target in self._moves_from(state):
                count = self._count_behind(target, length - len(word) - 1)
                if rank < count:
                    word.append(byte)
                    state = target
                    break
                rank -= count
        return bytes(word)

    def rank(self, word: bytes) -> int:
        """How many words come before this one, up to ENDLESS."""
        state, rank = self._dfa.start, 0
        for length in self._lengths():
            if length == len(word) or rank >= ENDLESS:
                break
            rank += self.count(state, length)
        for at, letter in enumerate(word):
            for byte, target in self._moves_from(state):
                if byte == letter:
                    state = target
                    break
                rank += self._count_behind(target, len(word) - at - 1)
        return min(rank, ENDLESS)

    def bytes_of_first(self, count: int) -> int:
        """The bytes of the first `count` words together; there must be as many."""
        total = 0
        for length in self._lengths():
            here = min(self.count(self._dfa.start, length), count)
            total += here * length
            count -= here
            if not count:
                break
        return total

    def _count_behind(self, state: int, length: int) -> int:
        return self.count(state, length) if self._far[state] <= length else 0

    def _lengths(self) -> Iterator[int]:
        """The lengths that words may have, and some between them."""
        length = self._far[self._dfa.start]
        while True:
            yield length
            length += 1

    def _moves_from(self, state: int) -> tuple[tuple[int, int], ...]:
        """The bytes that may come next and where they lead, the plainest first."""
        moves = self._moves.get(state)
        if moves is None:
            row = self._dfa.table[state].tolist()
            moves = self._moves[state] = tuple((b, row[b]) for b in PLAINEST_FIRST if row[b])
        return moves


@lru_cache(maxsize=256)
def words_of(dfa: Dfa) -> Words:
    """The words of an automaton; what was counted is kept."""
    return Words(dfa)
