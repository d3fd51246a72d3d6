"""The parts of a field: fixed bytes, glue, free text, values, and the tag that ends it.

A field is what may stand between two tags. The byte automaton (`nprdsl.masks.fields`) walks it part
by part, one byte at a time; masks, costs, forced runs and the cache on disk ask the parts what they
need to know. Each kind of part is one class: a new kind is a new subclass of `FieldPart`.

A *cursor* is a place in a field: a `FieldRest` (a part and all that follows it) and the progress
within its first part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, ClassVar, Final

import numpy as np

from nprdsl.grammar.ir import Terminal, TerminalKind
from nprdsl.masks import item_ways
from nprdsl.masks.item_ways import NO_ITEM, Ways
from nprdsl.regular.dfa import Dfa, compile_regex, utf8_dfa
from nprdsl.structure.field_split import BLANKS
from nprdsl.structure.tag_machine import END
from nprdsl.tokens.fresh_labels import FreshLabels, Taken
from nprdsl.tokens.spelling import NEVER, Spelling

BLANK_BYTES: Final = frozenset(BLANKS.encode())
_ALL_BYTES: Final = frozenset(range(256))

_UTF8: Final = utf8_dfa()
_UTF8_ROWS: Final[list[list[int]]] = _UTF8.table.tolist()
U8_START: Final = int(_UTF8.start)
_U8_STATES: Final = len(_UTF8_ROWS)
_WAITS: Final = -1  # a counted text begins and ends between tokens only

Progress = Any  # known to its kind of part alone: a number, or the bytes of a label so far
Cursor = tuple["FieldRest", Progress]


class FieldRest:
    """A part and what follows it in its field. `tag` ends the field; `cost` is the fewest tokens
    that finish it all, tag included; `starts` are the cursors at its beginning, those behind parts
    that may be empty included."""

    __slots__ = ("cost", "made_by", "part", "rest", "starts", "tag")

    def __init__(self, made_by: FieldRests, part: FieldPart, rest: FieldRest | None) -> None:
        self.made_by = made_by
        self.part = part
        self.rest = rest
        self.tag: str = part.closes if rest is None else rest.tag
        self.cost = min(self.cost_from(part.start), NEVER)
        self.starts: tuple[Cursor, ...] = ((self, part.start),)
        if part.may_be_empty:
            self.starts += self.after

    @property
    def is_tag(self) -> bool:
        """Whether only the tag is left."""
        return self.rest is None

    @property
    def after(self) -> tuple[Cursor, ...]:
        """The cursors behind the part."""
        return self.rest.starts if self.rest is not None else ()

    def cost_from(self, progress: Progress) -> int:
        """The fewest tokens that finish it all from within its first part."""
        behind = self.rest.cost if self.rest is not None else 0
        return self.part.cost(progress, self.made_by) + behind

    def own_cost_from(self, progress: Progress) -> int:
        """As `cost_from`, without what a branch repeats elsewhere."""
        cost, rest = self.part.own_cost(progress, self.made_by), self.rest
        return cost if rest is None else cost + rest.own_cost_from(rest.part.start)

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

    def __init__(self, tag_tokens: Mapping[str, int], spelling: Spelling) -> None:
        self.tag_tokens = tag_tokens
        self.spelling = spelling
        self._known: dict[tuple[FieldPart, FieldRest | None], FieldRest] = {}
        self._labels: dict[Dfa, FreshLabels] = {}

    def labels(self, dfa: Dfa) -> FreshLabels:
        """The labels of a terminal, those that a list has used left out as it asks."""
        labels = self._labels.get(dfa)
        if labels is None:
            labels = self._labels[dfa] = FreshLabels(dfa, self.spelling)
        return labels

    def tag_cost(self, tag: str) -> int:
        """The tokens of a tag."""
        return 1 if tag in self.tag_tokens else self.spelling.tokens(tag.encode())

    def link(self, part: FieldPart, rest: FieldRest | None) -> FieldRest:
        """The part with that rest behind it; None where the part is the tag."""
        key = (part, rest)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = FieldRest(self, part, rest)
        return known

    def field(self, parts: tuple[FieldPart, ...], tag: str) -> FieldRest:
        """A whole field: the parts, and the tag behind them."""
        counted = any(part.is_counted for part in parts)
        data = b"" if tag in self.tag_tokens else tag.encode()
        rest = self.link(TagPart(tag, data, counted=counted), None)
        for part in reversed(parts):
            rest = self.link(part, rest)
        return rest


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
    def cost(self, progress: Progress, rests: FieldRests) -> int:
        """The fewest tokens that finish the part; what a branch must repeat counts twice."""

    def whole_cost(self, rests: FieldRests) -> int:
        """The fewest tokens of the part."""
        return self.cost(self.start, rests)

    def own_cost(self, progress: Progress, rests: FieldRests) -> int:
        """As `cost`, without what a branch repeats."""
        return self.cost(progress, rests)

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

    def forbidden(self, progress: Progress, rests: FieldRests) -> Iterable[bytes]:
        """Tokens' bytes that the pattern takes here, but behind which all values are taken."""
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


