"""The byte automaton of a field: everything that may stand between two tags, and the tag itself.

A `FieldState` is a set of cursors in the fields that may stand here (`nprdsl.masks.parts`) and a
node of the tag scanner; it is shared by all places of a trace where the same may follow, whatever
the counts and labels around it. Bytes move it (`step`). Every state knows how many tokens finish
its field and tag, so that a legal end can always be reserved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nprdsl.masks.parts import U8_START, Cursor, FieldRest, FieldRests
from nprdsl.regular.aho_corasick import NO_WORD, ROOT, aho_corasick
from nprdsl.tokens.spelling import NEVER, Spelling


@dataclass(frozen=True)
class TagScan:
    """`moves[node]` maps a byte to the next node (`ROOT` where absent); `ends[node]` is the tag
    that is complete there, or empty; `rests[node]` holds, for every tag begun, the bytes it still
    lacks."""

    moves: tuple[dict[int, int], ...]
    ends: tuple[str, ...]
    rests: tuple[tuple[bytes, ...], ...]

    def last(self, data: bytes, node: int = ROOT) -> tuple[str, bytes] | None:
        """The last tag complete in `data`, and what of `data` stands behind it."""
        last = None
        for at, byte in enumerate(data):
            node = self.moves[node].get(byte, ROOT)
            if self.ends[node]:
                last, node = (self.ends[node], data[at + 1 :]), ROOT
        return last


def tag_scan(tags: Sequence[str]) -> TagScan:
    """The automaton of these tags."""
    automaton = aho_corasick([tag.encode() for tag in tags])
    ends = tuple("" if word == NO_WORD else tags[word] for word in automaton.ends)
    return TagScan(automaton.moves, ends, automaton.rests)


class FieldState:
    """A set of cursors and a scanner node. `moves` and `tokens` memoise bytes and whole tokens."""

    __slots__ = ("costs", "cursors", "moves", "node", "prose", "settled", "tokens")

    def __init__(self, node: int, cursors: frozenset[Cursor]) -> None:
        self.node = node
        self.cursors = cursors
        self.moves: dict[int, FieldState | str | None] = {}
        self.tokens: dict[int, FieldState] = {}
        self.settled: FieldState | None = None
        self.prose: FieldState | None = None  # where clean prose leads, see `MaskTable.clean`
        self.costs: dict[str, int] | None = None

    @property
    def text_state(self) -> int | None:
        """The state of the UTF-8 automaton in the free text that this is in; None outside."""
        for rest, progress in self.cursors:
            state = rest.part.text_state(progress)
            if state is not None:
                return state
        return None

    @property
    def is_filled(self) -> bool:
        """Whether the free text of this state already holds something that is not blank."""
        return any(rest.part.is_filled(progress) for rest, progress in self.cursors)

    @property
    def is_counted(self) -> bool:
        """Whether this is inside a text that a branch repeats, so that each token costs two."""
        return any(
            rest.part.is_counted and rest.part.text_state(progress) is not None
            for rest, progress in self.cursors
        )


@dataclass(frozen=True, slots=True)
class Completed:
    """A walk that completed a tag before the token's end, or at it."""

    tag: str
    rest: bytes


