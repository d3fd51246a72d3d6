"""A trace while it is being written: branch by branch as it comes, linear as it is read.

Branches are written side by side; the trace has them one after another, each fork's branches in
their order and then what follows the join. A transcript takes items (tokens, or pieces of text) on
branches and gives them back in the order of the trace: all of them (`linear`), or only as far as
that order is settled (`settled`), for a client that reads one stream and knows no branches. An item
is settled when all that stands before it is written: the trunk, then the first branch while it
runs, then the second, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import numpy as np

from nprdsl.machine.actions import ROOT
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.trace.trace import TokenTrace

Item = TypeVar("Item")


# The likeliest tokens where one was drawn, with their log-probabilities in nats, in that order.
Alternatives = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class WrittenToken:
    """One token of a trace. `sampled` is false where the model had no choice; `logprob` in nats,
    None where it was forced or not asked for; `alternatives` if they were kept."""

    token: int
    sampled: bool
    logprob: float | None
    alternatives: Alternatives = ()


def kept_alternatives(written: Sequence[WrittenToken]) -> tuple[Alternatives, ...]:
    """Those of each token; empty where none were kept."""
    kept = tuple(token.alternatives for token in written)
    return kept if any(kept) else ()


@dataclass(slots=True)
class _BranchItems(Generic[Item]):
    """What is written on one branch, and its forks: each with the number of items before it."""

    items: list[Item] = field(default_factory=list)
    forks: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    ended: bool = False


class Transcript(Generic[Item]):
    """The items of one generation. Branches have the machine's numbers; the trunk is there."""

    def __init__(self) -> None:
        self._branches: dict[int, _BranchItems[Item]] = {ROOT: _BranchItems()}
        # The branches that `settled` is inside of: the next item, and the next fork, of each.
        self._reading = [(ROOT, 0, 0)]

    def write(self, branch: int, *items: Item) -> None:
        """Append to a branch."""
        self._branches[branch].items.extend(items)

    def fork(self, parent: int, children: tuple[int, ...]) -> None:
        """The children begin behind what the parent has written."""
        branch = self._branches[parent]
        branch.forks.append((len(branch.items), children))
        self._branches.update({child: _BranchItems() for child in children})

    def end(self, branch: int) -> None:
        """Nothing more will be written on the branch."""
        self._branches[branch].ended = True

    def count(self, branch: int) -> int:
        """How many items were written on the branch itself."""
        return len(self._branches[branch].items)

    def linear(self, branch: int = ROOT) -> list[Item]:
        """All that was written on a branch and on those that forked from it."""
        return [self._branches[number].items[index] for number, index in self.order(branch)]

    def order(self, branch: int = ROOT) -> Iterator[tuple[int, int]]:
        """Branch number and index on that branch of each item of `linear`."""
        written, at = self._branches[branch], 0
        for until, children in written.forks:
            yield from ((branch, index) for index in range(at, until))
            for child in children:
                yield from self.order(child)
            at = until
        yield from ((branch, index) for index in range(at, len(written.items)))

    def longest(self, branch: int = ROOT) -> int:
        """The items on the longest path: of the branches of a fork the longest counts."""
        written = self._branches[branch]
        return len(written.items) + sum(
            max(self.longest(child) for child in children) for _, children in written.forks
        )

    def settled(self) -> Iterator[Item]:
        """The items that were settled since the last call."""
        return self._read(to_the_end=False)

    def rest(self) -> Iterator[Item]:
        """All that `settled` has not given, in linear order, whether settled or not."""
        return self._read(to_the_end=True)

    def _read(self, *, to_the_end: bool) -> Iterator[Item]:
        while self._reading:
            number, at, fork = self._reading.pop()
            branch = self._branches[number]
            if fork < len(branch.forks) and branch.forks[fork][0] == at:
                self._reading.append((number, at, fork + 1))
                self._reading += ((child, 0, 0) for child in reversed(branch.forks[fork][1]))
            elif at < len(branch.items):
                self._reading.append((number, at + 1, fork))
                yield branch.items[at]
            elif not (branch.ended or to_the_end):
                self._reading.append((number, at, fork))
                return


def parse_written(
    bound: BoundSchema, prompt: Sequence[int], written: Sequence[WrittenToken]
) -> TokenTrace:
    """The trace of these tokens in linear order, with their own `sampled`.

    Raises `TraceError` where they are no legal trace: one that was stopped midway.
    """
    ids = (*prompt, *(token.token for token in written))
    sampled = np.zeros(len(ids), np.uint8)
    sampled[len(prompt) :] = [token.sampled for token in written]
    return replace(bound.parse(ids, prompt=len(prompt)), sampled=sampled)
