"""A field's rest: a part and all that follows it, and the way to finish it that is counted on.

A field is a chain of parts; every place in it is a *cursor*, a `FieldRest` and the progress within
its first part. What finishes the field from there is worked out together with the tag scanner, so
that it spells no tag but the one that ends the field: first by the parts' own shortest endings, and
where those spell a tag, by search. What the parts are is in `nprdsl.masks.parts`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final

from nprdsl.regular.aho_corasick import ROOT
from nprdsl.regular.dfa import UTF8, Dfa
from nprdsl.regular.tag_scan import TagScan
from nprdsl.structure.field_split import BLANKS
from nprdsl.structure.tag_machine import END
from nprdsl.tokens.fresh_labels import FreshLabels
from nprdsl.tokens.spelling import NEVER, Spelling

_CONTINUATION: Final = range(0x80, 0xC0)  # the bytes of a character behind its first ones
Progress = Any  # known to its kind of part alone: a number, or the bytes of a label so far
Cursor = tuple["FieldRest", Progress]
_Place = tuple["FieldRest", Progress, int]  # a cursor and a node of the tag scanner


@dataclass(frozen=True, slots=True)
class FieldEnding:
    """The way to finish a field that is counted on: the bytes of each part left, and what they cost
    in tokens, with and without what a branch repeats elsewhere."""

    pieces: tuple[bytes, ...]
    cost: int
    own: int


NO_ENDING: Final = FieldEnding((), NEVER, NEVER)
_VISIBLE: Final = sorted(range(0x21, 0x7F), key=lambda byte: not chr(byte).isalnum())
_NOTHING: Final = FieldEnding((), 0, 0)


class FieldRest:
    """A part and what follows it in its field: `length` parts. `tag` ends the field; `cost` is the
    fewest tokens that finish it all from behind a tag, its own tag included; `starts` are the
    cursors at its beginning, those behind parts that may be empty included."""

    __slots__ = ("_endings", "cost", "length", "made_by", "part", "rest", "starts", "tag")

    def __init__(self, made_by: FieldRests, part: FieldPart, rest: FieldRest | None) -> None:
        self.made_by = made_by
        self.part = part
        self.rest = rest
        self.length: int = 1 if rest is None else 1 + rest.length
        self.tag: str = part.closes if rest is None else rest.tag
        self.starts: tuple[Cursor, ...] = ((self, part.start),)
        if part.may_be_empty:
            self.starts += self.after
        self._endings: dict[int, FieldEnding] = {}
        self.cost = self.ending(part.start, ROOT).cost

    @property
    def is_tag(self) -> bool:
        """Whether only the tag is left."""
        return self.rest is None

    @property
    def after(self) -> tuple[Cursor, ...]:
        """The cursors behind the part."""
        return self.rest.starts if self.rest is not None else ()

    def ending(self, progress: Progress, node: int) -> FieldEnding:
        """How to finish it all from within its first part, with the tag scanner at `node`, so that
        no tag is spelled but the one that ends the field."""
        if progress != self.part.start:
            return self.plain_ending(progress, node) or self._searched(progress, node)
        known = self._endings.get(node)
        if known is None:
            known = self.plain_ending(progress, node) or self._searched(progress, node)
            self._endings[node] = known
        return known

    @property
    def sum_of_parts(self) -> int:
        """The fewest tokens of all its parts, each by itself."""
        behind = self.rest.sum_of_parts if self.rest is not None else 0
        return self.part.whole_cost(self.made_by) + behind

    def plain_ending(self, progress: Progress, node: int) -> FieldEnding | None:
        """The part's own shortest ending, if that spells no tag with its neighbours."""
        scan = self.made_by.scan
        for piece in self.part.endings(progress, self.made_by):
            if self.rest is None:
                behind = _NOTHING if scan.closes(node, self.tag, progress) else NO_ENDING
            else:
                after, rest = scan.through(node, piece), self.rest
                behind = NO_ENDING if after is None else rest.ending(rest.part.start, after)
            whole = self.priced(progress, piece, behind)
            if whole.cost < NEVER:
                return whole
        return None

    def priced(self, progress: Progress, piece: bytes, behind: FieldEnding) -> FieldEnding:
        """The ending of the part by `piece`, and `behind` it."""
        cost, own = self.part.price(progress, piece, self.made_by)
        return FieldEnding((piece, *behind.pieces), cost + behind.cost, own + behind.own)

    def _searched(self, progress: Progress, node: int) -> FieldEnding:
        return self.made_by.searched(self, progress, node)

    def next_bytes(self, progress: Progress) -> Set[int]:
        """The bytes that may come next within its first part."""
        return self.part.next_bytes(progress, self.made_by)

    def following(self) -> frozenset[int]:
        """The bytes that may come behind the part."""
        return frozenset[int]().union(*(rest.next_bytes(at) for rest, at in self.after))

    def opening(self) -> bytes:
        """The bytes with which all of it must begin, as far as its parts are fixed."""
        data = self.part.fixed()
        if data is None:
            return b""
        return data + self.rest.opening() if self.rest is not None else data

    def owing(self, tokens: int) -> FieldRest:
        """The same with more tokens owed behind the tag."""
        rest = self.rest.owing(tokens) if self.rest is not None else None
        return self.made_by.link(self.part.owing(tokens), rest)


