"""The states of the tag machine and the ways on from them.

Non-goals: how they are found (see `nprdsl.structure`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nprdsl.events import StructureEvent
from nprdsl.ir import Fork
from nprdsl.stack import BoundValue, Capture, Cell, Entry, Frame, Leave, Opened, Symbol

if TYPE_CHECKING:
    from nprdsl.structure import TagMachine

END: Final = ""  # the key of the end among the arcs: no tag is empty
Trail = tuple[StructureEvent | Symbol, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Arc:
    """One way on: up to `tag`, then `cell` and `frame`. `trails` are the fields that may stand
    before the tag (events and symbols, in order); more than one only where text is optional."""

    tag: str
    trails: tuple[Trail, ...]
    cell: Cell | None
    frame: Frame | None

    @property
    def fields(self) -> tuple[tuple[Symbol, ...], ...]:
        """The symbols of every field that may stand before the tag."""
        return tuple(tuple(s for s in t if isinstance(s, Symbol)) for t in self.trails)

    @property
    def captures(self) -> bool:
        return any(isinstance(s, Capture) for s in self.trails[0])


class TagState:
    """A state right behind a tag. `events` happened on reaching it; `fork` is set where branches
    begin."""

    __slots__ = ("_arcs", "_machine", "_next", "cell", "events", "fork", "frame", "key")

    def __init__(
        self,
        machine: TagMachine,
        cell: Cell | None,
        frame: Frame | None,
        events: tuple[StructureEvent, ...],
    ) -> None:
        self._machine = machine
        self.cell = cell
        self.frame = frame
        self.events = events
        self.key = len(machine._states)
        entry = cell.entry if cell is not None else None
        self.fork = _fork(entry)
        self._arcs: dict[str, Arc] | None = None
        self._next: dict[tuple[str, tuple[BoundValue, ...]], TagState] = {}

    @property
    def finished(self) -> bool:
        """Nothing is left to read: a complete branch, or a trace that ends with a tag."""
        return self.cell is None

    @property
    def arcs(self) -> dict[str, Arc]:
        if self._arcs is None:
            self._arcs = self._machine.arcs_of(self)
        return self._arcs

    def after(self, tag: str, captured: tuple[BoundValue, ...] = ()) -> TagState:
        """The state behind `tag`, with the values that the field before it captured."""
        key = (tag, captured)
        state = self._next.get(key)
        if state is None:
            state = self._next[key] = self._machine.follow(self.arcs[tag], captured)
        return state

    def after_any(self, tag: str) -> TagState:
        """The state behind `tag`, whatever the field before it captures."""
        captures = sum(isinstance(s, Capture) for s in self.arcs[tag].trails[0])
        return self.after(tag, (BoundValue(""),) * captures)

    @property
    def rule(self) -> str:
        """The innermost rule that is being read."""
        cell = self.cell
        while cell is not None:
            if isinstance(cell.entry, Leave):
                return cell.entry.rule
            cell = cell.below
        return self._machine.grammar.start


def _fork(entry: Entry | None) -> Fork | None:
    """The fork whose branches begin where this entry stands on top; by count only once opened."""
    if isinstance(entry, Opened):
        return entry.fork
    return entry if isinstance(entry, Fork) and entry.block.item is not None else None
