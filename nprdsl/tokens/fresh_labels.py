"""The labels that a list has not used yet: the next one, how many there are, what several cost.

Labels of one list must differ. Those that are left are taken in a fixed order (`Words`), short ones
first, so that a plan to write so many of them stays a plan whatever was written of it; the costs of
finishing a list are those of this plan.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from nprdsl.regular.dfa import Dfa
from nprdsl.regular.words import words_of
from nprdsl.tokens.spelling import NEVER, Spelling

_EXACT: Final = 1024  # labels of which the tokens are counted; of later ones the bytes, no fewer
_KEPT: Final = 64
Taken = frozenset[bytes]


class FreshLabels:
    """The labels of one terminal over one vocabulary. Every label is counted once here, though its
    branch repeats it."""

    def __init__(self, dfa: Dfa, spelling: Spelling) -> None:
        self._dfa = dfa
        self._usable = spelling.usable(dfa)
        self._spelling = spelling
        self._words = words_of(self._usable)
        self._endings: dict[tuple[bytes, Taken], bytes | None] = {}
        self._ranks: dict[bytes, int | None] = {}  # None: bytes of it are no tokens
        self._in_order: dict[Taken, list[bytes]] = {}
        self._by_rank: dict[Taken, list[tuple[int, bytes]]] = {}
        self._totals = [0]  # tokens of the first labels

    def ending(self, prefix: bytes, taken: Taken) -> bytes | None:
        """The shortest ending that makes a label of `prefix` that is not taken."""
        key = (prefix, taken)
        if key not in self._endings:
            self._endings[key] = self._find_ending(prefix, taken)
        return self._endings[key]

    def _find_ending(self, prefix: bytes, taken: Taken) -> bytes | None:
        state, begun = self._spelling.state(self._dfa, prefix), self.begun(prefix, taken)
        if not begun or not state:
            return self._spelling.completion(self._dfa, state)
        used = [label[len(prefix) :] for label in begun if self._rank(label) is not None]
        if self._usable is not self._dfa:  # some may be spelled by tokens across the prefix's end
            accepting, run = self._usable.accepting, self._usable.run
            used = [rest for rest in used if accepting[run(rest, state)]]
        return self._words.first(state, used)

    def may_begin(self, prefix: bytes, taken: Taken) -> bool:
        """Whether some label that is not taken begins so, and a token may end there."""
        if self._usable is self._dfa:
            return self.may_go_on(prefix, taken)
        return self.ending(prefix, taken) is not None

    def may_go_on(self, prefix: bytes, taken: Taken) -> bool:
        """Whether some label that is not taken begins so, perhaps within a token."""
        state, begun = self._spelling.state(self._usable, prefix), self.begun(prefix, taken)
        if not begun or not state:
            return bool(state)
        used = sum(self._rank(label) is not None for label in begun)
        return self._words.size_from(state) > used

    def begun(self, prefix: bytes, taken: Taken) -> list[bytes]:
        """The taken labels that begin so."""
        if taken not in self._in_order:
            if len(self._in_order) >= _KEPT:
                self._in_order.clear()
            self._in_order[taken] = sorted(taken)
        labels = self._in_order[taken]
        first = bisect_left(labels, prefix)
        return labels[first : bisect_left(labels, prefix + b"\xff", first)]  # no label has 0xFF

    def left(self, taken: Taken) -> int:
        """How many labels are not taken."""
        return self._words.size - len(self._used(taken))

    def tokens(self, count: int, taken: Taken, also: bytes | None = None) -> int:
        """The tokens of the first `count` labels that are not taken, nor the one that is `also` to
        be left out; NEVER if there are not as many."""
        if not count:
            return 0
        if count == 1 and not taken and also is None:
            ending = self._spelling.completion(self._dfa, self._dfa.start)
            return NEVER if ending is None else self._spelling.tokens(ending)
        used = self._used(taken)
        rank = None if also is None else self._rank(also)
        if also is not None and rank is not None:
            used = sorted((*used, (rank, also)))
        if count > min(self._words.size - len(used), NEVER):
            return NEVER
        end, before = count, 0  # labels up to the last one meant; tokens of those taken among them
        for rank, label in used:
            if rank >= end:
                break
            end += 1
            before += self._spelling.tokens(label) if rank < _EXACT else len(label)
        return min(self._total(end) - before, NEVER)

    def _used(self, taken: Taken) -> list[tuple[int, bytes]]:
        """The taken labels that tokens can spell byte by byte, by rank."""
        used = self._by_rank.get(taken)
        if used is None:
            if len(self._by_rank) >= _KEPT:
                self._by_rank.clear()
            ranks = ((self._rank(label), label) for label in taken)
            used = sorted((rank, label) for rank, label in ranks if rank is not None)
            self._by_rank[taken] = used
        return used

    def _rank(self, label: bytes) -> int | None:
        if label not in self._ranks:
            known = self._usable.accepts(label)
            self._ranks[label] = self._words.rank(label) if known else None
        return self._ranks[label]

    def _total(self, count: int) -> int:
        """The tokens of the first `count` labels."""
        exact = min(count, _EXACT)
        while len(self._totals) <= exact:
            label = self._words.nth(len(self._totals) - 1)
            self._totals.append(self._totals[-1] + self._spelling.tokens(label))
        if exact == count:
            return self._totals[count]
        longer = self._words.bytes_of_first(count) - self._words.bytes_of_first(exact)
        return self._totals[exact] + longer
