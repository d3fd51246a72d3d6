"""The automaton of the texts that can be put together from given pieces.

An automaton over bytes, the bytes that are pieces of their own, and longer pieces go in; the
automaton of those of its texts that consist of pieces comes out. Vocabularies without single bytes
for some characters need it: what is alive by bytes may be dead by tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nprdsl.regular.dfa import FAR, Dfa, narrowed

STATE_LIMIT: Final = 20_000
_Node = dict[int, int]  # of the trie of pieces: where a byte leads
_State = tuple[int, frozenset[int]]  # of the automaton, and the nodes that a piece may be at
_BETWEEN: Final = frozenset((0,))  # at the root: between two pieces


def spellable(dfa: Dfa, single: NDArray[np.bool_], pieces: Iterable[bytes]) -> Dfa | None:
    """The automaton of the texts of `dfa` that consist of `single` bytes, bool [256], and `pieces`;
    None if it is too large.

    Its first states are those of `dfa`, between two pieces; those that are dead now (`distance`
    FAR) are among them.
    """
    trie, ends = _trie(pieces)
    states: list[_State] = [(state, _BETWEEN) for state in range(len(dfa.table))]
    number = {state: n for n, state in enumerate(states)}
    rows: list[NDArray[np.int32]] = []
    for state, nodes in states:  # grows on the way
        row = np.zeros(256, np.int32)
        if 0 in nodes:
            row[single] = dfa.table[state, single]  # numbered as they were
        moves = dfa.table[state].tolist()
        for byte in {byte for node in nodes for byte in trie[node] if moves[byte]}:
            led = {trie[node][byte] for node in nodes if byte in trie[node]}
            inside = {node for node in led if trie[node]}
            if (0 in nodes and single[byte]) or not led.isdisjoint(ends):
                inside.add(0)
            after = (moves[byte], frozenset(inside))
            if after not in number:
                number[after] = len(states)
                states.append(after)
            row[byte] = number[after]
        if len(states) > STATE_LIMIT:
            return None
        rows.append(row)
    accepting = np.array([bool(dfa.accepting[state]) and 0 in at for state, at in states])
    unknown = np.full(len(states), FAR, np.int32)
    whole = Dfa(np.array(rows), dfa.start, accepting, unknown, unknown.astype(np.int16))
    return narrowed(whole, np.ones(256, bool))


def _trie(pieces: Iterable[bytes]) -> tuple[list[_Node], set[int]]:
    """The nodes of the trie, the root first, and those where a piece ends."""
    trie: list[_Node] = [{}]
    ends: set[int] = set()
    for piece in pieces:
        node = 0
        for byte in piece:
            if byte not in trie[node]:
                trie[node][byte] = len(trie)
                trie.append({})
            node = trie[node][byte]
        ends.add(node)
    return trie, ends
