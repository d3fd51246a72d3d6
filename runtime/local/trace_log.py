"""Who sees what: the branches of one request over the columns of its extent.

Every token takes the next column. A branch sees a set of columns and knows its next position: a
fork copies the set, a join takes the union, and a row that was put at column c sees what its branch
sees up to c. No key or value ever moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from nprdsl.machine.actions import Action, DropAction, FeedAction, ForkAction, JoinAction

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


class Branch:
    """`sees` `[columns]`, the `position` of the next token, and the `last` run that was fed."""

    __slots__ = ("last", "position", "sees")

    def __init__(self, sees: Bools, position: int, last: Run | None) -> None:
        self.sees = sees
        self.position = position
        self.last = last


class Run:
    """Adjacent tokens of one branch, to be fed from `column` and `position` on."""

    __slots__ = ("branch", "column", "name", "position", "tokens")

    def __init__(
        self, name: int, branch: Branch, tokens: tuple[int, ...], column: int, position: int
    ) -> None:
        self.name = name
        self.branch = branch
        self.tokens = tokens
        self.column = column
        self.position = position

    def split(self, count: int) -> Run:
        """The first `count` tokens as a run of their own; this one keeps the rest."""
        head = Run(self.name, self.branch, self.tokens[:count], self.column, self.position)
        self.tokens = self.tokens[count:]
        self.column += count
        self.position += count
        return head


class TraceLog:
    """The branches of one request, and the runs that wait to be fed, in `width` columns."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.used = 0  # columns taken
        self.positions: Ints = np.zeros(width, dtype=np.int64)  # of the token at each column
        self.branches = {0: Branch(np.zeros(width, dtype=bool), 0, None)}
        self.waiting: list[Run] = []
        self.rows = 0  # tokens that wait

    def apply(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case FeedAction(branch, tokens):
                    self._feed(branch, tokens)
                case ForkAction(parent, children):
                    self._fork(parent, children)
                case JoinAction(parent, children):
                    self._join(parent, children)
                case DropAction(_, children):
                    self._forget(children)

    def take(self, most: int, ready: Callable[[int], bool] | None = None) -> list[Run]:
        """Runs of at most `most` rows together, in order; those of branches not `ready` stay."""
        if ready is None and self.rows <= most:
            taken, self.waiting, self.rows = self.waiting, [], 0
            return taken
        taken = []
        kept: list[Run] = []
        for run in self.waiting:
            if most == 0 or (ready is not None and not ready(run.name)):
                kept.append(run)
            elif len(run.tokens) > most:
                taken.append(run.split(most))
                kept.append(run)
                most = 0
            else:
                taken.append(run)
                most -= len(run.tokens)
        self.waiting = kept
        self.rows = sum(len(run.tokens) for run in kept)
        return taken

    def _feed(self, name: int, tokens: tuple[int, ...]) -> None:
        if not tokens:
            return
        branch, count, first = self.branches[name], len(tokens), self.used
        last = first + count
        if last > self.width:
            raise RuntimeError(
                f"the trace needs more than the {self.width} slots that were reserved for it"
            )
        branch.last = Run(name, branch, tokens, first, branch.position)
        self.waiting.append(branch.last)
        self.rows += count
        if count == 1:
            branch.sees[first] = True
            self.positions[first] = branch.position
        else:
            branch.sees[first:last] = True
            self.positions[first:last] = np.arange(branch.position, branch.position + count)
        branch.position += count
        self.used = last

    def _fork(self, parent: int, children: tuple[int, ...]) -> None:
        origin, used = self.branches[parent], self.used
        for child in children:
            sees = np.zeros(self.width, dtype=bool)
            sees[:used] = origin.sees[:used]
            self.branches[child] = Branch(sees, origin.position, origin.last)

    def _join(self, parent: int, children: tuple[int, ...]) -> None:
        target, used = self.branches[parent], self.used
        for child in children:
            branch = self.branches.pop(child)
            target.sees[:used] |= branch.sees[:used]
            target.position = max(target.position, branch.position)

    def _forget(self, children: tuple[int, ...]) -> None:
        for child in children:
            del self.branches[child]
