"""Token masks: which tokens may come next, one packed row for each local state.

A row is int32 [ceil(V/32)], bit i%32 of word i//32 is token i. In free text almost every token is
legal, so its row is the row of valid UTF-8 with the few tokens corrected that touch a tag;
elsewhere few tokens are legal and are found by walking prefixes. A token that runs past the end of
a tag is decided by what follows there: it is kept apart as a `Crossing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nprdsl.masks.fields import BLANK_BYTES, FieldMachine, Local, text_of
from nprdsl.masks.parts import (
    AnyGluePart,
    Chain,
    FreshPart,
    LiteralPart,
    Progress,
    RegularPart,
    TagPart,
    TextPart,
)
from nprdsl.regular.dfa import Dfa
from nprdsl.structure.tag_machine import END
from nprdsl.tokens.bitmask import Mask, clear_bit, pack, set_bit, set_bits
from nprdsl.tokens.spelling import NEVER
from nprdsl.tokens.utf8_text import START, text_tables
from nprdsl.tokens.vocabulary import Vocabulary
from nprdsl.trace.lexemes import TagMode

_WIDE: Final = 64  # tokens: where more share a prefix it pays to walk by prefix
_ValueKey = tuple[Dfa, frozenset[int]]  # a value, and the bytes that may follow it


@dataclass(frozen=True, slots=True)
class Crossing:
    """A token that completes `tag` and goes on with `rest`."""

    token: int
    tag: str
    rest: bytes


@dataclass(frozen=True, slots=True)
class LocalRow:
    """The tokens legal whatever follows, and, by the tag that they complete, those that depend on
    it."""

    bits: Mask
    crossings: Mapping[str, tuple[Crossing, ...]]


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
        self.text = text_tables(vocabulary)
        self.width = (vocabulary.size + 31) // 32
        self._tags = [t.encode() for t in _tags(machine)]
        self._rows: dict[Local, LocalRow] = {}
        self._interned: dict[bytes, Mask] = {}
        self.stored: Callable[[Local], LocalRow | None] = _nothing_stored
        self._tables: dict[_ValueKey, tuple[NDArray[np.int32], int]] = {}
        self._stays: dict[tuple[_ValueKey, int], tuple[Mask, list[int]]] = {}
        self._whole: NDArray[np.int32] | None = None

    def row(self, local: Local) -> LocalRow:
        found = self._rows.get(local)
        if found is None:
            found = self.stored(local) or self._compute(local)
            self._rows[local] = found
        return found

    @property
    def computed(self) -> dict[Local, LocalRow]:
        """The rows so far."""
        return self._rows

    def intern(self, bits: Mask) -> Mask:
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

    @cached_property
    def clean(self) -> bytes:
        """One byte for each token: 1 for whole characters, not all blank, none of which begins a
        tag."""
        found = (self.text.ends(START) == START) & ~self.text.blank
        for first in {tag[:1] for tag in self._tags}:
            found[self.vocabulary.containing(first)] = False
        flags: bytes = found.tobytes()
        return flags

    # one row

    def _compute(self, local: Local) -> LocalRow:
        text = text_of(local)
        if text is None and len(local.places) != 1:
            return self._union(local)
        crossings: list[Crossing] = []
        if text is not None:
            bits = self.text.mask(text[1]).copy()
            self._judge(local, self.text_candidates(local), bits, crossings)
        else:
            bits = np.zeros(self.width, np.int32)
            ((chain, progress),) = local.places
            if isinstance(chain.part, (RegularPart, FreshPart)):
                self._value(local, chain, progress, bits, crossings)
            else:
                self._prefixes(local, local, b"", bits, crossings)
        for token in self.tag_tokens(local):
            set_bit(bits, token)
        return LocalRow(self.intern(bits), _by_tag(crossings))

    def _union(self, local: Local) -> LocalRow:
        """A token is legal if it is legal from one of the places; most places have been met
        before."""
        rows = [self.row(self.machine.only(local, place)) for place in local.places]
        bits = np.zeros(self.width, np.int32)
        for row in rows:
            bits |= row.bits
        crossings = {c.token: c for row in rows for cs in row.crossings.values() for c in cs}
        return LocalRow(self.intern(bits), _by_tag(crossings.values()))

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
        self, local: Local, tokens: Iterable[int], bits: Mask, crossings: list[Crossing]
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

    def _prefixes(
        self, origin: Local, local: Local, prefix: bytes, bits: Mask, crossings: list[Crossing]
    ) -> None:
        """Decide the tokens that begin as literals, tags or glue do."""
        for byte in _literal_bytes(local):
            longer = prefix + bytes((byte,))
            ids = self.vocabulary.prefixed(longer)
            moved = self.machine.step(local, byte)
            if not len(ids) or moved is None:
                continue
            if len(ids) <= _WIDE or not isinstance(moved, Local):
                self._judge(origin, ids.tolist(), bits, crossings)
            elif text_of(moved) is not None and _is_utf8(longer):
                self._into_text(origin, moved, longer, ids, bits, crossings)
            elif _is_open(moved):
                self._judge(origin, ids.tolist(), bits, crossings)
            else:
                self._judge(origin, self.vocabulary.exactly(longer), bits, crossings)
                self._prefixes(origin, moved, longer, bits, crossings)

    def _into_text(
        self,
        origin: Local,
        moved: Local,
        prefix: bytes,
        ids: NDArray[np.int32],
        bits: Mask,
        crossings: list[Crossing],
    ) -> None:
        """Tokens that run from a literal on into free text: legal if they are UTF-8 and touch no
        tag."""
        set_bits(bits, ids[self.text.usable(START)[ids]])
        touching = set(ids.tolist()) & set(self.text_candidates(moved))
        for rest in self.machine.scan.rests[moved.node]:
            touching.update(self.vocabulary.prefixed(prefix + rest).tolist() if rest else ())
        self._judge(origin, touching, bits, crossings)

    def _value(
        self,
        local: Local,
        chain: Chain,
        progress: Progress,
        bits: Mask,
        crossings: list[Crossing],
    ) -> None:
        """Tokens that stay inside a value are legal; those that leave it, spell a tag, or spell a
        label that is taken are judged."""
        part = chain.part
        assert isinstance(part, (RegularPart, FreshPart))
        state = (
            self.machine.spelling.state(part.dfa, progress)
            if isinstance(progress, bytes)
            else progress
        )
        inside, leaving = self._stay(chain, part, state)
        bits |= inside
        judged = {*leaving, *self.text_candidates(local)}
        if isinstance(part, FreshPart) and isinstance(progress, bytes):
            judged.update(self._taken_tokens(part, progress))
        self._judge(local, judged, bits, crossings)

    def _taken_tokens(self, part: FreshPart, begun: bytes) -> Iterator[int]:
        """Single tokens that spell the beginning of what a taken label has behind `begun`."""
        for label in part.taken:
            if label.startswith(begun):
                rest = label[len(begun) :]
                for end in range(1, len(rest) + 1):
                    spelled = self.vocabulary.spell(rest[:end])
                    if spelled is not None and len(spelled) == 1:
                        yield spelled[0]

    def _stay(
        self, chain: Chain, part: RegularPart | FreshPart, state: int
    ) -> tuple[Mask, list[int]]:
        """The tokens that stay inside a value, and those that leave it behind an accepting
        state."""
        assert chain.rest is not None
        key = (part.dfa, frozenset(_first_bytes(chain.rest, self.machine.mode)))
        found = self._stays.get((key, state))
        if found is None:
            table, leave = self._tables.get(key) or self._regular_table(key)
            ends = self.vocabulary.walk(table, state)
            inside = pack((ends > 0) & (ends != leave), self.width)
            found = inside, np.flatnonzero(ends == leave).tolist()
            self._stays[key, state] = found
        return found

    def _regular_table(self, key: _ValueKey) -> tuple[NDArray[np.int32], int]:
        """Moves of a regular value, doubled: states from `n` on have passed an accepting state, and
        lead to the last state on a byte that the value refuses and what follows may take."""
        (dfa, following), spelling = key, self.machine.spelling
        count = len(dfa.table)
        dead = [s for s in range(count) if s and spelling.completion(dfa, s) is None]
        moves = dfa.table.copy()
        moves[np.isin(moves, dead)] = 0
        leave = 2 * count
        follow = np.zeros(256, bool)
        follow[list(following)] = True
        passed = dfa.accepting[moves] & (moves != 0)
        before = np.where(passed, moves + count, moves)
        behind = np.where(moves != 0, moves + count, np.where(follow[None, :], leave, 0))
        behind[0] = 0
        last = np.full((1, 256), leave)
        found = np.concatenate([before, behind, last]).astype(np.int32), leave
        self._tables[key] = found
        return found


def _nothing_stored(local: Local) -> LocalRow | None:
    return None


def _by_tag(crossings: Iterable[Crossing]) -> dict[str, tuple[Crossing, ...]]:
    found: dict[str, list[Crossing]] = {}
    for crossing in crossings:
        found.setdefault(crossing.tag, []).append(crossing)
    return {tag: tuple(group) for tag, group in found.items()}


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_open(local: Local) -> bool:
    """Whether bytes other than those of literals may follow."""
    return any(
        isinstance(chain.part, (TextPart, RegularPart, FreshPart)) for chain, _ in local.places
    )


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
