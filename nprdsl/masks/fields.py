"""The byte automaton of a field: everything that may stand between two tags, and the tag itself.

A `FieldState` is a set of cursors in the fields that may stand here (`nprdsl.masks.parts`) and a
node of the tag scanner; it is shared by all places of a trace where the same may follow, whatever
the counts and labels around it. Bytes move it (`step`). Every state knows how many tokens finish
its field and tag, so that a legal end can always be reserved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nprdsl.masks.field_rests import Cursor, FieldRest, FieldRests
from nprdsl.masks.parts import U8_START
from nprdsl.regular.aho_corasick import ROOT
from nprdsl.regular.tag_scan import TagScan
from nprdsl.tokens.spelling import NEVER, Spelling


class FieldState:
    """A set of cursors and a scanner node. `moves` and `tokens` memoise bytes and whole tokens."""

    __slots__ = ("costs", "cursors", "even", "moves", "node", "prose", "settled", "tokens")

    def __init__(self, node: int, cursors: frozenset[Cursor]) -> None:
        self.node = node
        self.cursors = cursors
        self.moves: dict[int, FieldState | str | None] = {}
        self.tokens: dict[int, FieldState] = {}
        self.settled: FieldState | None = None
        self.prose: FieldState | None = None  # where clean prose leads, see `MaskTable.clean`
        self.costs: dict[str, int] | None = None
        self.even: bool | None = None  # see `FieldMachine.is_even`

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
        self.rests = FieldRests(scan, tag_tokens, spelling)
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

    # free text

    def is_even(self, state: FieldState) -> bool:
        """Whether it makes no difference for the end of the free text of this state which tags the
        text has begun to spell."""
        if state.even is None:
            texts = [rest for rest, at in state.cursors if rest.part.text_state(at) is not None]
            behind = [rest.rest for rest in texts if rest.rest is not None]
            apart = self.scan.apart
            state.even = all(r.is_tag and (not r.tag or r.tag in apart) for r in behind)
        return state.even

    def behind_text(
        self, state: FieldState, end: int, *, filled: bool, node: int = ROOT
    ) -> FieldState:
        """The state behind more free text that completes no tag and ends in a UTF-8 state and a
        node of the tag scanner; `filled`: it is not all blank."""
        cursors = (
            cursor
            for rest, progress in state.cursors
            for cursor in rest.part.behind_text(progress, end, rest, filled=filled)
        )
        return self._share(node, cursors)

    def prose(self, state: FieldState) -> FieldState | None:
        """Where any whole, filled stretch of prose without the beginning of a tag leads from here;
        None if this state is not between characters of free text, or inside a tag begun."""
        if state.prose is None and state.node == ROOT:
            if state.text_state != U8_START or state.is_counted or not _is_text_alone(state):
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
            if state.text_state != U8_START or state.is_counted or not _is_text_alone(state):
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
        special = tag in self.tag_tokens
        if special and not self.scan.closes(state.node, tag):
            return []
        last = len(tag.encode()) - 1 if tag and not special else 0
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
            node = state.node
            costs = _least((r.tag, r.ending(at, node).cost) for r, at in state.cursors)
            state.costs = {tag: cost for tag, cost in costs.items() if cost < NEVER}
        return state.costs

    def own_costs(self, state: FieldState) -> dict[str, int]:
        """As `costs`, without what a branch repeats elsewhere."""
        node = state.node
        return _least((r.tag, r.ending(at, node).own) for r, at in state.cursors)

    def owed(self, state: FieldState, tag: str) -> int:
        """The tokens owed behind `tag`, which the next byte, or special token, completes."""
        return min(rest.part.owed for rest in self.completing(state, tag))


def _is_text_alone(state: FieldState) -> bool:
    """Whether nothing may stand here but free text, what follows it, and tags: no value, and no
    literal, in its place."""
    behind: set[FieldRest | None] = set()
    for rest, progress in state.cursors:
        here = rest if rest.part.text_state(progress) is not None else None
        while here is not None and here not in behind:
            behind.add(here)
            here = here.rest
    return all(rest.is_tag or rest in behind for rest, _ in state.cursors)


def _least(costs: Iterable[tuple[str, int]]) -> dict[str, int]:
    least: dict[str, int] = {}
    for tag, cost in costs:
        least[tag] = min(cost, least.get(tag, NEVER))
    return least