class FieldRests:
    """All rests of fields over one vocabulary; equal ones are the same object."""

    def __init__(self, scan: TagScan, tag_tokens: Mapping[str, int], spelling: Spelling) -> None:
        self.scan = scan
        self.tag_tokens = tag_tokens
        self.spelling = spelling
        self._known: dict[tuple[FieldPart, FieldRest | None], FieldRest] = {}
        self._searched: dict[tuple[FieldRest, Progress, int], FieldEnding] = {}
        self._labels: dict[Dfa, FreshLabels] = {}
        self._character_ends: dict[int, tuple[bytes, ...]] = {}

    def labels(self, dfa: Dfa) -> FreshLabels:
        """The labels of a terminal, those that a list has used left out as it asks."""
        labels = self._labels.get(dfa)
        if labels is None:
            labels = self._labels[dfa] = FreshLabels(dfa, self.spelling)
        return labels

    def tag_cost(self, tag: str) -> int:
        """The tokens of a tag."""
        return 1 if tag in self.tag_tokens else self.spelling.tokens(tag.encode())

    @cached_property
    def fillers(self) -> tuple[bytes, ...]:
        """Shortest texts that are not blank: one that touches no tag, whatever stands before it;
        where the vocabulary has none, every byte that may do."""
        touched, vocabulary = self.scan.touched, self.spelling.vocabulary
        visible = [byte for byte in _VISIBLE if vocabulary.single_bytes[byte]]
        clean = next((byte for byte in visible if byte not in touched), None)
        if clean is not None:
            return (bytes((clean,)),)
        blanks = BLANKS.encode()
        for token in range(vocabulary.size):
            data = vocabulary.bytes_of(token)
            if data.strip(blanks) and touched.isdisjoint(data) and UTF8.accepts(data):
                return (data,)
        return tuple(bytes((byte,)) for byte in visible)

    def character_ends(self, state: int) -> tuple[bytes, ...]:
        """The shortest ends of a character begun, in the state of the UTF-8 automaton; the others
        differ in the last byte, for where the first one spells a tag. Empty where none can be
        written."""
        ends = self._character_ends.get(state)
        if ends is None:
            first = self.spelling.completion(UTF8, state)
            ends = () if first is None else (first,)
            if first is not None and not self.scan.touched.isdisjoint(first):
                ends += tuple(self._alike(first))
            self._character_ends[state] = ends
        return ends

    def _alike(self, end: bytes) -> Iterator[bytes]:
        cost = self.spelling.tokens(end)
        for last in _CONTINUATION:
            other = end[:-1] + bytes((last,))
            if other != end and self.spelling.tokens(other) == cost:
                yield other

    def searched(self, rest: FieldRest, progress: Progress, node: int) -> FieldEnding:
        """The shortest ending by search over bytes that are tokens, and tokens that hold other
        bytes; for where the parts' own endings spell a tag. What is found stands for all places on
        the way, so that the ending of a later place is the tail of the ending of an earlier one."""
        known = self._searched.get((rest, progress, node))
        return known if known is not None else self._search((rest, progress, node))

    def _search(self, begin: _Place) -> FieldEnding:
        came: dict[_Place, tuple[_Place, bytes] | None] = {begin: None}
        for place in (queue := [begin]):
            rest, progress, node = place
            ending = None if place is begin else rest.plain_ending(progress, node)
            ending = ending or self._searched.get(place)
            if ending is NO_ENDING:
                continue
            if ending is not None:
                return self._trace_back(place, ending, came)
            for piece, after in self._moves(place):
                if after not in came:
                    came[after] = (place, piece)
                    queue.append(after)
        self._searched.update(dict.fromkeys(came, NO_ENDING))
        return NO_ENDING

    def _moves(self, place: _Place) -> Iterator[tuple[bytes, _Place]]:
        rest, progress, node = place
        usable, first = self.spelling.vocabulary.single_bytes, rest.next_bytes(progress)
        pieces = [bytes((byte,)) for byte in sorted(first, key=_plainness) if usable[byte]]
        pieces += [brick for brick in self.spelling.bricks if brick[0] in first]
        for piece in pieces:
            after = self.scan.through(node, piece)
            if after is not None:
                for further, at in _behind_piece(rest, progress, piece):
                    for settled, reached in further.part.settle(at, further):
                        yield piece, (settled, reached, after)

    def _trace_back(
        self, place: _Place, ending: FieldEnding, came: dict[_Place, tuple[_Place, bytes] | None]
    ) -> FieldEnding:
        """The ending of the first place on the way to `place`; those between are kept."""
        while (step := came[place]) is not None:
            before, piece = step
            rest, progress, _ = before
            skipped = rest.length - place[0].length
            pieces = (b"",) * skipped + ending.pieces
            ending = _priced(rest, progress, (piece + pieces[0], *pieces[1:]))
            place = before
            self._searched[place] = ending
        return ending

    def link(self, part: FieldPart, rest: FieldRest | None) -> FieldRest:
        """The part with that rest behind it; None where the part is the tag."""
        key = (part, rest)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = FieldRest(self, part, rest)
        return known


