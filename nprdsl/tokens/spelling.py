"""What texts cost in tokens: of given bytes, and of the shortest way to end a terminal's value.

A cost is the fewest tokens that spell the bytes. In each state of a terminal's automaton one byte
is fixed as the next one towards the end, so the ending of a later state is the tail of the ending
of an earlier one: tokens that were once put aside for ending stay enough.
"""

from __future__ import annotations

from typing import Final

from nprdsl.regular.dfa import FAR, Dfa, narrowed
from nprdsl.tokens.vocabulary import Vocabulary

NEVER: Final = 1 << 28  # more tokens than any budget: cannot be finished


class Spelling:
    """Costs and endings over one vocabulary, memoised."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._usable_bytes = vocabulary.single_bytes
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
            ending, at, usable = bytearray(), state, self.usable(dfa)
            while at and 0 < dfa.distance[at] < FAR:
                ways = usable if usable.distance[at] < FAR else dfa  # longer tokens may spell it
                ending.append(int(ways.next_byte[at]))
                at = int(dfa.table[at, ending[-1]])
            done = bool(at and dfa.accepting[at]) and self.tokens(bytes(ending)) < NEVER
            self._completions[key] = bytes(ending) if done else None
        return self._completions[key]

    def longest(self, dfa: Dfa) -> int:
        """No ending that `completion` gives takes more tokens than this."""
        if not self._usable_bytes.all():
            return len(dfa.table)
        return int(dfa.distance[dfa.distance < FAR].max(initial=0))

    def ending_bytes(self, dfa: Dfa) -> frozenset[int]:
        """The bytes of all endings that `completion` gives."""
        ways = (dfa, self.usable(dfa))
        return frozenset(byte for way in ways for byte in set(way.next_byte.tolist()))

    def usable(self, dfa: Dfa) -> Dfa:
        """The automaton without the bytes that are no tokens of their own."""
        if self._usable_bytes.all():
            return dfa
        usable = self._narrowed.get(dfa)
        if usable is None:
            usable = self._narrowed[dfa] = narrowed(dfa, self._usable_bytes)
        return usable
