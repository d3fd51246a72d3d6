"""What texts cost in tokens: of given bytes, and of the shortest way to end a terminal's value.

A cost is the fewest tokens that spell the bytes. In each state of a terminal's automaton one byte
is fixed as the next one towards the end, so the ending of a later state is the tail of the ending
of an earlier one: tokens that were once put aside for ending stay enough.

Where bytes are missing among the tokens, only some texts can be spelled: those that consist of the
other bytes and of tokens that hold the missing ones (`bricks`), such as whole Chinese characters.
The automaton is narrowed to these, so that what is alive by bytes is alive by tokens.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import Final

import numpy as np

from nprdsl.regular.dfa import FAR, Dfa, narrowed
from nprdsl.regular.spellable import spellable
from nprdsl.tokens.vocabulary import Vocabulary

NEVER: Final = 1 << 28  # more tokens than any budget: cannot be finished


class Spelling:
    """Costs and endings over one vocabulary, memoised."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._usable_bytes = vocabulary.single_bytes
        self._every_byte = bool(vocabulary.single_bytes.all())
        self._tokens: dict[bytes, int] = {b"": 0}
        self._narrowed: dict[Dfa, Dfa] = {}
        self._completions: dict[tuple[Dfa, int], bytes | None] = {}
        self._states: dict[tuple[Dfa, bytes], int] = {}

    def tokens(self, data: bytes) -> int:
        """The fewest tokens that spell `data`; NEVER if none do."""
        count = self._tokens.get(data)
        if count is None:
            spelled = self.vocabulary.spell(data)
            count = self._tokens[data] = NEVER if spelled is None else len(spelled)
        return count

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
            usable = self.usable(dfa)
            alive = state and usable.distance[state] < FAR
            self._completions[key] = usable.completion(state) if alive else None
        return self._completions[key]

    def longest(self, dfa: Dfa) -> int:
        """No ending that `completion` gives takes more tokens than this."""
        distance = self.usable(dfa).distance
        return int(distance[distance < FAR].max(initial=0))

    def ending_bytes(self, dfa: Dfa) -> frozenset[int]:
        """The bytes of all endings that `completion` gives."""
        return frozenset(self.usable(dfa).next_byte.tolist())

    def usable(self, dfa: Dfa) -> Dfa:
        """The automaton of the texts that tokens spell. Its states are numbered as they were, where
        a token has ended there; behind them come those within a token."""
        if self._every_byte:
            return dfa
        usable = self._narrowed.get(dfa)
        if usable is None:
            taken = np.flatnonzero(dfa.table.any(axis=0)).tolist()
            bricks = [brick for brick in self.bricks if set(taken).issuperset(brick)]
            usable = spellable(dfa, self._usable_bytes, bricks) if bricks else None
            usable = usable or narrowed(dfa, self._usable_bytes)
            self._narrowed[dfa] = usable
        return usable

    @cached_property
    def bricks(self) -> tuple[bytes, ...]:
        """The tokens that hold a byte which is no token of its own, but for those that other tokens
        spell; short ones first."""
        trie, missing = self.vocabulary.trie, np.flatnonzero(~self._usable_bytes).tolist()
        tokens = {int(token) for byte in missing for token in trie.with_byte(byte)}
        bricks: dict[bytes, None] = {}
        for data in sorted(map(trie.bytes_of, tokens), key=lambda data: (len(data), data)):
            if not self._consists_of(data, bricks):
                bricks[data] = None
        return tuple(bricks)

    def _consists_of(self, data: bytes, bricks: Collection[bytes]) -> bool:
        reached = [True] + [False] * len(data)
        for end in range(1, len(data) + 1):
            reached[end] = (reached[end - 1] and bool(self._usable_bytes[data[end - 1]])) or any(
                reached[start] and data[start:end] in bricks for start in range(end - 1)
            )
        return reached[-1]
