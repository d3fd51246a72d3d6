"""What texts cost in tokens: of given bytes, and of the shortest way to end a terminal's value.

A cost is the fewest tokens that spell the bytes. In each state of a terminal's automaton one byte
is fixed as the next one towards the end, so the ending of a later state is the tail of the ending
of an earlier one: tokens that were once put aside for ending stay enough.
"""

from __future__ import annotations

from collections import deque
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nprdsl.regular.dfa import Dfa, utf8_dfa
from nprdsl.tokens.vocabulary import Vocabulary

NEVER: Final = 1 << 28  # more tokens than any budget: cannot be finished


class Spelling:
    """Costs and endings over one vocabulary, memoised."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._usable_bytes = vocabulary.single_bytes
        self._tokens: dict[bytes, int] = {b"": 0}
        self._endings: dict[Dfa, NDArray[np.int16]] = {}
        self._completions: dict[tuple[Dfa, int], bytes | None] = {}
        self._fresh: dict[tuple[Dfa, bytes, frozenset[bytes]], bytes | None] = {}
        self._states: dict[tuple[Dfa, bytes], int] = {}

    def tokens(self, data: bytes) -> int:
        """The fewest tokens that spell `data`; NEVER if none do."""
        count = self._tokens.get(data)
        if count is None:
            spelled = self.vocabulary.spell(data)
            count = self._tokens[data] = NEVER if spelled is None else len(spelled)
        return count

    @cached_property
    def filler(self) -> int:
        """The tokens of the shortest text that is not blank: 1 in any usable vocabulary."""
        ids = range(self.vocabulary.size)
        return 1 if any(self.vocabulary.bytes_of(token).strip() for token in ids) else NEVER

    def utf8_tail(self, state: int) -> int:
        """The tokens that finish a character begun, from a state of the UTF-8 automaton."""
        ending = self.completion(utf8_dfa(), state)
        return NEVER if ending is None else self.tokens(ending)

    def state(self, dfa: Dfa, data: bytes) -> int:
        """The state behind `data`; 0 if it is not a prefix of anything accepted."""
        key = (dfa, data)
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = dfa.run(data)
        return state

    def completion(self, dfa: Dfa, state: int) -> bytes | None:
        """The shortest ending that the vocabulary spells; None if there is none."""
        key = (dfa, state)
        if key not in self._completions:
            ending, at, tree = bytearray(), state, self._ending(dfa)
            while at and not dfa.accepting[at] and tree[at] >= 0:
                ending.append(int(tree[at]))
                at = int(dfa.table[at, tree[at]])
            done = bool(at) and bool(dfa.accepting[at]) and self.tokens(bytes(ending)) < NEVER
            self._completions[key] = bytes(ending) if done else None
        return self._completions[key]

    def longest(self, dfa: Dfa) -> int:
        """No ending that `completion` gives takes more tokens than this."""
        if not self._usable_bytes.all():
            return len(dfa.table)
        return int(dfa.distance[1:].max(initial=0))  # state 0 is dead

    def fresh(self, dfa: Dfa, prefix: bytes, taken: frozenset[bytes]) -> bytes | None:
        """The shortest ending of `prefix` that makes a label not in `taken`."""
        key = (dfa, prefix, taken)
        if key not in self._fresh:
            self._fresh[key] = self._find_fresh(dfa, prefix, taken)
        return self._fresh[key]

    def _find_fresh(self, dfa: Dfa, prefix: bytes, taken: frozenset[bytes]) -> bytes | None:
        state = self.state(dfa, prefix)
        if not state:
            return None
        if not any(label.startswith(prefix) for label in taken):
            return self.completion(dfa, state)
        queue = deque([(b"", state)])
        looked = 0
        while queue and looked < 4096:
            ending, at = queue.popleft()
            looked += 1
            if dfa.accepting[at] and prefix + ending not in taken and self.tokens(ending) < NEVER:
                return ending
            for byte in np.flatnonzero(dfa.table[at] * self._usable_bytes):
                queue.append((ending + bytes((int(byte),)), int(dfa.table[at, byte])))
        return None

    def _ending(self, dfa: Dfa) -> NDArray[np.int16]:
        """The next byte towards acceptance for every state, of bytes that the vocabulary has."""
        if dfa not in self._endings:
            usable = bool(self._usable_bytes.all())
            self._endings[dfa] = dfa.next_byte if usable else self._spellable_tree(dfa)
        return self._endings[dfa]

    def _spellable_tree(self, dfa: Dfa) -> NDArray[np.int16]:
        """`dfa.next_byte` recomputed over the usable bytes; kept as it is where they do not
        suffice."""
        tree = dfa.next_byte.copy()
        known = dfa.accepting.copy()
        columns = np.flatnonzero(self._usable_bytes)
        moves = dfa.table[:, columns]
        while True:
            ways = known[moves] & (moves != 0)
            new = ways.any(axis=1) & ~known
            new[0] = False
            if not new.any():
                return tree
            tree[new] = columns[ways[new].argmax(axis=1)]
            known |= new
