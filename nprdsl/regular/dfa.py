"""Regular expressions to deterministic automata over bytes, and questions about these.

An automaton accepts exactly what `re.fullmatch(pattern, text, re.ASCII)` does, and only valid
UTF-8. None of its states is a dead end, so a walk that is alive can always be finished; `distance`
and `next_byte` say how. On the way there, the regex becomes an automaton of its positions (Glushkov
1961): a position is one place of the regex that takes a byte, and the sets of positions that may
come next are the states (subset construction).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import or_
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nprdsl.regular.codepoints import ByteTree, byte_tree
from nprdsl.regular.syntax import (
    STATE_LIMIT,
    TOO_LARGE,
    Chars,
    Concat,
    Regex,
    RegexError,
    Times,
    Union,
    parse,
)

WHITESPACE = b" \t\n\r\f\v"
FAR = int(np.iinfo(np.int32).max)  # the distance of the dead state
_BYTES = (1 << 256) - 1
_END = 1  # the bit of position 0, which stands for the end of the text
_MOST_PAIRS: Final = 500_000  # of positions and what is put behind them


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
        state, moves = self.start if state is None else state, self.table.reshape(-1).data
        for byte in text:
            state = moves[state << 8 | byte]
        return int(state)

    def accepts(self, text: bytes) -> bool:
        return bool(self.accepting[self.run(text)])

    def completion(self, state: int | None = None) -> bytes:
        """The shortest bytes from `state` (default: the start; not the dead one) to acceptance."""
        state = self.start if state is None else state
        completion = bytearray()
        while not self.accepting[state]:
            completion.append(int(self.next_byte[state]))
            state = int(self.table[state, completion[-1]])
        return bytes(completion)


def compile_regex(pattern: str) -> Dfa:
    """The automaton of `pattern`, read with `re.ASCII`: `\\d`, `\\w`, `\\s`, `(?i)` are ASCII.

    Raises RegexError for a pattern that is malformed, not regular (lookaround, backreferences,
    anchors inside), needs more than 20,000 states, has too many ways to be read, or matches
    nothing.
    """
    found = _automaton(pattern)
    if isinstance(found, RegexError):
        raise RegexError(found.message, pattern, found.position)
    return found


@lru_cache(maxsize=512)
def _automaton(pattern: str) -> Dfa | RegexError:
    """The automaton, or why there is none: what takes long to refuse is refused once."""
    try:
        return _trimmed(pattern, *_determinise(pattern, _Glushkov(pattern)))
    except RegexError as error:
        return error.with_traceback(None)


@lru_cache(maxsize=512)
def one_text(text: str) -> Dfa:
    """The automaton of one text alone, the same that `compile_regex` makes of it, at less cost."""
    data = np.frombuffer(text.encode(), np.uint8)
    states = np.arange(1, len(data) + 2)
    table = np.zeros((len(data) + 2, 256), np.int32)
    table[states[:-1], data] = states[1:]
    left = len(data) + 1 - states
    return Dfa(
        table=table,
        start=1,
        accepting=np.append(False, left == 0),
        distance=np.append(FAR, left).astype(np.int32),
        next_byte=np.concatenate(([-1], data, [-1])).astype(np.int16),
    )


def narrowed(dfa: Dfa, allowed: NDArray[np.bool_]) -> Dfa:
    """The automaton of the words that consist of allowed bytes, bool [256]; its states are numbered
    as they were, those that are dead now (`distance` FAR) among them."""
    columns = [byte for byte in PLAINEST_FIRST if allowed[byte]]
    moves = dfa.table[:, columns]
    distance = np.where(dfa.accepting, 0, FAR).astype(np.int32)
    next_byte = np.full(len(distance), -1, dtype=np.int16)
    steps, known = 0, dfa.accepting.copy()
    while True:
        ways = known[moves] & ~known[:, None]
        new = ways.any(axis=1)
        if not new.any():
            break
        steps += 1
        distance[new], next_byte[new] = steps, np.take(columns, ways[new].argmax(axis=1))
        known |= new
    table = np.zeros_like(dfa.table)
    table[:, columns] = np.where(known[moves], moves, 0)
    return Dfa(table, dfa.start, dfa.accepting, distance, next_byte)


# -- positions ----------------------------------------------------------------------------------


def _bits(members: int) -> Iterator[int]:
    """The members of a set that is written as the bits of an integer, ascending."""
    while members:
        low = members & -members
        yield low.bit_length() - 1
        members ^= low


class _Fragment(NamedTuple):
    """A part of a regex: can it be empty, and which positions begin and end it."""

    nullable: bool
    first: int
    last: int


_EMPTY = _Fragment(True, 0, 0)


class _Glushkov:
    """`first` and `follow[p]` are sets of positions, `bytes[p]` of bytes, written as bits."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.bytes, self.follow = [0], [0]
        self.pairs = 0
        whole = self.part(parse(pattern))
        for position in _bits(whole.last):
            self.follow[position] |= _END
        self.first = whole.first | (_END if whole.nullable else 0)

    def part(self, regex: Regex) -> _Fragment:
        match regex:
            case Chars(ranges=ranges):
                return self.characters(byte_tree(ranges))
            case Concat(parts=parts):
                whole = _EMPTY
                for part in parts:
                    whole = self.join(whole, self.part(part))
                return whole
            case Union(options=options):
                return _either(self.part(option) for option in options)
            case Times():
                return self.repeat(regex)

    def repeat(self, regex: Times) -> _Fragment:
        inner, low, high = regex.regex, regex.low, regex.high
        rest = _EMPTY
        if high is None and low == 0:
            rest = _optional(self.loop(self.part(inner)))
        elif high is not None:
            # x{0,3} is (x(x(x)?)?)?, which keeps every `follow` small
            for _ in range(high - low):
                rest = _optional(self.join(self.part(inner), rest))
        whole = _EMPTY
        for copy in range(low):
            part = self.part(inner)
            last = high is None and copy == low - 1
            whole = self.join(whole, self.loop(part) if last else part)
        return self.join(whole, rest)

    def characters(self, tree: ByteTree) -> _Fragment:
        return _either(
            self.join(self.characters(before), self.leaf(last)) if before else self.leaf(last)
            for before, last in tree
        )

    def leaf(self, members: int) -> _Fragment:
        if len(self.bytes) > STATE_LIMIT:
            raise RegexError(TOO_LARGE, self.pattern)
        self.bytes.append(members)
        self.follow.append(0)
        position = 1 << len(self.bytes) - 1
        return _Fragment(False, position, position)

    def join(self, left: _Fragment, right: _Fragment) -> _Fragment:
        self.behind(left, right)
        return _Fragment(
            left.nullable and right.nullable,
            left.first | right.first if left.nullable else left.first,
            left.last | right.last if right.nullable else right.last,
        )

    def loop(self, part: _Fragment) -> _Fragment:
        self.behind(part, part)
        return part

    def behind(self, left: _Fragment, right: _Fragment) -> None:
        self.pairs += left.last.bit_count()
        if self.pairs > _MOST_PAIRS:
            raise RegexError(TOO_LARGE, self.pattern)
        for position in _bits(left.last):
            self.follow[position] |= right.first


