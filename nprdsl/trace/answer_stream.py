"""The answer of a trace while it is written: as much of it as is certain.

In goes what the trunk writes, each piece with the state of the tag machine that it begins in; out
comes what of it is surely the answer, by the definition in `nprdsl.trace.answer`. Where a later
text could still be the answer instead, nothing is said: a client then has to wait for the end.
"""

from __future__ import annotations

import re

from nprdsl.grammar.ir import Literal
from nprdsl.structure.events import EnterRule, LeaveRule
from nprdsl.structure.field_content import field_of, is_glue
from nprdsl.structure.stack import RuleEnd, Symbol
from nprdsl.structure.tag_machine import END, TagState, Trail, steps
from nprdsl.trace.answer import has_answer, is_answer
from nprdsl.trace.lexemes import tag_pattern

_FARTHEST = 8  # tags behind a text up to the end; farther ends are not looked for


class AnswerStream:
    """The answer of one generation. What `add` gives is, all together, a beginning of the answer
    without white space at its ends."""

    def __init__(self) -> None:
        self._sure: dict[TagState, bool] = {}
        self._tags: re.Pattern[str] | None = None
        self._kept = ""  # the end of the text behind the last tag, as far as it is not settled
        self._has_told = False
        self._is_split = False  # an earlier stretch of text may belong to the same answer
        self._is_over = False

    def add(self, state: TagState, text: str) -> str:
        """The trunk wrote `text`, which begins in `state`; gives what is new of the answer."""
        self._tags = tags = self._tags or tag_pattern(state.grammar.tags)
        ahead = self._kept + text
        stretches = tags.split(ahead)
        certain = stretches[0]
        if len(stretches) == 1:
            held = max((overlap(certain, tag) for tag in state.grammar.tags), default=0)
            certain = certain[: len(certain) - held]
        new = ""
        if not (self._is_over or self._is_split) and self._tells(state):
            certain = certain.rstrip()
            new = certain if self._has_told else certain.lstrip()
        self._has_told |= bool(new)
        if len(stretches) == 1:
            self._kept = ahead[len(certain) :]
        else:
            self._pass(state, tags.findall(ahead))
            self._kept = stretches[-1]
        return new

    def fork(self) -> None:
        """The trunk waits for branches."""
        self._kept = ""

    def _tells(self, state: TagState) -> bool:
        if state not in self._sure:
            self._sure[state] = tells_answer(state)
        return self._sure[state]

    def _pass(self, state: TagState, tags: list[str]) -> None:
        """The text that began in this state was ended by the first of the tags."""
        arc, inside = state.arcs.get(tags[0]), _is_inside(state)
        is_known = arc is not None and len(tags) == 1
        says = not is_known or any(_says(trail, inside) for trail in arc.trails)  # type: ignore[union-attr]
        self._is_split = says or (self._is_split and inside)
        self._is_over = self._is_over or self._has_told


def tells_answer(state: TagState) -> bool:
    """Whether the text behind this tag of the trunk is the answer, whatever it is and whatever
    follows; False where that is not seen."""
    is_named, inside = has_answer(state.grammar), _is_inside(state)
    speaking = [
        (arc.tag, trail)
        for arc in state.arcs.values()
        for trail in arc.trails
        if any(map(_speaks, _symbols(trail)))
    ]
    return bool(speaking) and all(
        (not is_named or _is_all_answer(trail, inside=inside))
        and (tag == END or _is_silent(state.after_any(tag)))
        for tag, trail in speaking
    )


def overlap(text: str, word: str) -> int:
    """How many characters at the end of `text` are a beginning of `word`, but not all of it."""
    most = min(len(text), len(word) - 1)
    return next((n for n in range(most, 0, -1) if text.endswith(word[:n])), 0)


def _is_inside(state: TagState) -> bool:
    """Whether the state is inside an answer."""
    cell = state.cell
    while cell is not None:
        if isinstance(cell.entry, RuleEnd) and is_answer(cell.entry.rule):
            return True
        cell = cell.below
    return False


def _symbols(trail: Trail) -> list[Symbol]:
    return [step for step in steps(trail) if isinstance(step, Symbol)]


def _speaks(symbol: Symbol) -> bool:
    """Whether it may be more than white space."""
    return not (symbol.text.isspace() if isinstance(symbol, Literal) else is_glue(symbol))


def _says(trail: Trail, inside: bool) -> bool:
    """Whether something of the trail is said inside an answer."""
    for step in steps(trail):
        if isinstance(step, EnterRule | LeaveRule):
            inside = isinstance(step, EnterRule) if is_answer(step.rule) else inside
        elif isinstance(step, Symbol) and inside and _speaks(step):
            return True
    return False


def _is_all_answer(trail: Trail, *, inside: bool) -> bool:
    """Whether all that is said on the trail stands in one answer."""
    answers = int(inside)
    for step in steps(trail):
        if isinstance(step, EnterRule | LeaveRule):
            if is_answer(step.rule):
                inside = isinstance(step, EnterRule)
                answers += inside
        elif isinstance(step, Symbol) and _speaks(step) and not inside:
            if isinstance(step, Literal) or not is_answer(field_of(step).terminal.name):
                return False
            answers += 1
    return answers == 1


def _is_silent(state: TagState) -> bool:
    """Whether nothing but tags and white space may follow, up to a near end."""
    for _ in range(_FARTHEST):
        if state.finished:
            return True
        arcs = list(state.arcs.items())
        if len(arcs) != 1 or any(map(_breaks, (s for t in arcs[0][1].trails for s in steps(t)))):
            return False
        if arcs[0][0] == END:
            return True
        state = state.after_any(arcs[0][0])
    return False


def _breaks(step: object) -> bool:
    """Whether it says something, or begins another answer."""
    if isinstance(step, EnterRule):
        return is_answer(step.rule)
    return isinstance(step, Symbol) and _speaks(step)