@dataclass(frozen=True, slots=True)
class LiteralPart(FieldPart):
    """Fixed bytes; `tokens` where they must be these, as a branch repeats a text."""

    data: bytes
    tokens: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return f"L{self.data!r}"

    def step(self, progress: int, byte: int, here: FieldRest) -> Iterable[Cursor]:
        if self.data[progress] != byte:
            return ()
        return ((here, progress + 1),) if progress + 1 < len(self.data) else here.after

    def cost(self, progress: int, rests: FieldRests) -> int:
        if self.tokens and not progress:
            return len(self.tokens)
        return rests.spelling.tokens(self.data[progress:])

    def next_bytes(self, progress: int, rests: FieldRests) -> Set[int]:
        return {self.data[progress]}

    def fixed(self) -> bytes:
        return self.data

    def dictated(self, progress: int) -> tuple[int, ...]:
        return () if progress else self.tokens


@dataclass(frozen=True, slots=True)
class TextPart(FieldPart):
    """Free text; `counted` if a branch repeats it, token by token.

    Its progress is the state of the UTF-8 automaton, plus the number of such states once something
    is not blank.
    """

    counted: bool = False
    is_open = True

    @property
    def is_counted(self) -> bool:
        return self.counted

    @property
    def start(self) -> int:
        return _WAITS if self.counted else U8_START

    @property
    def name(self) -> str:
        return f"T{int(self.counted)}"

    def step(self, progress: int, byte: int, here: FieldRest) -> Iterable[Cursor]:
        if progress == _WAITS:
            return ()
        filled = progress >= _U8_STATES
        state = _UTF8_ROWS[progress - _U8_STATES if filled else progress][byte]
        if not state:
            return ()
        return self._at(state, here, filled or byte not in BLANK_BYTES, self.counted)

    def cost(self, progress: int, rests: FieldRests) -> int:
        state = self.text_state(progress)
        if state is None or state == U8_START:
            own = 0 if self.is_filled(progress) else rests.spelling.filler
        else:
            own = rests.spelling.utf8_tail(state)
        return 2 * own if self.counted else own

    def own_cost(self, progress: int, rests: FieldRests) -> int:
        return TextPart().cost(progress, rests)

    def next_bytes(self, progress: int, rests: FieldRests) -> Set[int]:
        return _ALL_BYTES

    def settle(self, progress: int, here: FieldRest) -> Iterable[Cursor]:
        if not self.counted:
            return ((here, progress),)
        if progress == _WAITS:
            return ((here, U8_START),)
        ended = progress == U8_START + _U8_STATES
        return ((here, progress), *here.after) if ended else ((here, progress),)

    def text_state(self, progress: int) -> int | None:
        return None if progress == _WAITS else progress % _U8_STATES

    def is_filled(self, progress: int) -> bool:
        return progress >= _U8_STATES

    def behind_text(
        self, progress: int, state: int, here: FieldRest, *, filled: bool
    ) -> Iterable[Cursor]:
        return () if progress == _WAITS else self._at(state, here, filled, counted=False)

    def _at(self, state: int, here: FieldRest, filled: bool, counted: bool) -> tuple[Cursor, ...]:
        """The cursors within the text and, where it may end, behind it."""
        if not filled:
            return ((here, state),)
        cursor = (here, state + _U8_STATES)
        return (cursor,) if counted or state != U8_START else (cursor, *here.after)


@dataclass(frozen=True, slots=True)
class ValuePart(FieldPart):
    """A value of a terminal that has a pattern."""

    dfa: Dfa
    is_open = True

    @property
    def name(self) -> str:
        return self._name(None)

    def _name(self, taken: list[bytes] | None) -> str:
        table = sha256(self.dfa.table.tobytes() + self.dfa.accepting.tobytes())
        return f"R{table.hexdigest()[:16]}{taken!r}"

    @abstractmethod
    def value(self, progress: Progress, rests: FieldRests) -> tuple[Dfa, int]: ...

    def next_bytes(self, progress: Progress, rests: FieldRests) -> Set[int]:
        dfa, state = self.value(progress, rests)
        row, completion = dfa.table[state], rests.spelling.completion
        return {b for b in np.flatnonzero(row).tolist() if completion(dfa, int(row[b])) is not None}


@dataclass(frozen=True, slots=True)
class RegularPart(ValuePart):
    """Any value. Its progress is the state of its automaton."""

    @property
    def may_be_empty(self) -> bool:
        return bool(self.dfa.accepting[self.dfa.start])

    @property
    def start(self) -> int:
        return int(self.dfa.start)

    def value(self, progress: int, rests: FieldRests) -> tuple[Dfa, int]:
        return self.dfa, progress

    def step(self, progress: int, byte: int, here: FieldRest) -> Iterable[Cursor]:
        state = int(self.dfa.table[progress, byte])
        if not state or here.made_by.spelling.completion(self.dfa, state) is None:
            return ()
        cursor = (here, state)
        return (cursor, *here.after) if self.dfa.accepting[state] else (cursor,)

    def cost(self, progress: int, rests: FieldRests) -> int:
        ending = rests.spelling.completion(self.dfa, progress)
        return NEVER if ending is None else rests.spelling.tokens(ending)


