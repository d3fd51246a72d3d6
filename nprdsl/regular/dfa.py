"""Deterministic automata over bytes, compiled from regexes in Python syntax.

A `Dfa` has no state that cannot lead to acceptance, so a walk that is alive can always be finished;
`distance` and `next_byte` say how. It accepts exactly what `re.fullmatch(pattern, text, re.ASCII)`
does, and only valid UTF-8.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nprdsl.regular.positions import END, Positions, bits, positions
from nprdsl.regular.syntax import STATE_LIMIT, RegexError

__all__ = ["Dfa", "RegexError", "beyond", "compile_regex", "utf8_dfa", "whitespace_loop"]

WHITESPACE = b" \t\n\r\f\v"
_BYTES = (1 << 256) - 1


@dataclass(frozen=True, eq=False, slots=True)
class Dfa:
    """`table[state, byte]` is the next state, 0 the dead one; every live state reaches acceptance.

    `distance[state]` is the least number of bytes to acceptance and `next_byte[state]` the first of
    them (-1 where the state accepts): following it leads along one shortest completion.
    """

    table: NDArray[np.int32]  # (S, 256)
    start: int
    accepting: NDArray[np.bool_]  # (S,)
    distance: NDArray[np.int32]  # (S,)
    next_byte: NDArray[np.int16]  # (S,)

    def run(self, text: bytes, state: int | None = None) -> int:
        """The state after `text` from `state` (default: the start)."""
        state = self.start if state is None else state
        for byte in text:
            state = int(self.table[state, byte])
        return state

    def accepts(self, text: bytes) -> bool:
        return bool(self.accepting[self.run(text)])

    def completion(self, state: int | None = None) -> bytes:
        """The shortest bytes from `state` (default: the start; not the dead one) to acceptance."""
        state = self.start if state is None else state
        found = bytearray()
        while not self.accepting[state]:
            found.append(int(self.next_byte[state]))
            state = int(self.table[state, found[-1]])
        return bytes(found)


FAR = int(np.iinfo(np.int32).max)  # the distance of the dead state


@lru_cache(maxsize=512)
def compile_regex(pattern: str) -> Dfa:
    """The automaton of `pattern`, read with `re.ASCII`: `\\d`, `\\w`, `\\s`, `(?i)` are ASCII.

    Raises RegexError for a pattern that is malformed, not regular (lookaround, backreferences,
    anchors inside), needs more than 20,000 states, or matches nothing.
    """
    return _trimmed(pattern, *_determinise(pattern, positions(pattern)))


@lru_cache(maxsize=1)
def utf8_dfa() -> Dfa:
    """All valid UTF-8: the start accepts, the seven other live states are inside a character."""
    return compile_regex(r"(?s:.*)")


def _determinise(pattern: str, regex: Positions) -> tuple[list[list[int]], list[bool], list[int]]:
    """Subset construction. A state is the set of positions that may come next.

    Returns per state its targets by byte class, whether it accepts, and the classes as byte sets.
    """
    matching: dict[int, int] = {}
    for place, members in enumerate(regex.bytes):
        if members:
            matching[members] = matching.get(members, 0) | 1 << place
    classes = _byte_classes(matching)
    # (positions that take a byte of the set, the classes that make up the set)
    groups = [
        (places, [c for c, members in enumerate(classes) if members & taken])
        for taken, places in matching.items()
    ]
    number = {0: 0, regex.first: 1}
    states = [0, regex.first]
    rows: list[list[int]] = [[0] * len(classes)]
    known: dict[int, int] = {}
    while len(rows) < len(states):
        targets = [0] * len(classes)
        for places, hit in groups:
            here = states[len(rows)] & places
            if not here:
                continue
            if here not in known:
                known[here] = _union(regex.follow, here)
            for c in hit:
                targets[c] |= known[here]
        for target in targets:
            if target not in number:
                number[target] = len(states)
                states.append(target)
        if len(states) > STATE_LIMIT:
            raise RegexError(
                f"the regex needs more than {STATE_LIMIT:,} states; use smaller counts in "
                "`{m,n}`, or make the alternatives differ earlier",
                pattern,
            )
        rows.append([number[target] for target in targets])
    return rows, [bool(state & END) for state in states], classes


def _union(sets: tuple[int, ...], members: int) -> int:
    whole = 0
    for member in bits(members):
        whole |= sets[member]
    return whole


def _byte_classes(byte_sets: Iterable[int]) -> list[int]:
    """The coarsest partition of the bytes of which every set is a union."""
    classes = [_BYTES]
    for members in byte_sets:
        parts = ((c & members, c & ~members) for c in classes)
        classes = [part for pair in parts for part in pair if part]
    return classes


def _trimmed(pattern: str, rows: list[list[int]], accepts: list[bool], classes: list[int]) -> Dfa:
    """Drop the states that cannot accept, and find the shortest way out of the others."""
    sources: list[list[int]] = [[] for _ in rows]
    for state, row in enumerate(rows):
        for target in set(row):
            sources[target].append(state)
    distance = [FAR] * len(rows)
    queue = deque(state for state, accept in enumerate(accepts) if accept)
    for state in queue:
        distance[state] = 0
    while queue:
        target = queue.popleft()
        for source in sources[target]:
            if distance[source] == FAR:
                distance[source] = distance[target] + 1
                queue.append(source)
    if distance[1] == FAR:
        raise RegexError("the regex matches nothing; check its classes", pattern)
    kept = [0, *(state for state in range(1, len(rows)) if distance[state] != FAR)]
    number = np.zeros(len(rows), dtype=np.int32)
    number[kept] = np.arange(len(kept))
    class_of = np.zeros(256, dtype=np.intp)
    for c, members in enumerate(classes):
        class_of[_members(members)] = c
    letters = [_plainest(members) for members in classes]
    next_byte = np.full(len(kept), -1, dtype=np.int16)
    for i, state in enumerate(kept):
        if 0 < distance[state] < FAR:
            closer = (c for c, t in enumerate(rows[state]) if distance[t] < distance[state])
            next_byte[i] = min((letters[c] for c in closer), key=_plainness)
    return Dfa(
        table=np.ascontiguousarray(number[np.array(rows, dtype=np.intp)[kept]][:, class_of]),
        start=1,
        accepting=np.array(accepts)[kept],
        distance=np.array(distance, dtype=np.int32)[kept],
        next_byte=next_byte,
    )


def _members(members: int) -> list[int]:
    packed = np.frombuffer(members.to_bytes(32, "little"), dtype=np.uint8)
    found: list[int] = np.unpackbits(packed, bitorder="little").nonzero()[0].tolist()
    return found


def _plainness(byte: int) -> tuple[bool, bool, bool, int]:
    """Order of preference for a completion: letters and digits, other visible ones, the blank."""
    visible = 0x21 <= byte <= 0x7E
    return (not (visible and chr(byte).isalnum()), not visible, byte != 0x20, byte)


def _plainest(members: int) -> int:
    return min(_members(members), key=_plainness)


def whitespace_loop(dfa: Dfa) -> bytes | None:
    """Shortest witness of unbounded white space: bytes that lead into a loop, and one turn of it.

    A loop counts when white space alone keeps the automaton in it, as in `,\\s*[0-9]`. Free content
    that merely may hold white space, such as `[^"]*`, has no such loop. None where there is none.
    """
    blank = dfa.table[:, list(WHITESPACE)]
    looping = _on_cycles(blank)
    if not looping.any():
        return None
    witnesses: list[bytes] = []
    for state in looping.nonzero()[0].tolist():
        if _holds_content(dfa.table, blank, state):
            continue
        turn = _path(dfa.table, state, state, WHITESPACE)
        lead = _path(dfa.table, dfa.start, state, _PLAINEST_FIRST) if state != dfa.start else b""
        if turn is not None and lead is not None:
            witnesses.append(lead + turn)
    return min(witnesses, key=lambda w: (len(w), w), default=None)


_EVERY_BYTE: list[int] = sorted(range(256), key=_plainness)
_PLAINEST_FIRST = bytes(_EVERY_BYTE)


def beyond(dfa: Dfa, other: Dfa) -> bytes | None:
    """The shortest text that `dfa` accepts and `other` does not, or None where there is none."""
    queue = deque([(dfa.start, other.start, b"")])
    seen = {(dfa.start, other.start)}
    best: bytes | None = None
    while queue:
        state, twin, text = queue.popleft()
        if best is not None and len(text) + dfa.distance[state] >= len(best):
            continue
        if twin == 0 or (dfa.accepting[state] and not other.accepting[twin]):
            best = text + (dfa.completion(state) if twin == 0 else b"")
            continue
        both = dfa.table[state].astype(np.int64) << 32 | other.table[twin]
        joint, first = np.unique(both[_EVERY_BYTE], return_index=True)
        for pair, at in zip(joint.tolist(), first.tolist(), strict=True):
            target = (pair >> 32, pair & 0xFFFFFFFF)
            if target[0] and target not in seen:
                seen.add(target)
                queue.append((*target, text + _PLAINEST_FIRST[at : at + 1]))
    return best


def _on_cycles(follow: NDArray[np.int32]) -> NDArray[np.bool_]:
    """States left when those without a successor or predecessor are taken away again and again."""
    left = np.ones(len(follow), dtype=bool)
    left[0] = False
    while True:
        inside = left[follow] & left[:, None]
        entered = np.zeros_like(left)
        entered[follow[inside]] = True
        kept = inside.any(axis=1) & entered
        if (kept == left).all():
            return left
        left = kept


def _holds_content(table: NDArray[np.int32], blank: NDArray[np.int32], state: int) -> bool:
    """Whether another byte than white space leads back into the white-space loop of `state`."""
    after = _reached(blank, state)
    loop = [s for s in after if state in _reached(blank, s)]
    other = np.delete(table, list(WHITESPACE), axis=1)[loop]
    return bool(np.isin(other, loop).any())


def _reached(follow: NDArray[np.int32], state: int) -> set[int]:
    found: set[int] = set()
    queue = [state]
    while queue:
        for target in set(follow[queue.pop()].tolist()) - found - {0}:
            found.add(target)
            queue.append(target)
    return found


def _path(table: NDArray[np.int32], origin: int, goal: int, alphabet: bytes) -> bytes | None:
    """Fewest bytes of `alphabet`, at least one, from `origin` to `goal`."""
    queue = deque([(origin, b"")])
    seen: set[int] = set()
    while queue:
        state, text = queue.popleft()
        row = table[state]
        for byte in alphabet:
            target = int(row[byte])
            if target == goal:
                return text + bytes([byte])
            if target and target not in seen:
                seen.add(target)
                queue.append((target, text + bytes([byte])))
    return None
