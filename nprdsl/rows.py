"""Token masks: which tokens may come next, one packed row for each local state.

A row is int32 [ceil(V/32)], bit i%32 of word i//32 is token i. In free text almost every token is
legal, so its row is the row of valid UTF-8 with the few tokens corrected that touch a tag;
elsewhere few tokens are legal and are found by walking prefixes. A token that runs past the end of
a tag is decided by what follows there: it is kept apart as a `Crossing`.
Non-goals: budgets (see `nprdsl.tightness`), what follows a tag (see `nprdsl.automaton`).
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nprdsl.fields import (
    BLANK_BYTES,
    AnyGluePart,
    Chain,
    FieldMachine,
    FreshPart,
    LiteralPart,
    Local,
    RegularPart,
    TagMode,
    TagPart,
    TextPart,
    text_of,
)
from nprdsl.regular import utf8_dfa
from nprdsl.spelling import NEVER
from nprdsl.structure import END
from nprdsl.vocabulary import Vocabulary

Row = NDArray[np.int32]
_WIDE: Final = 64  # tokens: where more share a prefix it pays to walk by prefix


@dataclass(frozen=True, slots=True)
class Crossing:
    """A token that completes `tag` and goes on with `rest`."""

    token: int
    tag: str
    rest: bytes


@dataclass(frozen=True, slots=True)
class LocalRow:
    """The tokens legal whatever follows, and those that depend on it."""

    bits: Row
    crossings: tuple[Crossing, ...]


@dataclass(frozen=True, slots=True)
class Completed:
    """A walk that completed a tag before the token's end, or at it."""

    tag: str
    rest: bytes


def walk(machine: FieldMachine, local: Local, data: bytes) -> Local | Completed | None:
    """Where the bytes of one token lead."""
    for at, byte in enumerate(data):
        moved = machine.step(local, byte)
        if isinstance(moved, Local):
            local = moved
        elif moved is None:
            return None
        else:
            return Completed(moved, data[at + 1 :])
    return machine.settle(local)


def finishes(machine: FieldMachine, local: Local) -> bool:
    """Whether some token sequence ends the field: dead ends at token level are refused."""
    return any(cost < NEVER for cost in machine.costs(local).values())