def _either(options: Iterable[_Fragment]) -> _Fragment:
    nullable, first, last = False, 0, 0
    for option in options:
        nullable |= option.nullable
        first |= option.first
        last |= option.last
    return _Fragment(nullable, first, last)


def _optional(part: _Fragment) -> _Fragment:
    return part._replace(nullable=True)


# -- states -------------------------------------------------------------------------------------


_JOINED_LIMIT: Final = 2_000_000  # positions, of all states together: a second or two


def _determinise(pattern: str, regex: _Glushkov) -> tuple[list[list[int]], list[bool], list[int]]:
    """Subset construction. A state is the set of positions that may come next.

    Returns per state its targets by byte class, whether it accepts, and the classes as byte sets.
    """
    matching: dict[int, int] = {}
    for position, members in enumerate(regex.bytes):
        if members:
            matching[members] = matching.get(members, 0) | 1 << position
    classes = _byte_classes(matching)
    # (positions that take a byte of the set, the classes that make up the set)
    groups = [
        (positions, [c for c, members in enumerate(classes) if members & taken])
        for taken, positions in matching.items()
    ]
    number = {0: 0, regex.first: 1}
    states = [0, regex.first]
    rows: list[list[int]] = [[0] * len(classes)]
    known: dict[int, int] = {}
    joined = 0
    while len(rows) < len(states):
        targets = [0] * len(classes)
        for positions, hit in groups:
            here = states[len(rows)] & positions
            if not here:
                continue
            if here not in known:
                joined += here.bit_count()
                known[here] = reduce(or_, (regex.follow[position] for position in _bits(here)))
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
        if joined > _JOINED_LIMIT:
            raise RegexError(
                "the regex can be read in too many ways; use smaller counts in `{m,n}`, and none "
                "of what has a count itself",
                pattern,
            )
        rows.append([number[target] for target in targets])
    return rows, [bool(state & _END) for state in states], classes


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
    data = b"".join(members.to_bytes(32, "little") for members in classes)
    holds = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").reshape(-1, 256)
    letters = [PLAINEST_FIRST[first] for first in holds[:, _EVERY_BYTE].argmax(axis=1)]
    moves = number[np.array(rows, dtype=np.intp)[kept]]
    next_byte = np.full(len(kept), -1, dtype=np.int16)
    for i, state in enumerate(kept):
        if 0 < distance[state] < FAR:
            closer = (c for c, t in enumerate(rows[state]) if distance[t] < distance[state])
            next_byte[i] = min((letters[c] for c in closer), key=_plainness)
    return Dfa(
        table=np.ascontiguousarray(moves[:, holds.argmax(axis=0)]),
        start=1,
        accepting=np.array(accepts)[kept],
        distance=np.array(distance, dtype=np.int32)[kept],
        next_byte=next_byte,
    )


