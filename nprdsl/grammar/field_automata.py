"""A whole field as automata: its parts one after another, and the automaton that finds tags.

A place in a field is the number of a part, the state of that part's automaton, and the node of the
tag scanner. From a place the field may go on byte by byte (`moves`), a part may end (`ends`), or
nothing legal may be left (`alive`). The checks of `nprdsl.grammar.field_borders` search these
places; they know no vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nprdsl.grammar.field_shapes import FieldShape, Leaf
from nprdsl.grammar.ir import Field, Literal, TerminalKind
from nprdsl.regular.aho_corasick import ROOT
from nprdsl.regular.dfa import Dfa, compile_regex, one_text
from nprdsl.regular.tag_scan import TagScan

Place = tuple[int, int, int]
_FREE_TEXT = r"(?s:.*[^ \t\n\r\f\v].*)"
_BLANKS = r"[ \t\n\r\f\v]*"


@dataclass(frozen=True, slots=True)
class PartAutomaton:
    """A leaf of a field and the texts that may stand for it; `fixed` where a branch repeats what
    its item holds."""

    leaf: Leaf
    dfa: Dfa
    fixed: bool

    @property
    def kind(self) -> TerminalKind | None:
        """None for a literal."""
        return self.leaf.terminal.kind if isinstance(self.leaf, Field) else None

    @property
    def is_value(self) -> bool:
        return self.kind not in (None, TerminalKind.GLUE)

    @property
    def name(self) -> str:
        leaf = self.leaf
        return repr(leaf.text) if isinstance(leaf, Literal) else f"`{leaf.terminal.name}`"

    def open_ends(self) -> NDArray[np.intp]:
        """The states in which a text may be complete or go on."""
        goes_on = self.dfa.table.any(axis=1)
        return np.flatnonzero(goes_on & self.dfa.accepting)


class FieldAutomaton:
    """One field. With `loose`, glue is any white space or none, as a reader takes it; otherwise it
    is what a writer puts there."""

    def __init__(
        self, shape: FieldShape, scan: TagScan, fixed: frozenset[Field], *, loose: bool
    ) -> None:
        self.scan = scan
        self.tag = shape.tag.text if shape.tag is not None else ""
        self.parts = tuple(
            PartAutomaton(leaf, field_automaton(leaf, loose=loose), leaf in fixed)
            for leaf in shape.leaves
        )
        self.begin = self.begin_at(0, ROOT)
        self._alive: dict[Place, bool] = {}

    def begin_at(self, number: int, node: int) -> Place:
        """The place before a part, or behind all of them."""
        state = self.parts[number].dfa.start if number < len(self.parts) else 0
        return number, state, node

    def beginnings(self, number: int) -> list[Place]:
        """The places before a part that a text without a tag leads to."""
        before, start = self.parts[:number], self.parts[number].dfa.start
        if all(part.kind in (None, TerminalKind.GLUE) for part in before):
            node = self.scan.through(ROOT, b"".join(part.dfa.completion() for part in before))
            return [] if node is None else [(number, start, node)]
        return [p for p in self._reached if p[:2] == (number, start)]

    def ends(self, place: Place) -> list[Place]:
        """The place, and those behind parts that may end there; number `len(parts)` is behind all
        of them."""
        number, state, node = place
        places = [place]
        while number < len(self.parts) and self.parts[number].dfa.accepting[state]:
            number, state, _ = self.begin_at(number + 1, node)
            places.append((number, state, node))
        return places

    def moves(self, place: Place) -> Iterator[Place]:
        """The places that one more byte of the same part leads to."""
        number, state, node = place
        if number < len(self.parts):
            both = self.parts[number].dfa.table[state].astype(np.int64) << 32
            both |= self.scan.table[node + 1]
            for pair in np.unique(both).tolist():
                if pair >> 32 and pair & 0xFFFFFFFF:
                    yield number, pair >> 32, (pair & 0xFFFFFFFF) - 1

    def reached(self) -> Iterator[Place]:
        """Every place that a text without a tag leads to, near ones first."""
        places = dict.fromkeys(self.ends(self.begin))
        for place in (queue := list(places)):
            yield place
            new = [at for after in self.moves(place) for at in self.ends(after) if at not in places]
            places.update(dict.fromkeys(new))
            queue += dict.fromkeys(new)

    @cached_property
    def _reached(self) -> tuple[Place, ...]:
        return tuple(self.reached())

    def alive(self, place: Place) -> bool:
        """Whether the field can be finished from there without any tag but its own."""
        known = self._alive.get(place)
        if known is None:
            known = self._alive[place] = self._ends_plainly(place) or self._ends_somehow(place)
        return known

    def _ends_plainly(self, place: Place) -> bool:
        """Whether the shortest texts of all the parts do."""
        number, state, node = place
        data = b""
        for part in self.parts[number:]:
            data += part.dfa.completion(state if part is self.parts[number] else None)
        after = self.scan.through(node, data)
        return after is not None and self.scan.closes(after, self.tag)

    def _ends_somehow(self, place: Place) -> bool:
        seen, queue = {place}, [place]
        for here in queue:
            for at in self.ends(here):
                if self._alive.get(at, False) or self._ends_plainly(at):
                    return True
                new = [after for after in self.moves(at) if after not in seen]
                seen.update(new)
                queue += new
        self._alive.update(dict.fromkeys(seen, False))
        return False


def field_automaton(leaf: Leaf, *, loose: bool) -> Dfa:
    """The texts that may stand for a leaf; see `FieldAutomaton` for `loose`."""
    if isinstance(leaf, Literal):
        return one_text(leaf.text)
    match leaf.terminal.kind:
        case TerminalKind.TEXT:
            return compile_regex(_FREE_TEXT)
        case TerminalKind.GLUE:
            return compile_regex(_BLANKS) if loose else one_text(leaf.terminal.literal)
        case _:
            return compile_regex(leaf.terminal.pattern)
