"""Values without tags: a tag is found wherever its text stands, so no value can hold one.

The automaton of a pattern is run side by side with the search for tags, and stops where that finds
one. Which labels are left, and how many, is asked of what remains.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nprdsl.regular.aho_corasick import ROOT
from nprdsl.regular.dfa import FAR, Dfa, compile_regex, narrowed
from nprdsl.regular.tag_scan import tag_scan

_EVERY_BYTE = np.ones(256, np.bool_)


@lru_cache(maxsize=512)
def tag_free(pattern: str, tags: tuple[str, ...]) -> Dfa:
    """The automaton of the values of `pattern` that hold no tag; its start is dead (`distance` FAR)
    where all hold one. Raises RegexError as `compile_regex` does."""
    dfa = compile_regex(pattern)
    used = set(np.flatnonzero(dfa.table.any(axis=0)).tolist())
    if not any(used.issuperset(tag.encode()) for tag in tags):
        return dfa
    return _beside(dfa, tag_scan(tags).table)


def _beside(dfa: Dfa, scan: NDArray[np.int32]) -> Dfa:
    """The automaton as far as the other one, [nodes, 256] with 0 for the end, goes along."""
    first = (dfa.start, ROOT + 1)
    number, pending = {first: 1}, [first]
    rows = [np.zeros(256, np.int32)]
    for state, node in pending:  # grows on the way
        moves, nodes = dfa.table[state], scan[node]
        alive = np.flatnonzero((moves != 0) & (nodes != 0))
        row = np.zeros(256, np.int32)
        for byte in alive.tolist():
            place = int(moves[byte]), int(nodes[byte])
            if place not in number:
                number[place] = len(number) + 1
                pending.append(place)
            row[byte] = number[place]
        rows.append(row)
    accepting = np.array([False, *(bool(dfa.accepting[state]) for state, _ in pending)])
    unmeasured = np.zeros(len(rows), np.int32)
    beside = Dfa(np.stack(rows), 1, accepting, unmeasured, unmeasured.astype(np.int16))
    return narrowed(beside, _EVERY_BYTE)


def has_values(dfa: Dfa) -> bool:
    """Whether anything is left of it."""
    return int(dfa.distance[dfa.start]) < FAR
