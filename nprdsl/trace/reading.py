"""From what the parser placed to a trace: the tree of elements, the marks of forks and joins, the
loss mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nprdsl.structure.events import EnterBranch, EnterFork, EnterJoin, EnterRule, LeaveRule
from nprdsl.structure.field_content import Piece, field_of
from nprdsl.trace.graph import Mark, MarkKind
from nprdsl.trace.parser import Forced, Placed
from nprdsl.trace.trace import Element


@dataclass(slots=True)
class _Open:
    name: str
    start: int
    children: list[Element] = field(default_factory=list)


def elements(text: str, placed: Sequence[Placed]) -> Element:
    """The tree of rules and terminals of a legal trace."""
    stack = [_Open("", 0)]
    for item in placed:
        if isinstance(item.what, EnterRule):
            stack.append(_Open(item.what.rule, item.start))
        elif isinstance(item.what, LeaveRule):
            done = stack.pop()
            stack[-1].children.append(_close(done, text, item.start))
        elif isinstance(item.what, Piece):
            name = field_of(item.what.symbol).terminal.name
            span = text[item.start : item.end]
            leaf = Element(name, span, item.start, item.end, item.what.value)
            stack[-1].children.append(leaf)
    (root,) = stack[0].children
    return root


def _close(opened: _Open, text: str, end: int) -> Element:
    span = text[opened.start : end]
    return Element(opened.name, span, opened.start, end, None, tuple(opened.children))


def marks(placed: Sequence[Placed], place: Callable[[int], int]) -> tuple[Mark, ...]:
    """Forks, branches and joins; `place` maps a character offset to the unit of the marks."""
    found = []
    for item in placed:
        match item.what:
            case EnterFork(block):
                found.append(Mark(MarkKind.FORK, place(item.start), block))
            case EnterBranch(block, index, labels):
                label = labels[0] if labels else str(index + 1)
                found.append(Mark(MarkKind.BRANCH, place(item.start), block, index, label))
            case EnterJoin(block):
                found.append(Mark(MarkKind.JOIN, place(item.start), block))
            case _:
                pass
    return tuple(found)


def forced_spans(placed: Sequence[Placed]) -> list[tuple[int, int]]:
    """The character spans in which the author of the trace had no choice."""
    return [(p.start, p.end) for p in placed if isinstance(p.what, Forced) and p.end > p.start]
