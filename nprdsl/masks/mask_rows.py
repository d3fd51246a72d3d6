"""Token masks within one field: which tokens may come next, one packed row for each field state.

A row is int32 [ceil(V/32)], bit i%32 of word i//32 is token i. In free text almost every token is
legal, so its row is the row of valid UTF-8 with the few tokens corrected that touch a tag;
elsewhere few tokens are legal and are found by walking prefixes. A token that runs past the end of
a tag is decided by what follows there: it is kept apart as a `Crossing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nprdsl.masks.field_rests import FieldRest, Progress
from nprdsl.masks.fields import Completed, FieldMachine, FieldState
from nprdsl.masks.parts import U8_START, RegularPart
from nprdsl.regular.aho_corasick import ROOT
from nprdsl.regular.dfa import FAR, Dfa
from nprdsl.structure.tag_machine import END
from nprdsl.tokens.bitmask import Mask, clear_bit, pack, set_bit, set_bits, unpack
from nprdsl.tokens.spelling import NEVER
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
        self._scan_ends: dict[int, NDArray[np.int32]] = {}
        self._begun: dict[int, _BegunTags] = {}
        self._may_begin: dict[Dfa, bool] = {}
        self._may_end: dict[Dfa, bool] = {}
        self._stuck: dict[FieldRest, NDArray[np.bool_] | None] = {}

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

    def always_ends(self, state: FieldState) -> bool:
        """Whether free text can be finished from wherever it may stand: a filler breaks off every
        tag begun, and what follows may follow it."""
        fillers = self.machine.rests.fillers
        texts = [rest for rest, at in state.cursors if rest.part.text_state(at) is not None]
        clean = bool(fillers) and self.machine.scan.touched.isdisjoint(fillers[0])
        return clean and all(rest.cost < NEVER for rest in texts)

    def scan_ends(self, node: int) -> NDArray[np.int32]:
        """int32 [V]: the node of the tag scanner behind each token from `node`, plus 1; 0 where a
        tag is complete in it, or the token spells nothing."""
        ends = self._scan_ends.get(node)
        if ends is None:
            ends = self.vocabulary.walk(self.machine.scan.table, node + 1)
            self._scan_ends[node] = ends
        return ends

    def tag_tokens(self, state: FieldState) -> list[int]:
        """The special tokens that may come next: tags, or the end of the sequence."""
        tags = {rest.tag for rest, progress in state.cursors if rest.is_tag and progress == 0}
        of_tags, closes = self.machine.tag_tokens, self.machine.scan.closes
        tokens = [of_tags[t] for t in tags if t in of_tags and closes(state.node, t)]
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
            if not self.always_ends(state):
                draft.judge(np.flatnonzero(unpack(draft.bits, self.vocabulary.size)).tolist())
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

    def stuck_in_value(self, node: int, rest: FieldRest, progress: Progress) -> Iterator[int]:
        """The tokens that stay inside a value and end where the field cannot be finished without a
        tag inside: mostly within a tag begun."""
        value = rest.part.value(progress, self.machine.rests)
        assert value is not None
        dfa, state = value
        if (stuck := self._stuck_states(rest, dfa)) is not None:
            yield from np.flatnonzero(stuck[self.vocabulary.walk(dfa.table, state)]).tolist()
        if node == ROOT and not self._begins_tag(dfa):
            return
        begun = self._begun.get(node)
        if begun is None:
            begun = self._begun[node] = _BegunTags.of(self.vocabulary, self.scan_ends(node))
        places: dict[tuple[Progress, int], list[int]] = {}
        for at, led in begun.inside(dfa, state):
            token = int(begun.tokens[at])
            reached = rest.part.reached(progress, self.vocabulary.bytes_of(token), led)
            places.setdefault((reached, int(begun.nodes[at])), []).append(token)
        for (reached, after), tokens in places.items():
            if rest.ending(reached, after).cost >= NEVER:
                yield from tokens

    def _stuck_states(self, rest: FieldRest, dfa: Dfa) -> NDArray[np.bool_] | None:
        """bool [S]: where no tag is begun, and yet the field cannot be finished without one; None
        if there is no such state."""
        if rest not in self._stuck:
            behind = rest.rest
            ends = behind is not None and behind.ending(behind.part.start, ROOT).cost < NEVER
            if ends and not self._ends_as_tag(dfa):
                self._stuck[rest] = None
            else:
                anything = self.machine.rests.link(RegularPart(dfa), behind)
                states = range(1, len(dfa.table))
                stuck = np.array([False, *(anything.ending(s, ROOT).cost >= NEVER for s in states)])
                self._stuck[rest] = stuck if stuck.any() else None
        return self._stuck[rest]

    def _ends_as_tag(self, dfa: Dfa) -> bool:
        """Whether a shortest ending of a value may hold a byte that begins a tag."""
        known = self._may_end.get(dfa)
        if known is None:
            ending = self.machine.rests.spelling.ending_bytes(dfa)
            known = self._may_end[dfa] = any(tag[0] in ending for tag in self._tags)
        return known

    def _begins_tag(self, dfa: Dfa) -> bool:
        """Whether a value may hold a byte that begins a tag."""
        known = self._may_begin.get(dfa)
        if known is None:
            firsts = sorted({tag[0] for tag in self._tags})
            known = self._may_begin[dfa] = bool(dfa.table[:, firsts].any())
        return known

    def _inside_value(self, rest: FieldRest, dfa: Dfa, state: int) -> tuple[Mask, list[int]]:
        """The tokens that stay inside a value, and those that leave it behind an accepting
        state."""
        key = (dfa, rest.following())
        stays = self._stays.get((key, state))
        if stays is None:
            table, leave = self._tables.get(key) or self._value_table(key)
            ends = self.vocabulary.walk(table, state)
            inside = (ends > 0) & (ends != leave)
            if dead := self._dead_states(dfa):
                inside &= ~np.isin(ends % len(dfa.table), dead)
            found = pack(inside, self.width), np.flatnonzero(ends == leave).tolist()
            stays = self._stays[key, state] = found
        return stays

    def _dead_states(self, dfa: Dfa) -> list[int]:
        """The states behind which no tokens finish a value."""
        usable = self.machine.rests.spelling.usable(dfa)
        if usable is dfa:
            return []
        return np.flatnonzero(usable.distance[: len(dfa.table)] == FAR).tolist()

    def _value_table(self, key: _ValueKey) -> tuple[NDArray[np.int32], int]:
        """Moves of a value, three times over: states from `n` on have passed an accepting state,
        and lead to the last state on a byte that the value refuses and what follows may take; those
        from `2 n` on have taken a byte, inside the value, with which it may have been left already,
        so that any byte that the value refuses leads there."""
        dfa, following = key
        count, moves = len(dfa.table), dfa.table
        leave = 3 * count
        follow = np.zeros((1, 256), bool)
        follow[0, list(following)] = True
        inside = moves != 0
        before = np.where(dfa.accepting[moves] & inside, moves + count, moves)
        either = dfa.accepting[:, None] & follow
        goes_on = np.where(either, moves + 2 * count, moves + count)
        behind = np.where(inside, goes_on, np.where(follow, leave, 0))
        perhaps_left = np.where(inside, moves + 2 * count, leave)
        behind[0] = perhaps_left[0] = 0
        last = np.full((1, 256), leave)
        table = np.concatenate([before, behind, perhaps_left, last]).astype(np.int32)
        self._tables[key] = table, leave
        return table, leave


@dataclass(frozen=True, slots=True)
class _BegunTags:
    """The tokens that end within a tag begun: ids [n], bytes [n, longest], lengths [n], and the
    nodes of the tag scanner behind them [n]."""

    tokens: NDArray[np.intp]
    data: NDArray[np.uint8]
    lengths: NDArray[np.intp]
    nodes: NDArray[np.int32]

    @classmethod
    def of(cls, vocabulary: Vocabulary, scan_ends: NDArray[np.int32]) -> _BegunTags:
        tokens = np.flatnonzero(scan_ends > ROOT + 1)
        spelled = [vocabulary.bytes_of(token) for token in tokens.tolist()]
        lengths = np.array([len(data) for data in spelled], np.intp)
        width = int(lengths.max(initial=0))
        padded = b"".join(data.ljust(width, b"\0") for data in spelled)
        data = np.frombuffer(padded, np.uint8).reshape(len(tokens), width)
        return cls(tokens, data, lengths, scan_ends[tokens] - 1)

    def inside(self, dfa: Dfa, state: int) -> Iterator[tuple[int, int]]:
        """The numbers of those that stay inside a value, and the states behind them."""
        states = np.full(len(self.tokens), state, np.int32)
        for column in range(self.data.shape[1]):
            going = self.lengths > column
            states[going] = dfa.table[states[going], self.data[going, column]]
        alive = np.flatnonzero(states)
        yield from zip(alive.tolist(), states[alive].tolist(), strict=True)


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
            elif self._ends_anywhere(after) and _is_utf8(longer):
                self._run_into_text(after, longer, ids)
            elif any(rest.part.is_open for rest, _ in after.cursors):
                self.judge(ids.tolist())
            else:
                self.judge(self._vocabulary.exactly(longer))
                self.add_by_prefix(after, longer)

    def _ends_anywhere(self, state: FieldState) -> bool:
        return state.text_state is not None and self._table.always_ends(state)

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
        spelled = {token for data in forbidden for token in self._vocabulary.exactly(data)}
        stuck = self._table.stuck_in_value(self._state.node, rest, progress)
        self.judge({*leaving, *self._table.text_candidates(self._state), *spelled, *stuck})


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
