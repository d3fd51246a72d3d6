"""A trace while it is written, in linear order as far as that order is settled.

Branches are written side by side, but a client that knows no branches receives one list of tokens.
A token is settled when all that stands before it in the linear order is written: the trunk, then
the first branch while it runs, then the second … Each token is visited once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from nprdsl.machine.actions import ROOT
from nprdsl.structure.events import BranchEndEvent, Event, ForkEvent, TokenEvent


@dataclass(frozen=True, slots=True)
class Entry:
    """One token: its log-probability, None where it was forced."""

    token: int
    logprob: float | None
    sampled: bool
    branch: int
    index: int  # among the tokens of its branch


@dataclass(slots=True)
class _Strand:
    """What is written on one branch; an inner tuple stands for a fork into those branches."""

    items: list[Entry | tuple[int, ...]] = field(default_factory=list)
    count: int = 0
    ended: bool = False


class Transcript:
    """The tokens of one request."""

    def __init__(self) -> None:
        self._strands = {ROOT: _Strand()}
        self._open = [(ROOT, 0)]  # the branches that are being read, with the next item of each

    def add(self, events: Iterable[Event], logprob: float | None) -> None:
        """Take what a machine tells; `logprob` is that of the one token that was sampled."""
        for event in events:
            match event:
                case TokenEvent(branch, _, tokens, _, forced):
                    strand = self._strands[branch]
                    value = None if forced else logprob
                    for token in tokens:
                        entry = Entry(token, value, not forced, branch, strand.count)
                        strand.items.append(entry)
                        strand.count += 1
                case ForkEvent(parent, children):
                    self._strands[parent].items.append(children)
                    self._strands.update({child: _Strand() for child in children})
                case BranchEndEvent(branch):
                    self._strands[branch].ended = True

    def count(self, branch: int) -> int:
        """The tokens that are written on a branch."""
        return self._strands[branch].count

    def settled(self) -> Iterator[Entry]:
        """The tokens that were settled since the last call."""
        return self._read(to_the_end=False)

    def rest(self) -> Iterator[Entry]:
        """All that is written and was not settled, in linear order."""
        return self._read(to_the_end=True)

    def _read(self, *, to_the_end: bool) -> Iterator[Entry]:
        while self._open:
            branch, at = self._open.pop()
            strand = self._strands[branch]
            if at < len(strand.items):
                item = strand.items[at]
                self._open.append((branch, at + 1))
                if isinstance(item, tuple):
                    self._open.extend((child, 0) for child in reversed(item))
                else:
                    yield item
            elif not (strand.ended or to_the_end):
                self._open.append((branch, at))
                return