def _priced(rest: FieldRest, progress: Progress, pieces: tuple[bytes, ...]) -> FieldEnding:
    if rest.rest is None:
        return rest.priced(progress, pieces[0], _NOTHING)
    behind = _priced(rest.rest, rest.rest.part.start, pieces[1:])
    return rest.priced(progress, pieces[0], behind)


def _behind_piece(rest: FieldRest, progress: Progress, piece: bytes) -> Iterable[Cursor]:
    """The cursors behind bytes that lie within the first part."""
    cursors: Iterable[Cursor] = ((rest, progress),)
    for byte in piece:
        within = [at for here, at in cursors if here is rest]
        cursors = [cursor for at in within for cursor in rest.part.step(at, byte, rest)]
    return cursors


def _plainness(byte: int) -> tuple[bool, int]:
    return not chr(byte).isalnum(), byte


class FieldPart(ABC):
    """What one kind of part answers. `progress` is how far it is written; `rests` hold the
    vocabulary's spelling; `here` is the rest whose first part this is."""

    __slots__ = ()

    is_open: ClassVar[bool] = False  # bytes that are not known beforehand may follow

    @property
    def may_be_empty(self) -> bool:
        return False

    @property
    def is_counted(self) -> bool:
        """Whether a branch repeats it token by token, so that each token costs two."""
        return False

    @property
    def start(self) -> Progress:
        """The progress at the beginning."""
        return 0

    @property
    @abstractmethod
    def name(self) -> str:
        """Equal for parts whose masks are equal, in all processes: part of the keys of the cache on
        disk. `LiteralPart.tokens` and `TagPart.counted` are left out: they change what the end
        costs, not which tokens may come next."""

    @abstractmethod
    def step(self, progress: Progress, byte: int, here: FieldRest) -> Iterable[Cursor]:
        """The cursors behind one more byte; none if it may not stand there."""

    @abstractmethod
    def endings(self, progress: Progress, rests: FieldRests) -> tuple[bytes, ...]:
        """Short ways to finish the part, the one that is counted on first; none if it cannot be
        finished. What is left of one behind a token is the first one there."""

    def price(self, progress: Progress, ending: bytes, rests: FieldRests) -> tuple[int, int]:
        """The fewest tokens of an ending, with and without what a branch must repeat."""
        tokens = rests.spelling.tokens(ending)
        return tokens, tokens

    def whole_cost(self, rests: FieldRests) -> int:
        """The fewest tokens of the part, whatever stands beside it."""
        endings = self.endings(self.start, rests)
        return self.price(self.start, endings[0], rests)[0] if endings else NEVER

    @abstractmethod
    def next_bytes(self, progress: Progress, rests: FieldRests) -> Set[int]:
        """The bytes that may come next within the part."""

    def settle(self, progress: Progress, here: FieldRest) -> Iterable[Cursor]:
        """The cursors once a token has ended there."""
        return ((here, progress),)

    # free text

    def text_state(self, progress: Progress) -> int | None:
        """The state of the UTF-8 automaton within free text; None outside of it."""
        return None

    def is_filled(self, progress: Progress) -> bool:
        """Whether free text holds something that is not blank."""
        return False

    def behind_text(
        self, progress: Progress, state: int, here: FieldRest, *, filled: bool
    ) -> Iterable[Cursor]:
        """The cursors behind more free text that ends in that UTF-8 state."""
        return ()

    # values

    def value(self, progress: Progress, rests: FieldRests) -> tuple[Dfa, int] | None:
        """The automaton of a value, and its state; None if the part is no value."""
        return None

    def reached(self, progress: Progress, data: bytes, state: int) -> Progress:
        """The progress behind more bytes of a value, which lead to a state of its automaton."""
        return state

    def forbidden(self, progress: Progress, rests: FieldRests) -> Iterable[bytes]:
        """Tokens' bytes that the pattern takes here, but behind which all values may be taken."""
        return ()

    # what must stand there

    @property
    def closes(self) -> str:
        """The tag, if the part is the tag that ends a field."""
        return END

    def fixed(self) -> bytes | None:
        """The bytes that the part must consist of; None if there is a choice."""
        return None

    def dictated(self, progress: Progress) -> tuple[int, ...]:
        """The very tokens that must come next; none if any spelling will do."""
        return ()

    @property
    def owed(self) -> int:
        """Tokens owed behind a tag, to repeat what stood before it."""
        return 0

    def owing(self, tokens: int) -> FieldPart:
        """The part with more tokens owed behind it, if it is a tag."""
        return self
