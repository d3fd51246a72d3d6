"""A legal trace, read: its elements, its execution graph and, for token traces, its layout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nprdsl.structure.events import EnterRule, LeaveRule
from nprdsl.structure.field_content import FieldValue, field_of
from nprdsl.trace.graph import ExecutionGraph, Mark, build_graph
from nprdsl.trace.layout import Layout


@dataclass(frozen=True, slots=True)
class Element:
    """A rule or a terminal of the schema as it stands in a trace.

    `start` and `end` are character offsets in the trace's text, `source`, tags and glue of the
    element included. `value` is the typed value of a declared terminal, the text of any other
    terminal, None for a rule.
    """

    name: str
    start: int
    end: int
    value: object = None
    # They may nest deep, and follow from the rest.
    children: tuple[Element, ...] = field(default=(), repr=False, compare=False)
    source: str = field(default="", repr=False)

    @property
    def text(self) -> str:
        """The element as it is written."""
        return self.source[self.start : self.end]

    def walk(self) -> Iterator[Element]:
        """This element and all below it, in the order of the text."""
        pending = [self]
        while pending:
            element = pending.pop()
            yield element
            pending.extend(reversed(element.children))

    def find(self, name: str) -> list[Element]:
        """All elements of that rule or terminal, in order; upper and lower case are the same."""
        return [e for e in self.walk() if e.name.lower() == name.lower()]


def element_tree(text: str, marks: Iterable[Mark]) -> Element:
    """The tree of rules and terminals of a legal trace."""
    stack: list[tuple[str, int, list[Element]]] = [("", 0, [])]  # name, start, children
    for mark in marks:
        match mark.what:
            case EnterRule(rule):
                stack.append((rule, mark.at, []))
            case LeaveRule():
                name, start, children = stack.pop()
                stack[-1][2].append(Element(name, start, mark.at, None, tuple(children), text))
            case FieldValue(symbol, start, end, value):
                stop, name = mark.at + end - start, field_of(symbol).terminal.name
                stack[-1][2].append(Element(name, mark.at, stop, value, (), text))
            case _:
                pass
    (root,) = stack[0][2]
    return root


@dataclass(frozen=True)
class Trace:
    """A legal trace text. `answer` is what the schema marks as its answer, without tags."""

    text: str
    root: Element
    marks: tuple[Mark, ...] = field(compare=False)  # offsets in `text`; they hold parts of a schema
    answer: str

    def find(self, name: str) -> list[Element]:
        """All elements of that rule or terminal, in order."""
        return self.root.find(name)

    @cached_property
    def graph(self) -> ExecutionGraph:
        """The execution graph; lengths are counted in characters."""
        return build_graph(self.marks, length=len(self.text), unit="characters")


@dataclass(frozen=True, eq=False)
class TokenTrace:
    """A legal trace as token ids [L], of which the first `prompt` are prompt.

    `sampled` [L] is 1 where the model chose the token, 0 where it was prompt or forced. `answer` is
    what the schema marks as its answer, without tags.
    """

    ids: tuple[int, ...]
    prompt: int
    text: str  # of the trace, without the prompt
    root: Element
    marks: tuple[Mark, ...]  # offsets in `ids`
    sampled: NDArray[np.uint8]
    answer: str

    def __eq__(self, other: object) -> bool:
        return self._content == other._content if isinstance(other, TokenTrace) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._content)

    @property
    def _content(self) -> tuple[object, ...]:
        """What all else follows from."""
        return (self.ids, self.prompt, self.text, self.root, self.sampled.tobytes())

    def find(self, name: str) -> list[Element]:
        """All elements of that rule or terminal, in order."""
        return self.root.find(name)

    @cached_property
    def graph(self) -> ExecutionGraph:
        """The execution graph; lengths are counted in tokens."""
        return build_graph(self.marks, length=len(self.ids), prompt=self.prompt, unit="tokens")

    @cached_property
    def layout(self) -> Layout:
        """Position, orders, segments and loss mask of every token."""
        return Layout.from_graph(self.graph, self.sampled)
