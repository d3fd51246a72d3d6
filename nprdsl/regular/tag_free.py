"""Values without tags: a tag is found wherever its text stands, so no value can hold one.

The automaton of a pattern is run side by side with the search for tags, and stops where that finds
one. Which labels are left, and how many, is asked of what remains.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from nprdsl.regular.aho_corasick import ROOT
from nprdsl.regular.dfa import FAR, Dfa, compile_regex, narrowed
from nprdsl.regular.tag_scan import TagScan, tag_scan

_EVERY_BYTE = np.ones(256, np.bool_)
Nodes = frozenset[tuple[int, int]]  # for each surrounding, a node of the tag scanner


@lru_cache(maxsize=512)
def tag_free(pattern: str, tags: tuple[str, ...]) -> Dfa:
    """The automaton of the values of `pattern` that hold no tag; its start is dead (`distance` FAR)
    where all hold one. Raises RegexError as `compile_regex` does."""
    dfa = compile_regex(pattern)
    used = set(np.flatnonzero(dfa.table.any(axis=0)).tolist())
    if not any(used.issuperset(tag.encode()) for tag in tags):
        return dfa
    return tag_free_among(dfa, tag_scan(tags), frozenset({(0, ROOT)}), lambda nodes: True)


def tag_free_among(dfa: Dfa, scan: TagScan, begin: Nodes, may_end: Callable[[Nodes], bool]) -> Dfa:
    """The automaton of the values that complete no tag in any of several surroundings: `begin` are
    the nodes that the search for tags has reached before the value, `may_end` tells of those that
    it has reached behind a value whether that may stand there. `dfa` itself where it has no other
    values."""
    first = (dfa.start, begin)
    number, pending = {first: 1}, [first]
    rows = [np.zeros(256, np.int32)]
    for state, nodes in pending:  # grows on the way
        around = tuple(nodes)
        ways = np.stack([dfa.table[state], *(scan.table[node + 1] for _, node in around)])
        row = np.zeros(256, np.int32)
        targets: dict[tuple[int, ...], int] = {}
        for byte in np.flatnonzero(ways.all(axis=0)).tolist():
            way = tuple(ways[:, byte].tolist())
            if way not in targets:
                led = frozenset((at, to - 1) for (at, _), to in zip(around, way[1:], strict=True))
                place = (way[0], led)
                if place not in number:
                    number[place] = len(number) + 1
                    pending.append(place)
                targets[way] = number[place]
            row[byte] = targets[way]
        rows.append(row)
    accepting = np.array([False, *(bool(dfa.accepting[s]) and may_end(n) for s, n in pending)])
    states = [0, *(state for state, _ in pending)]
    kept = (np.stack(rows) != 0) == (dfa.table[states] != 0)
    if kept.all() and (accepting == dfa.accepting[states]).all():
        return dfa
    unmeasured = np.zeros(len(rows), np.int32)
    beside = Dfa(np.stack(rows), 1, accepting, unmeasured, unmeasured.astype(np.int16))
    return narrowed(beside, _EVERY_BYTE)


def has_values(dfa: Dfa) -> bool:
    """Whether anything is left of it."""
    return int(dfa.distance[dfa.start]) < FAR