@dataclass(frozen=True, slots=True)
class FreshPart(ValuePart):
    """A value that a branch repeats; none of `taken`. Its progress is the value so far. `later` are
    the ways to go on with its list, where more labels must follow: they cost the more, the cheaper
    a label is taken here."""

    taken: Taken
    later: Ways = NO_ITEM

    @property
    def start(self) -> bytes:
        return b""

    @property
    def name(self) -> str:
        return self._name(sorted(self.taken))

    def value(self, progress: bytes, rests: FieldRests) -> tuple[Dfa, int]:
        return self.dfa, rests.spelling.state(self.dfa, progress)

    def step(self, progress: bytes, byte: int, here: FieldRest) -> Iterable[Cursor]:
        label, rests = progress + bytes((byte,)), here.made_by
        if not rests.labels(self.dfa).may_begin(label, self.taken):
            return ()
        ends = self.dfa.accepting[rests.spelling.state(self.dfa, label)]
        if not ends or label in self.taken or here.rest is None:
            return ((here, label),)
        return ((here, label), *here.rest.owing(self._owed(label, rests)).starts)

    def cost(self, progress: bytes, rests: FieldRests) -> int:
        ending = rests.labels(self.dfa).ending(progress, self.taken)
        if ending is None:
            return NEVER
        return rests.spelling.tokens(ending) + self._owed(progress + ending, rests)

    def own_cost(self, progress: bytes, rests: FieldRests) -> int:
        ending = rests.labels(self.dfa).ending(progress, self.taken)
        return NEVER if ending is None else rests.spelling.tokens(ending)

    def _owed(self, label: bytes, rests: FieldRests) -> int:
        """The tokens of the branch's repeat, and what the label takes from those that follow."""
        repeat = rests.spelling.tokens(label)
        if self.later == NO_ITEM:
            return repeat
        labels = rests.labels(self.dfa)
        before = item_ways.cost(self.later, labels, self.taken, repeats=2)
        after = item_ways.cost(self.later, labels, self.taken, label, repeats=2)
        return repeat + after - before if after < NEVER else NEVER

    def forbidden(self, progress: bytes, rests: FieldRests) -> Iterable[bytes]:
        labels, trie, at = rests.labels(self.dfa), rests.spelling.vocabulary.trie, len(progress)
        begun = labels.begun(progress, self.taken)
        ends = {label[: at + n] for label in begun for n, _ in trie.tokens_at(label, at)}
        return (end[at:] for end in ends if not labels.may_begin(end, self.taken))


@dataclass(frozen=True, slots=True)
class TagPart(FieldPart):
    """The tag that ends a field, or the end; `data` are the bytes that spell it, none where it is
    one special token. `reserve` tokens are owed behind it: a branch's repeat of a label.

    A spelled tag behind a counted text is `counted` too: its tokens might still be text, and are
    counted as such, so each of them takes one off the reserve; `inside` while one is being read.
    """

    tag: str
    data: bytes
    reserve: int = 0
    counted: bool = False
    inside: bool = False

    @property
    def name(self) -> str:
        return f"{self.tag!r}{self.reserve}"

    @property
    def closes(self) -> str:
        return self.tag

    def step(self, progress: int, byte: int, here: FieldRest) -> Iterable[Cursor]:
        if not self.data or self.data[progress] != byte:
            return ()
        if self.counted and not self.inside:
            begun = replace(self, reserve=self.reserve - 1, inside=True)
            here = here.made_by.link(begun, None)
        return ((here, progress + 1),)

    def cost(self, progress: int, rests: FieldRests) -> int:
        return self.own_cost(progress, rests) + (self.reserve if self.tag != END else 0)

    def own_cost(self, progress: int, rests: FieldRests) -> int:
        if not self.data:
            return int(self.tag != END)
        return rests.spelling.tokens(self.data[progress:])

    def next_bytes(self, progress: int, rests: FieldRests) -> Set[int]:
        return {*self.data[progress : progress + 1]}

    def settle(self, progress: int, here: FieldRest) -> Iterable[Cursor]:
        if self.inside:
            here = here.made_by.link(replace(self, inside=False), None)
        return ((here, progress),)

    def fixed(self) -> bytes:
        return self.data

    @property
    def owed(self) -> int:
        return self.reserve + self.inside

    def owing(self, tokens: int) -> FieldPart:
        return replace(self, reserve=self.reserve + tokens)


def part_of(terminal: Terminal) -> FieldPart:
    """The part of a terminal whose value no branch repeats; glue as the runtime emits it."""
    if terminal.kind is TerminalKind.GLUE:
        return LiteralPart(terminal.literal.encode())
    if terminal.kind is TerminalKind.TEXT:
        return TextPart()
    return RegularPart(compile_regex(terminal.pattern))


def any_glue() -> FieldPart:
    """Any white space, or none."""
    return RegularPart(compile_regex(f"[{BLANKS}]*"))
