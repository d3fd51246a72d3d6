"""The parts of a field: fixed bytes, glue, free text, values, and the tag that ends it.

A field is what may stand between two tags. The byte automaton (`nprdsl.masks.fields`) walks it part
by part, one byte at a time; masks, costs, forced runs and the cache on disk ask the parts what they
need to know. Each kind of part is one class: a new kind is a new subclass of `FieldPart`.
How parts are chained is in `nprdsl.masks.field_rests`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Set
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

import numpy as np

from nprdsl.grammar.ir import Terminal, TerminalKind
from nprdsl.masks import item_ways
from nprdsl.masks.field_rests import Cursor, FieldPart, FieldRest, FieldRests, Progress
from nprdsl.masks.item_ways import NO_ITEM, Ways
from nprdsl.regular.dfa import UTF8, Dfa, compile_regex
from nprdsl.structure.field_split import BLANKS
from nprdsl.structure.tag_machine import END
from nprdsl.tokens.fresh_labels import Taken
from nprdsl.tokens.spelling import NEVER

BLANK_BYTES: Final = frozenset(BLANKS.encode())
_ALL_BYTES: Final = frozenset(range(256))

_UTF8_ROWS: Final[list[list[int]]] = UTF8.table.tolist()
U8_START: Final = int(UTF8.start)
_U8_STATES: Final = len(_UTF8_ROWS)
_WAITS: Final = -1  # a counted text begins and ends between tokens only


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

    def endings(self, progress: int, rests: FieldRests) -> tuple[bytes, ...]:
        return (self.data[progress:],)

    def price(self, progress: int, ending: bytes, rests: FieldRests) -> tuple[int, int]:
        if self.tokens and not progress:
            return len(self.tokens), len(self.tokens)
        return FieldPart.price(self, progress, ending, rests)

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

    def endings(self, progress: int, rests: FieldRests) -> tuple[bytes, ...]:
        state = self.text_state(progress)
        if state is None or state == U8_START:
            return (b"", *rests.fillers) if self.is_filled(progress) else rests.fillers
        tails = rests.character_ends(state)  # a character begun is not blank
        return (*tails, *(tail + filler for tail in tails[:1] for filler in rests.fillers))

    def price(self, progress: int, ending: bytes, rests: FieldRests) -> tuple[int, int]:
        own = rests.spelling.tokens(ending)
        return (2 * own if self.counted else own), own

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
        if progress == _WAITS:
            return ()
        return self._at(state, here, filled or self.is_filled(progress), counted=False)

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
        return set(np.flatnonzero(dfa.table[state]).tolist())


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
        if not state:
            return ()
        cursor = (here, state)
        return (cursor, *here.after) if self.dfa.accepting[state] else (cursor,)

    def endings(self, progress: int, rests: FieldRests) -> tuple[bytes, ...]:
        ending = rests.spelling.completion(self.dfa, progress)
        return () if ending is None else (ending,)


@dataclass(frozen=True, slots=True)
class FreshPart(ValuePart):
    """A value that a branch repeats; none of `taken`. Its progress is the value so far. `later` are
    the ways to go on with its list, where more labels must follow: they cost the more, the cheaper
    a label is taken here. Those are
    counted, and the label itself is looked for first, among the `plan`, where not all labels may be
    written everywhere (`nprdsl.grammar.label_values`)."""

    taken: Taken
    later: Ways = NO_ITEM
    plan: Dfa | None = None

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
        if not rests.labels(self.dfa).may_go_on(label, self.taken):
            return ()
        ends = self.dfa.accepting[rests.spelling.state(self.dfa, label)]
        if not ends or label in self.taken or here.rest is None:
            return ((here, label),)
        return ((here, label), *here.rest.owing(self._owed(label, rests)).starts)

    def endings(self, progress: bytes, rests: FieldRests) -> tuple[bytes, ...]:
        labels = {dfa: rests.labels(dfa) for dfa in (self.plan or self.dfa, self.dfa)}
        endings = (known.ending(progress, self.taken) for known in labels.values())
        return tuple(ending for ending in endings if ending is not None)

    def price(self, progress: bytes, ending: bytes, rests: FieldRests) -> tuple[int, int]:
        own = rests.spelling.tokens(ending)
        return own + self._owed(progress + ending, rests), own

    def reached(self, progress: bytes, data: bytes, state: int) -> bytes:
        return progress + data

    def _owed(self, label: bytes, rests: FieldRests) -> int:
        """The tokens of the branch's repeat, and what the label takes from those that follow."""
        repeat = rests.spelling.tokens(label)
        if self.later == NO_ITEM:
            return repeat
        labels = rests.labels(self.plan or self.dfa)
        before = item_ways.cost(self.later, labels, self.taken, repeats=2)
        after = item_ways.cost(self.later, labels, self.taken, label, repeats=2)
        return repeat + after - before if after < NEVER else NEVER

    def forbidden(self, progress: bytes, rests: FieldRests) -> Iterable[bytes]:
        labels, trie, at = rests.labels(self.dfa), rests.spelling.vocabulary.trie, len(progress)
        begun = labels.begun(progress, self.taken)
        ends = {label[: at + n] for label in begun for n, _ in trie.tokens_at(label, at)}
        everywhere = self.plan is None or self.plan is self.dfa
        return (e[at:] for e in ends if not (everywhere and labels.may_begin(e, self.taken)))


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

    def endings(self, progress: int, rests: FieldRests) -> tuple[bytes, ...]:
        return (self.data[progress:],)

    def price(self, progress: int, ending: bytes, rests: FieldRests) -> tuple[int, int]:
        if self.tag == END:
            return 0, 0
        own = rests.spelling.tokens(ending) if self.data else 1
        return own + self.reserve, own

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


def whole_field(rests: FieldRests, parts: tuple[FieldPart, ...], tag: str) -> FieldRest:
    """A whole field: the parts, and the tag behind them."""
    counted = any(part.is_counted for part in parts)
    data = b"" if tag in rests.tag_tokens else tag.encode()
    rest = rests.link(TagPart(tag, data, counted=counted), None)
    for part in reversed(parts):
        rest = rests.link(part, rest)
    return rest


def any_glue() -> FieldPart:
    """Any white space, or none."""
    return RegularPart(compile_regex(f"[{BLANKS}]*"))