class FieldMachine:
    """All states of fields of one schema over one vocabulary; they are shared and memoised."""

    def __init__(self, scan: TagScan, tag_tokens: Mapping[str, int], spelling: Spelling) -> None:
        self.scan = scan
        self.tag_tokens = tag_tokens
        self.rests = FieldRests(tag_tokens, spelling)
        self.known: dict[tuple[int, frozenset[Cursor]], FieldState] = {}
        self._starts: dict[tuple[FieldRest, ...], FieldState] = {}
        self._behind: dict[FieldState, FieldState] = {}  # see `prose_behind`

    def start(self, fields: tuple[FieldRest, ...]) -> FieldState:
        """The state right behind a tag where any of these fields may follow."""
        state = self._starts.get(fields)
        if state is None:
            cursors = (cursor for field in fields for cursor in field.starts)
            state = self._starts[fields] = self.settle(self._share(ROOT, cursors))
        return state

    def _share(self, node: int, cursors: Iterable[Cursor]) -> FieldState:
        key = (node, frozenset(cursors))
        state = self.known.get(key)
        if state is None:
            state = self.known[key] = FieldState(*key)
        return state

    def only(self, state: FieldState, cursor: Cursor) -> FieldState:
        """The state with just one of its cursors."""
        return self._share(state.node, (cursor,))

    # prose

    def behind_text(self, state: FieldState, end: int, *, filled: bool) -> FieldState:
        """The state behind more free text that touches no tag and ends in a UTF-8 state."""
        cursors = (
            cursor
            for rest, progress in state.cursors
            for cursor in rest.part.behind_text(progress, end, rest, filled=filled)
        )
        return self._share(ROOT, cursors)

    def prose(self, state: FieldState) -> FieldState | None:
        """Where any whole, filled stretch of prose without the beginning of a tag leads from here;
        None if this state is not between characters of free text, or inside a tag begun."""
        if state.prose is None and state.node == ROOT:
            if state.text_state != U8_START or state.is_counted:
                return None
            state.prose = self.behind_text(state, U8_START, filled=True)
            state.prose.prose = state.prose
        return state.prose

    def prose_behind(self, state: FieldState, byte: int) -> FieldState | None:
        """As `prose` for prose that begins with `byte`, where it breaks off a tag begun; None where
        a tag goes on or the text of a branch is counted."""
        if byte in self.scan.moves[state.node]:
            return None
        behind = self._behind.get(state)
        if behind is None:
            if state.text_state != U8_START or state.is_counted:
                return None
            behind = self._behind[state] = self.behind_text(state, U8_START, filled=True)
        return behind

    # moving

    def step(self, state: FieldState, byte: int) -> FieldState | str | None:
        """The next state; the tag that this byte completes; None if the byte may not stand here."""
        try:
            return state.moves[byte]
        except KeyError:
            after = state.moves[byte] = self._step(state, byte)
            return after

    def _step(self, state: FieldState, byte: int) -> FieldState | str | None:
        node = self.scan.moves[state.node].get(byte, ROOT)
        tag = self.scan.ends[node]
        if tag:
            written = tag not in self.tag_tokens and self.completing(state, tag)
            return tag if written else None
        cursors: set[Cursor] = set()
        for rest, progress in state.cursors:
            cursors.update(rest.part.step(progress, byte, rest))
        return self._share(node, cursors) if cursors else None

    def settle(self, state: FieldState) -> FieldState:
        """The state between two tokens: counted texts may begin and end here."""
        if state.settled is None:
            cursors = (
                cursor
                for rest, progress in state.cursors
                for cursor in rest.part.settle(progress, rest)
            )
            state.settled = self._share(state.node, cursors)
            state.settled.settled = state.settled
        return state.settled

    def walk(self, state: FieldState, data: bytes) -> FieldState | Completed | None:
        """Where the bytes of one token lead."""
        for at, byte in enumerate(data):
            after = self.step(state, byte)
            if isinstance(after, FieldState):
                state = after
            elif after is None:
                return None
            else:
                return Completed(after, data[at + 1 :])
        return self.settle(state)

    def can_end(self, state: FieldState) -> bool:
        """Whether some token sequence ends the field: dead ends at token level are refused."""
        return bool(self.costs(state))

    def completing(self, state: FieldState, tag: str) -> list[FieldRest]:
        """The rests that are nothing but `tag`, which the next byte, or special token, completes;
        empty if the tag may not be completed here."""
        last = len(tag.encode()) - 1 if tag and tag not in self.tag_tokens else 0
        return [
            rest
            for rest, progress in state.cursors
            if rest.is_tag and rest.tag == tag and progress == last
        ]

    # cost

    def costs(self, state: FieldState) -> dict[str, int]:
        """For every tag that can still be reached: the fewest tokens that finish its field and the
        tag."""
        if state.costs is None:
            costs = _least((r.tag, r.cost_from(progress)) for r, progress in state.cursors)
            state.costs = {tag: cost for tag, cost in costs.items() if cost < NEVER}
        return state.costs

    def own_costs(self, state: FieldState) -> dict[str, int]:
        """As `costs`, without what a branch repeats elsewhere."""
        return _least((r.tag, r.own_cost_from(progress)) for r, progress in state.cursors)

    def owed(self, state: FieldState, tag: str) -> int:
        """The tokens owed behind `tag`, which the next byte, or special token, completes."""
        return min(rest.part.owed for rest in self.completing(state, tag))


def _least(costs: Iterable[tuple[str, int]]) -> dict[str, int]:
    least: dict[str, int] = {}
    for tag, cost in costs:
        least[tag] = min(cost, least.get(tag, NEVER))
    return least
