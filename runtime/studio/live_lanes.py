"""The lanes of a trace while it is written: events in, the same view out as of a finished trace.

The events say what was appended to which branch and where it forked and joined. From that the marks
of the execution graph are made, in linear order, and the graph is drawn as any other; blocks that
are open have no join yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from nprdsl.grammar.ir import Block, Grammar
from nprdsl.machine.actions import ROOT
from nprdsl.structure.events import (
    EnterBranch,
    EnterFork,
    EnterJoin,
    Event,
    ForkEvent,
    JoinEvent,
    TokenEvent,
)
from nprdsl.studio.lanes import LanesView, StudioView, lanes_view
from nprdsl.trace.graph import ExecutionGraph, LeaveOpen, Mark, build_graph

_TAIL: Final = 90  # characters of a segment that a bar may show


class LiveView(StudioView):
    """The lanes as they are, and how the text of each segment ends."""

    lanes: LanesView
    tails: tuple[str, ...]


@dataclass(slots=True)
class _Forked:
    """Where a branch forked: how many tokens it had, the children, and whether they have joined."""

    at: int
    block: Block
    children: tuple[int, ...]
    labels: tuple[str, ...]
    joined: bool = False


@dataclass(slots=True)
class _Written:
    """A branch: its tokens' texts and its forks."""

    texts: list[str] = field(default_factory=list)
    forks: list[_Forked] = field(default_factory=list)


class LiveLanes:
    """Follows one generation."""

    def __init__(self, grammar: Grammar) -> None:
        self._blocks = {block.branch: block for block in grammar.blocks}
        self._branches = {ROOT: _Written()}

    def follow(self, event: Event) -> None:
        match event:
            case TokenEvent():
                texts = [event.text, *[""] * (len(event.tokens) - 1)]
                self._branches[event.branch].texts += texts
            case ForkEvent():
                parent, block = self._branches[event.parent], self._blocks[event.rule]
                at = len(parent.texts)
                parent.forks.append(_Forked(at, block, event.children, event.labels))
                self._branches |= {child: _Written() for child in event.children}
            case JoinEvent():
                self._branches[event.parent].forks[-1].joined = True
            case _:
                pass

    def graph(self) -> ExecutionGraph:
        """The graph of what is written."""
        marks, texts = self._walked()
        return build_graph(marks, length=len(texts))

    def view(self) -> LiveView:
        marks, texts = self._walked()
        graph = build_graph(marks, length=len(texts))
        tails = (
            "".join(texts[max(s.source_start, s.source_end - _TAIL) : s.source_end])[-_TAIL:]
            for s in graph.segments
        )
        return LiveView(lanes=lanes_view(graph), tails=tuple(tails))

    def _walked(self) -> tuple[list[Mark], list[str]]:
        marks: list[Mark] = []
        texts: list[str] = []
        self._walk(ROOT, marks, texts)
        return marks, texts

    def _walk(self, number: int, marks: list[Mark], texts: list[str]) -> None:
        branch, begin = self._branches[number], 0
        for fork in branch.forks:
            texts += branch.texts[begin : fork.at]
            begin = fork.at
            marks.append(Mark(EnterFork(fork.block), len(texts)))
            for index, child in enumerate(fork.children):
                labels = (fork.labels[index],)
                marks.append(Mark(EnterBranch(fork.block, index, labels), len(texts)))
                self._walk(child, marks, texts)
            end = EnterJoin(fork.block) if fork.joined else LeaveOpen()
            marks.append(Mark(end, len(texts)))
        texts += branch.texts[begin:]