class Rows:
    """All rows of one field machine over one vocabulary, computed on first use."""

    def __init__(self, machine: FieldMachine, vocabulary: Vocabulary) -> None:
        self.machine = machine
        self.vocabulary = vocabulary
        self.width = (vocabulary.size + 31) // 32
        self._tags = [t.encode() for t in _tags(machine)]
        self._rows: dict[Local, LocalRow] = {}
        self._interned: dict[bytes, Row] = {}
        self._tables: dict[Chain, tuple[NDArray[np.int32], int]] = {}
        self._whole: NDArray[np.int32] | None = None

    def row(self, local: Local) -> LocalRow:
        found = self._rows.get(local)
        if found is None:
            found = self._rows[local] = self._compute(local)
        return found

    def intern(self, bits: Row) -> Row:
        """The one read-only array with this content."""
        key = bits.tobytes()
        found = self._interned.get(key)
        if found is None:
            bits.flags.writeable = False
            found = self._interned[key] = bits
        return found

    @property
    def count(self) -> int:
        """How many different rows there are so far."""
        return len(self._interned)

    # one row

    def _compute(self, local: Local) -> LocalRow:
        text = text_of(local)
        crossings: list[Crossing] = []
        if text is not None:
            bits = utf8_row(self.vocabulary, text[1]).copy()
            self._judge(local, self.text_candidates(local), bits, crossings)
        else:
            bits = np.zeros(self.width, np.int32)
            self._narrow(local, bits, crossings)
        for token in self.tag_tokens(local):
            set_bit(bits, token)
        return LocalRow(self.intern(bits), tuple(crossings))

    def tag_tokens(self, local: Local) -> list[int]:
        """The special tokens that may come next: tags, or the end of the sequence."""
        found = []
        for chain, progress in local.places:
            if isinstance(chain.part, TagPart) and progress == 0:
                if chain.part.tag == END:
                    if self.vocabulary.eos_id is not None:
                        found.append(self.vocabulary.eos_id)
                elif self.machine.mode is TagMode.SPECIAL:
                    found.append(self.vocabulary.special[chain.part.tag])
        return found

    def text_candidates(self, local: Local) -> Iterable[int]:
        """The tokens that may touch a tag: those with one inside, and those that finish one
        begun."""
        if self._whole is None:
            inside = [self.vocabulary.containing(tag) for tag in self._tags]
            self._whole = np.unique(np.concatenate(inside)) if inside else np.zeros(0, np.int32)
        found = set(self._whole.tolist())
        for rest in self.machine.scan.rests[local.node]:
            if rest:
                found.update(self.vocabulary.prefixed(rest).tolist())
        return found

    def _judge(
        self, local: Local, tokens: Iterable[int], bits: Row, crossings: list[Crossing]
    ) -> None:
        """Decide these tokens one by one."""
        for token in tokens:
            data = self.vocabulary.bytes_of(token)
            led = walk(self.machine, local, data)
            if isinstance(led, Completed) and led.rest:
                crossings.append(Crossing(token, led.tag, led.rest))
                clear_bit(bits, token)
            elif led is None or (isinstance(led, Local) and not finishes(self.machine, led)):
                clear_bit(bits, token)
            else:
                set_bit(bits, token)

    # narrow states

    def _narrow(self, local: Local, bits: Row, crossings: list[Crossing]) -> None:
        """Where no free text stands: regular values by table, the rest by prefix."""
        judged: set[int] = set()
        for chain, progress in local.places:
            if isinstance(chain.part, RegularPart) and isinstance(progress, int):
                judged |= self._regular(local, chain, progress, bits)
        self._judge(local, judged, bits, crossings)
        self._prefixes(local, local, b"", bits, crossings)

    def _prefixes(
        self, origin: Local, local: Local, prefix: bytes, bits: Row, crossings: list[Crossing]
    ) -> None:
        """Judge the tokens that begin as literals, tags, labels or glue do."""
        for byte in _literal_bytes(local):
            longer = prefix + bytes((byte,))
            ids = self.vocabulary.prefixed(longer)
            if not len(ids):
                continue
            moved = self.machine.step(local, byte)
            if len(ids) > _WIDE and isinstance(moved, Local) and not _is_open(moved):
                exact = [t for t in ids[:4].tolist() if self.vocabulary.bytes_of(t) == longer]
                self._judge(origin, exact, bits, crossings)
                self._prefixes(origin, moved, longer, bits, crossings)
            elif moved is not None:
                self._judge(origin, ids.tolist(), bits, crossings)

    def _regular(self, local: Local, chain: Chain, state: int, bits: Row) -> set[int]:
        """Tokens that stay inside a regular value are legal; those that leave it are judged."""
        assert isinstance(chain.part, RegularPart)
        table, leave = self.regular_table(chain)
        ends = self.vocabulary.walk(table, state)
        bits |= pack((ends > 0) & (ends != leave), self.width)
        return {*np.flatnonzero(ends == leave).tolist(), *self.text_candidates(local)}

    def regular_table(self, chain: Chain) -> tuple[NDArray[np.int32], int]:
        found = self._tables.get(chain)
        if found is None:
            found = self._tables[chain] = self._regular_table(chain)
        return found

    def _regular_table(self, chain: Chain) -> tuple[NDArray[np.int32], int]:
        """Moves of a regular value, doubled: states from `n` on have passed an accepting state, and
        lead
        to the last state on a byte that the value refuses and what follows may take."""
        assert isinstance(chain.part, RegularPart) and chain.rest is not None
        dfa, spelling = chain.part.dfa, self.machine.spelling
        count = len(dfa.table)
        dead = [s for s in range(count) if s and spelling.completion(dfa, s) is None]
        moves = dfa.table.copy()
        moves[np.isin(moves, dead)] = 0
        leave = 2 * count
        follow = np.zeros(256, bool)
        follow[list(_first_bytes(chain.rest, self.machine.mode))] = True
        passed = dfa.accepting[moves] & (moves != 0)
        before = np.where(passed, moves + count, moves)
        behind = np.where(moves != 0, moves + count, np.where(follow[None, :], leave, 0))
        behind[0] = 0
        start = before.copy()
        start[dfa.accepting] = behind[dfa.accepting]
        last = np.full((1, 256), leave)
        return np.concatenate([start, behind, last]).astype(np.int32), leave