def _plainness(byte: int) -> tuple[bool, bool, bool, int]:
    """Order of preference for a completion: letters and digits, other visible ones, the blank."""
    visible = 0x21 <= byte <= 0x7E
    return (not (visible and chr(byte).isalnum()), not visible, byte != 0x20, byte)


# -- questions ----------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def may_be_blank(pattern: str) -> bool:
    """Whether a pattern accepts white space alone. Raises RegexError as `compile_regex` does."""
    dfa = compile_regex(pattern)
    states = {dfa.start: None}
    for state in (queue := [dfa.start]):
        after = np.unique(dfa.table[state, list(WHITESPACE)]).tolist()
        new = [one for one in after if one and one not in states]
        states.update(dict.fromkeys(new))
        queue += new
    return bool(dfa.accepting[list(states)].any())


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
        lead = _path(dfa.table, dfa.start, state, PLAINEST_FIRST) if state != dfa.start else b""
        if turn is not None and lead is not None:
            witnesses.append(lead + turn)
    return min(witnesses, key=lambda w: (len(w), w), default=None)


_EVERY_BYTE: list[int] = sorted(range(256), key=_plainness)
PLAINEST_FIRST = bytes(_EVERY_BYTE)


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
    other = np.delete(table[loop], list(WHITESPACE), axis=1)
    return bool(np.isin(other, loop).any())


def _reached(follow: NDArray[np.int32], state: int) -> set[int]:
    reached: set[int] = set()
    queue = [state]
    while queue:
        new = set(follow[queue.pop()].tolist()) - reached - {0}
        reached |= new
        queue.extend(new)
    return reached


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


# All valid UTF-8: the start accepts, the seven other live states are inside a character.
UTF8: Final = compile_regex(r"(?s:.*)")
