"""Token masks within one field: which tokens may come next, one packed row for each field state.

A row is int32 [ceil(V/32)], bit i%32 of word i//32 is token i. In free text almost every token is
legal, so its row is the row of valid UTF-8 with the few tokens corrected that touch a tag;
elsewhere few tokens are legal and are found by walking prefixes. A token that runs past the end of
a tag is decided by what follows there: it is kept apart as a `Crossing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nprdsl.masks.fields import Completed, FieldMachine, FieldState
from nprdsl.masks.parts import U8_START, FieldRest, Progress
from nprdsl.regular.dfa import Dfa
from nprdsl.structure.tag_machine import END
from nprdsl.tokens.bitmask import Mask, clear_bit, pack, set_bit, set_bits
from nprdsl.tokens.utf8_text import text_tables
from nprdsl.tokens.vocabulary import Vocabulary

_WIDE: Final = 64  # tokens: where more share a prefix it pays to walk by prefix
_ValueKey = tuple[Dfa, frozenset[int]]  # a value, and the bytes that may follow it


@dataclass(frozen=True, slots=True)
class Crossing:
    """A token that completes `tag` and goes on with `rest`."""

    token: int
    tag: str
    rest: bytes


@dataclass(frozen=True, slots=True)
class FieldRow:
    """The tokens legal whatever follows, and, by the tag that they complete, those that depend on
    it."""

    bits: Mask
    crossings: Mapping[str, tuple[Crossing, ...]]


class MaskTable:
    """The rows of all states of one field machine over one vocabulary, computed on first use."""

    def __init__(self, machine: FieldMachine, vocabulary: Vocabulary) -> None:
        self.machine = machine
        self.vocabulary = vocabulary
        self.text = text_tables(vocabulary)
        self.width = (vocabulary.size + 31) // 32
        self._tags = [tag.encode() for tag in machine.scan.ends if tag]
        self.computed: dict[FieldState, FieldRow] = {}
        self._interned: dict[bytes, Mask] = {}
        self.stored: Callable[[FieldState], FieldRow | None] = lambda state: None
        self._tables: dict[_ValueKey, tuple[NDArray[np.int32], int]] = {}
        self._stays: dict[tuple[_ValueKey, int], tuple[Mask, list[int]]] = {}

    def row(self, state: FieldState) -> FieldRow:
        """The row of a state: found, or read from disk, or computed."""
        row = self.computed.get(state)
        if row is None:
            row = self.computed[state] = self.stored(state) or self._compute(state)
        return row

    def intern(self, bits: Mask) -> Mask:
        """The one read-only array with this content."""
        key = bits.tobytes()
        known = self._interned.get(key)
        if known is None:
            bits.flags.writeable = False
            known = self._interned[key] = bits
        return known

    @cached_property
    def clean(self) -> bytes:
        """One byte for each token: 1 for whole characters of which none begins a tag, and the last
        is not blank, so that it is no glue."""
        is_clean = (self.text.ends(U8_START) == U8_START) & ~self.text.ends_blank
        for first in {tag[:1] for tag in self._tags}:
            is_clean[self.vocabulary.containing(first)] = False
        flags: bytes = is_clean.tobytes()
        return flags

    @cached_property
    def _with_tag(self) -> frozenset[int]:
        """The tokens with a whole tag inside."""
        return frozenset(t for tag in self._tags for t in self.vocabulary.containing(tag).tolist())

    def text_candidates(self, state: FieldState) -> set[int]:
        """The tokens that may touch a tag: those with one inside, and those that finish one
        begun."""
        tokens = set(self._with_tag)
        for rest in self.machine.scan.rests[state.node]:
            if rest:
                tokens.update(self.vocabulary.prefixed(rest).tolist())
        return tokens

    def tag_tokens(self, state: FieldState) -> list[int]:
        """The special tokens that may come next: tags, or the end of the sequence."""
        tags = {rest.tag for rest, progress in state.cursors if rest.is_tag and progress == 0}
        of_tags = self.machine.tag_tokens
        tokens = [of_tags[tag] for tag in tags if tag in of_tags]
        if END in tags and self.vocabulary.eos_id is not None:
            tokens.append(self.vocabulary.eos_id)
        return tokens

    def _compute(self, state: FieldState) -> FieldRow:
        text = state.text_state
        if text is None and len(state.cursors) != 1:
            return self._union(state)
        if text is not None:
            draft = _RowDraft(self, state, self.text.mask(text).copy())
            draft.judge(self.text_candidates(state))
        else:
            draft = _RowDraft(self, state, np.zeros(self.width, np.int32))
            ((rest, progress),) = state.cursors
            value = rest.part.value(progress, self.machine.rests)
            if value is not None:
                draft.add_value(rest, progress, *self._inside_value(rest, *value))
            else:
                draft.add_by_prefix(state, b"")
        for token in self.tag_tokens(state):
            set_bit(draft.bits, token)
        return FieldRow(self.intern(draft.bits), _by_tag(draft.crossings))

    def _union(self, state: FieldState) -> FieldRow:
        """A token is legal if it is legal from one of the cursors; most of them have been met
        before."""
        rows = [self.row(self.machine.only(state, cursor)) for cursor in state.cursors]
        bits = np.zeros(self.width, np.int32)
        for row in rows:
            bits |= row.bits
        crossings = {c.token: c for row in rows for cs in row.crossings.values() for c in cs}
        return FieldRow(self.intern(bits), _by_tag(crossings.values()))

    # values

    def _inside_value(self, rest: FieldRest, dfa: Dfa, state: int) -> tuple[Mask, list[int]]:
        """The tokens that stay inside a value, and those that leave it behind an accepting
        state."""
        key = (dfa, rest.following())
        stays = self._stays.get((key, state))
        if stays is None:
            table, leave = self._tables.get(key) or self._value_table(key)
            ends = self.vocabulary.walk(table, state)
            inside = pack((ends > 0) & (ends != leave), self.width)
            stays = self._stays[key, state] = inside, np.flatnonzero(ends == leave).tolist()
        return stays

    def _value_table(self, key: _ValueKey) -> tuple[NDArray[np.int32], int]:
        """Moves of a value, doubled: states from `n` on have passed an accepting state, and lead to
        the last state on a byte that the value refuses and what follows may take."""
        (dfa, following), spelling = key, self.machine.rests.spelling
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
        table = np.concatenate([before, behind, last]).astype(np.int32)
        self._tables[key] = table, leave
        return table, leave


class _RowDraft:
    """The row of one state while it is being made."""

    def __init__(self, table: MaskTable, state: FieldState, bits: Mask) -> None:
        self.bits = bits
        self.crossings: list[Crossing] = []
        self._state = state
        self._table = table
        self._machine = table.machine
        self._vocabulary = table.vocabulary

    def judge(self, tokens: Iterable[int]) -> None:
        """Decide these tokens one by one."""
        machine, bytes_of = self._machine, self._vocabulary.bytes_of
        for token in tokens:
            after = machine.walk(self._state, bytes_of(token))
            if isinstance(after, Completed) and after.rest:
                self.crossings.append(Crossing(token, after.tag, after.rest))
                clear_bit(self.bits, token)
            elif isinstance(after, Completed) or (after is not None and machine.can_end(after)):
                set_bit(self.bits, token)
            else:
                clear_bit(self.bits, token)

    def add_by_prefix(self, state: FieldState, prefix: bytes) -> None:
        """Decide the tokens that go on behind `prefix`, which leads to `state`, as literals, tags
        or glue do."""
        for byte in {b for rest, progress in state.cursors for b in rest.next_bytes(progress)}:
            longer = prefix + bytes((byte,))
            ids = self._vocabulary.prefixed(longer)
            after = self._machine.step(state, byte)
            if not len(ids) or after is None:
                continue
            if len(ids) <= _WIDE or not isinstance(after, FieldState):
                self.judge(ids.tolist())
            elif after.text_state is not None and _is_utf8(longer):
                self._run_into_text(after, longer, ids)
            elif any(rest.part.is_open for rest, _ in after.cursors):
                self.judge(ids.tolist())
            else:
                self.judge(self._vocabulary.exactly(longer))
                self.add_by_prefix(after, longer)

    def _run_into_text(self, state: FieldState, prefix: bytes, ids: NDArray[np.int32]) -> None:
        """Tokens that run from a literal on into free text: legal if they are UTF-8 and touch no
        tag."""
        set_bits(self.bits, ids[self._table.text.usable(U8_START)[ids]])
        touching = set(ids.tolist()) & self._table.text_candidates(state)
        for rest in self._machine.scan.rests[state.node]:
            touching.update(self._vocabulary.prefixed(prefix + rest).tolist() if rest else ())
        self.judge(touching)

    def add_value(
        self, rest: FieldRest, progress: Progress, inside: Mask, leaving: list[int]
    ) -> None:
        """Tokens that stay inside a value are legal; those that leave it, spell a tag, or spell a
        value that may not be used are judged."""
        self.bits |= inside
        forbidden = rest.part.forbidden(progress, self._machine.rests)
        spelled = (token for data in forbidden for token in self._vocabulary.exactly(data))
        self.judge({*leaving, *self._table.text_candidates(self._state), *spelled})


def _by_tag(crossings: Iterable[Crossing]) -> dict[str, tuple[Crossing, ...]]:
    groups: dict[str, list[Crossing]] = {}
    for crossing in crossings:
        groups.setdefault(crossing.tag, []).append(crossing)
    return {tag: tuple(group) for tag, group in groups.items()}


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