def _is_open(local: Local) -> bool:
    """Whether bytes other than those of literals may follow."""
    return any(isinstance(chain.part, (TextPart, RegularPart)) for chain, _ in local.places)


def _tags(machine: FieldMachine) -> list[str]:
    return [tag for tag in machine.scan.ends if tag]


def _literal_bytes(local: Local) -> set[int]:
    """The bytes that may come next by literals, tags, labels and glue."""
    found: set[int] = set()
    for chain, progress in local.places:
        part = chain.part
        if (isinstance(part, LiteralPart) and isinstance(progress, int)) or (
            isinstance(part, TagPart) and part.data and isinstance(progress, int)
        ):
            found.add(part.data[progress])
        elif isinstance(part, AnyGluePart):
            found |= BLANK_BYTES
        elif isinstance(part, FreshPart) and isinstance(progress, bytes):
            state = int(part.dfa.start)
            for byte in progress:
                state = int(part.dfa.table[state, byte])
            found.update(np.flatnonzero(part.dfa.table[state]).tolist())
    return found


def _first_bytes(chain: Chain, mode: TagMode) -> Set[int]:
    """The bytes with which a chain may begin."""
    part = chain.part
    if isinstance(part, TextPart):
        return set(range(256))
    if isinstance(part, TagPart):
        return set(part.data[:1]) if mode is TagMode.TEXT else set()
    if isinstance(part, LiteralPart):
        return {part.data[0]}
    assert chain.rest is not None
    if isinstance(part, AnyGluePart):
        return BLANK_BYTES | _first_bytes(chain.rest, mode)
    first = set(np.flatnonzero(part.dfa.table[part.dfa.start]).tolist())
    if part.dfa.accepting[part.dfa.start]:
        return first | _first_bytes(chain.rest, mode)
    return first


# bits


def pack(allowed: NDArray[np.bool_], width: int) -> Row:
    """bool [V] -> int32 [width]."""
    packed = np.packbits(allowed, bitorder="little")
    row = np.zeros(width * 4, np.uint8)
    row[: len(packed)] = packed
    return row.view(np.int32)


def unpack(row: Row, size: int) -> NDArray[np.bool_]:
    """int32 [width] -> bool [V]."""
    return np.unpackbits(row.view(np.uint8), count=size, bitorder="little").view(np.bool_)


def set_bit(row: Row, token: int) -> None:
    row.view(np.uint32)[token >> 5] |= np.uint32(1 << (token & 31))


def clear_bit(row: Row, token: int) -> None:
    row.view(np.uint32)[token >> 5] &= np.uint32(~(1 << (token & 31)) & 0xFFFFFFFF)


@lru_cache(maxsize=64)
def utf8_row(vocabulary: Vocabulary, state: int) -> Row:
    """The tokens that are valid UTF-8 from a state of its automaton, and can be finished."""
    ends = utf8_ends(vocabulary, state)
    usable = np.zeros(len(utf8_dfa().table), bool)
    for end in np.unique(ends).tolist():
        usable[end] = bool(end) and vocabulary.spell(_utf8_tail(end)) is not None
    row = pack(usable[ends], (vocabulary.size + 31) // 32)
    row.flags.writeable = False
    return row


@lru_cache(maxsize=64)
def utf8_ends(vocabulary: Vocabulary, state: int) -> NDArray[np.int32]:
    """int32 [V]: the UTF-8 state that each token leads to, 0 where it is invalid."""
    return vocabulary.walk(utf8_dfa().table, state)


def _utf8_tail(state: int) -> bytes:
    dfa, tail = utf8_dfa(), bytearray()
    while not dfa.accepting[state]:
        byte = int(dfa.next_byte[state])
        tail.append(byte)
        state = int(dfa.table[state, byte])
    return bytes(tail)
