"""The byte automaton of a field: everything that may stand between two tags, and the tag itself.

A field is a chain of parts (literal, glue, free text, regular, fresh label) ended by a tag. A
`Local` state is a set of places in such chains together with the node of the tag scanner; it is
shared by all places of a trace where the same may follow, whatever the counts and labels around it.
Bytes move it (`step`). Every place knows how many tokens finish its field and tag, so that a legal
end can always be reserved.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from nprdsl.masks.parts import (
    AnyGluePart,
    Chain,
    FreshPart,
    LiteralPart,
    Part,
    Place,
    Progress,
    RegularPart,
    TagPart,
    TextPart,
)
from nprdsl.masks.tag_scanner import TagScan
from nprdsl.regular.aho_corasick import ROOT
from nprdsl.regular.dfa import utf8_dfa
from nprdsl.structure.field_content import BLANKS
from nprdsl.structure.tag_machine import END
from nprdsl.tokens.spelling import NEVER, Spelling
from nprdsl.trace.lexemes import TagMode

BLANK_BYTES: Final = frozenset(BLANKS.encode())

_UTF8 = utf8_dfa()
_UTF8_ROWS: Final[list[list[int]]] = _UTF8.table.tolist()
U8_START: Final = int(_UTF8.start)
_U8_STATES: Final = len(_UTF8_ROWS)
TEXT_START: Final = U8_START  # progress of free text: UTF-8 state, plus _U8_STATES once not blank
_WAITS: Final = -1  # a counted text begins and ends between tokens only


class Local:
    """A set of places and a scanner node. `moves` and `tokens` memoise bytes and whole tokens."""

    __slots__ = ("costs", "hub", "key", "moves", "node", "places", "settled", "tokens")

    def __init__(self, key: int, node: int, places: frozenset[Place]) -> None:
        self.key = key
        self.node = node
        self.places = places
        self.moves: dict[int, Local | str | None] = {}
        self.tokens: dict[int, Local] = {}
        self.settled: Local | None = None
        self.hub: Local | None = None  # where clean prose leads, see `Rows.clean`
        self.costs: dict[str, int] | None = None


class FieldMachine:
    """All local states of one schema over one vocabulary; they are shared and memoised."""

    def __init__(self, scan: TagScan, mode: TagMode, spelling: Spelling) -> None:
        self.scan = scan
        self.mode = mode
        self.spelling = spelling
        self._chains: dict[tuple[Part, Chain | None], Chain] = {}
        self.known: dict[tuple[int, frozenset[Place]], Local] = {}
        self._starts: dict[tuple[Chain, ...], Local] = {}
        self._behind: dict[Local, Local] = {}  # see `hub_behind`

    # building

    def chain(self, parts: tuple[Part, ...], tag: str) -> Chain:
        counted = any(isinstance(part, TextPart) and part.counted for part in parts)
        chain = self._link(TagPart(tag, tag.encode(), counted=counted), None)
        for part in reversed(parts):
            chain = self._link(part, chain)
        return chain

    def _link(self, part: Part, rest: Chain | None) -> Chain:
        key = (part, rest)
        found = self._chains.get(key)
        if found is None:
            cost = self.part_cost(part, _start(part)) + (rest.cost if rest is not None else 0)
            found = self._chains[key] = Chain(part, rest, min(cost, NEVER))
        return found

    def start(self, chains: tuple[Chain, ...]) -> Local:
        """The state right behind a tag where any of these fields may follow."""
        found = self._starts.get(chains)
        if found is None:
            places: set[Place] = set()
            for chain in chains:
                self._begin(chain, places)
            found = self._starts[chains] = self.settle(self._share(ROOT, places))
        return found

    def _share(self, node: int, places: set[Place]) -> Local:
        key = (node, frozenset(places))
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = Local(len(self.known), node, key[1])
        return found

    def _owing(self, chain: Chain | None, tokens: int) -> Chain:
        """The chain with more tokens owed behind its tag."""
        assert chain is not None
        if chain.rest is not None:
            return self._link(chain.part, self._owing(chain.rest, tokens))
        assert isinstance(chain.part, TagPart)
        return self._link(replace(chain.part, reserve=chain.part.reserve + tokens), None)

    def text_hub(self, local: Local, state: int, *, filled: bool) -> Local:
        """The state behind more free text that leads to this UTF-8 state and touches no tag."""
        places: set[Place] = set()
        for chain, progress in local.places:
            if isinstance(chain.part, TextPart) and progress != _WAITS:
                places.add((chain, text_place(state, filled=filled)))
                if filled and state == U8_START:
                    self._begin(chain.rest, places)
        return self._share(ROOT, places)

    def hub(self, local: Local) -> Local | None:
        """Where any whole, filled stretch of prose without the beginning of a tag leads from here;
        None if this state is not between characters of free text, or inside a tag begun."""
        if local.hub is None and local.node == ROOT:
            text = text_of(local)
            if text is None or text[1] != U8_START or counts(local):
                return None
            local.hub = self.text_hub(local, U8_START, filled=True)
            local.hub.hub = local.hub
        return local.hub

    def hub_behind(self, local: Local, byte: int) -> Local | None:
        """As `hub` for prose that begins with `byte`, where it breaks off a tag begun; None where a
        tag goes on or the text of a branch is counted."""
        if byte in self.scan.moves[local.node]:
            return None
        found = self._behind.get(local)
        if found is None:
            text = text_of(local)
            if text is None or text[1] != U8_START or counts(local):
                return None
            found = self._behind[local] = self.text_hub(local, U8_START, filled=True)
        return found

    def only(self, local: Local, place: Place) -> Local:
        """The state with just one of its places."""
        return self._share(local.node, {place})

    def is_filled(self, local: Local) -> bool:
        """Whether the free text of this state already holds something that is not blank."""
        return any(
            isinstance(c.part, TextPart) and isinstance(p, int) and p >= _U8_STATES
            for c, p in local.places
        )

    # moving

    def step(self, local: Local, byte: int) -> Local | str | None:
        """The next state; the tag that this byte completes; None if the byte may not stand here."""
        try:
            return local.moves[byte]
        except KeyError:
            moved = local.moves[byte] = self._step(local, byte)
            return moved

    def _step(self, local: Local, byte: int) -> Local | str | None:
        node = self.scan.moves[local.node].get(byte, ROOT)
        tag = self.scan.ends[node]
        if tag:
            written = self.mode is TagMode.TEXT and any(
                isinstance(c.part, TagPart) and c.part.tag == tag and p == len(c.part.data) - 1
                for c, p in local.places
            )
            return tag if written else None
        places: set[Place] = set()
        for chain, progress in local.places:
            self._move(chain, progress, byte, places)
        return self._share(node, places) if places else None

    def _move(self, chain: Chain, progress: Progress, byte: int, into: set[Place]) -> None:
        part = chain.part
        if isinstance(part, TextPart):
            self._move_text(chain, part, progress, byte, into)
        elif isinstance(part, LiteralPart):
            assert isinstance(progress, int)
            if part.data[progress] == byte:
                if progress + 1 == len(part.data):
                    self._begin(chain.rest, into)
                else:
                    into.add((chain, progress + 1))
        elif isinstance(part, TagPart):
            assert isinstance(progress, int)
            spelled = self.mode is TagMode.TEXT and part.data
            if spelled and part.data[progress] == byte:
                into.add((self._inside(chain, part), progress + 1))
        elif isinstance(part, RegularPart):
            assert isinstance(progress, int)
            state = int(part.dfa.table[progress, byte])
            if state and self.spelling.completion(part.dfa, state) is not None:
                into.add((chain, state))
                if part.dfa.accepting[state]:
                    self._begin(chain.rest, into)
        elif isinstance(part, FreshPart):
            assert isinstance(progress, bytes)
            label = progress + bytes((byte,))
            if self.spelling.fresh(part.dfa, label, part.taken) is not None:
                into.add((chain, label))
                ends = part.dfa.accepting[self.spelling.state(part.dfa, label)]
                if ends and label not in part.taken:
                    self._begin(self._owing(chain.rest, self.spelling.tokens(label)), into)
        elif byte in BLANK_BYTES:
            self._begin(chain, into)

    def _inside(self, chain: Chain, part: TagPart) -> Chain:
        """The tag with one of its tokens begun."""
        if not part.counted or part.inside:
            return chain
        return self._link(replace(part, reserve=part.reserve - 1, inside=True), None)

    def _move_text(
        self, chain: Chain, part: TextPart, progress: Progress, byte: int, into: set[Place]
    ) -> None:
        assert isinstance(progress, int)
        if progress == _WAITS:
            return
        filled = progress >= _U8_STATES
        state = _UTF8_ROWS[progress - _U8_STATES if filled else progress][byte]
        if not state:
            return
        filled = filled or byte not in BLANK_BYTES
        into.add((chain, state + _U8_STATES if filled else state))
        if filled and state == U8_START and not part.counted:
            self._begin(chain.rest, into)

    def _begin(self, chain: Chain | None, into: set[Place]) -> None:
        """The first place of a chain, and of the next where the part may be empty."""
        assert chain is not None
        part = chain.part
        if isinstance(part, TextPart) and part.counted:
            into.add((chain, _WAITS))
            return
        into.add((chain, _start(part)))
        empty = isinstance(part, AnyGluePart) or (
            isinstance(part, RegularPart) and bool(part.dfa.accepting[part.dfa.start])
        )
        if empty:
            self._begin(chain.rest, into)

    def settle(self, local: Local) -> Local:
        """The state between two tokens: counted texts may begin and end here."""
        if local.settled is None:
            local.settled = self._settle(local)
            local.settled.settled = local.settled
        return local.settled

    def _settle(self, local: Local) -> Local:
        places = set(local.places)
        for chain, progress in local.places:
            if isinstance(chain.part, TagPart) and chain.part.inside:
                places.discard((chain, progress))
                places.add((self._link(replace(chain.part, inside=False), None), progress))
            if not (isinstance(chain.part, TextPart) and chain.part.counted):
                continue
            if progress == _WAITS:
                places.discard((chain, progress))
                places.add((chain, TEXT_START))
            elif progress == U8_START + _U8_STATES:
                self._begin(chain.rest, places)
        return self._share(local.node, places)

    # cost

    def costs(self, local: Local) -> dict[str, int]:
        """For every tag that may come next: the fewest tokens that finish its field and the tag."""
        if local.costs is None:
            found: dict[str, int] = {}
            for chain, progress in local.places:
                rest = chain.rest.cost if chain.rest is not None else 0
                cost = self.part_cost(chain.part, progress) + rest
                tag = _tag_of(chain)
                if cost < found.get(tag, NEVER):
                    found[tag] = cost
            local.costs = found
        return local.costs

    def own_costs(self, local: Local) -> dict[str, int]:
        """As `costs`, without what a branch repeats elsewhere."""
        found: dict[str, int] = {}
        for place in local.places:
            chain: Chain | None = place[0]
            progress, cost = place[1], 0
            while chain is not None:
                cost += self._own_cost(chain.part, progress)
                chain = chain.rest
                progress = _start(chain.part) if chain is not None else 0
            tag = _tag_of(place[0])
            found[tag] = min(cost, found.get(tag, NEVER))
        return found

    def _own_cost(self, part: Part, progress: Progress) -> int:
        if isinstance(part, TagPart):
            return self.part_cost(replace(part, reserve=0), progress)
        if isinstance(part, TextPart):
            return self.part_cost(TextPart(), progress)
        if isinstance(part, FreshPart) and isinstance(progress, bytes):
            fresh = self.spelling.fresh(part.dfa, progress, part.taken)
            return NEVER if fresh is None else self.spelling.tokens(fresh)
        return self.part_cost(part, progress)

    def part_cost(self, part: Part, progress: Progress) -> int:
        """The fewest tokens that finish the part from here; what a branch must repeat counts
        twice."""
        if isinstance(part, TagPart):
            if part.tag == END or self.mode is TagMode.SPECIAL:
                return 0 if part.tag == END else 1 + part.reserve
            assert isinstance(progress, int)
            return self.spelling.tokens(part.data[progress:]) + part.reserve
        if isinstance(part, LiteralPart):
            assert isinstance(progress, int)
            if part.tokens and not progress:
                return len(part.tokens)
            return self.spelling.tokens(part.data[progress:])
        if isinstance(part, TextPart):
            assert isinstance(progress, int)
            return self._text_cost(progress) * (2 if part.counted else 1)
        if isinstance(part, RegularPart):
            assert isinstance(progress, int)
            completion = self.spelling.completion(part.dfa, progress)
            return NEVER if completion is None else self.spelling.tokens(completion)
        if isinstance(part, FreshPart):
            assert isinstance(progress, bytes)
            fresh = self.spelling.fresh(part.dfa, progress, part.taken)
            if fresh is None:
                return NEVER
            return self.spelling.tokens(fresh) + self.spelling.tokens(progress + fresh)
        return 0

    def owed(self, local: Local, tag: str) -> int:
        """The tokens owed behind `tag`, which the next byte, or special token, completes."""
        return min(
            chain.part.reserve + chain.part.inside
            for chain, progress in local.places
            if isinstance(chain.part, TagPart)
            and chain.part.tag == tag
            and progress == (len(tag.encode()) - 1 if tag and self.mode is TagMode.TEXT else 0)
        )

    def _text_cost(self, progress: int) -> int:
        if progress == _WAITS:
            progress = TEXT_START
        filled = progress >= _U8_STATES
        state = progress - _U8_STATES if filled else progress
        if state == U8_START:
            return 0 if filled else self.spelling.filler
        return self.spelling.utf8_tail(state)


def text_of(local: Local) -> tuple[Chain, int] | None:
    """The free text that this state is in, with its UTF-8 state; None if it is in none."""
    for chain, progress in local.places:
        if isinstance(chain.part, TextPart) and isinstance(progress, int) and progress != _WAITS:
            return chain, progress % _U8_STATES
    return None


def counts(local: Local) -> bool:
    """Whether the state is inside a text that a branch repeats, so that each token costs two."""
    return any(
        isinstance(chain.part, TextPart) and chain.part.counted and progress != _WAITS
        for chain, progress in local.places
    )


def text_place(state: int, *, filled: bool) -> int:
    """The progress of free text in a UTF-8 state."""
    return state + _U8_STATES if filled else state


def _start(part: Part) -> Progress:
    if isinstance(part, TextPart):
        return TEXT_START
    if isinstance(part, RegularPart):
        return int(part.dfa.start)
    if isinstance(part, FreshPart):
        return b""
    return 0


def _tag_of(chain: Chain) -> str:
    while chain.rest is not None:
        chain = chain.rest
    assert isinstance(chain.part, TagPart)
    return chain.part.tag
