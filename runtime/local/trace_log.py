"""Which columns of its extent each branch of one request sees.

Every token of a request takes the next column of the request's extent in the KV log, whatever
branch it is on. A branch sees a set of columns and knows the position of its next token: a fork
copies the set, a join takes the union, and a token at column c sees what its branch sees up to c.
So forks and joins change these sets and nothing else; no key or value ever moves.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable

import numpy as np
from numpy.typing import NDArray

from nprdsl.machine.actions import Action, DropAction, FeedAction, ForkAction, JoinAction
from nprdsl.runtime.local.recurrent_state import StateRow

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


class BranchView:
    """What a branch sees, bool [columns]; the `position` of its next token; the `last` run that
    was appended to it, or to its parent before the fork; what the model's recurrent layers know
    after its tokens, once some were fed."""

    __slots__ = ("last", "parent", "position", "sees", "state")

    def __init__(
        self, sees: Bools, position: int, last: TokenRun | None, parent: BranchView | None = None
    ) -> None:
        self.sees = sees
        self.position = position
        self.last = last
        self.parent = parent
        self.state: StateRow | None = None


class TokenRun:
    """Adjacent tokens of one branch, to be fed from `column` and `position` on."""

    __slots__ = ("branch", "column", "position", "tokens", "view")

    def __init__(
        self, branch: int, view: BranchView, tokens: tuple[int, ...], column: int, position: int
    ) -> None:
        self.branch = branch
        self.view = view
        self.tokens = tokens
        self.column = column
        self.position = position

    def split(self, count: int) -> TokenRun:
        """The first `count` tokens as a run of their own; this one keeps the rest."""
        head = TokenRun(self.branch, self.view, self.tokens[:count], self.column, self.position)
        self.tokens = self.tokens[count:]
        self.column += count
        self.position += count
        return head


class TraceLog:
    """The branches of one request in `width` columns, and the runs that wait to be fed, ascending
    by column. `fed` are the runs that were fed, in order: `forget` lets all of them wait again."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.used = 0  # columns taken
        self.positions: Ints = np.zeros(width, dtype=np.int64)  # of the token at each column
        self.branches = {0: BranchView(np.zeros(width, dtype=bool), 0, None)}
        self.fed: list[TokenRun] = []
        self.waiting: list[TokenRun] = []
        self.again: list[TokenRun] = []  # those fed once already, before all that wait
        self.rows = 0  # tokens that wait

    def apply(self, actions: Iterable[Action]) -> None:
        """Does what the machine asks. Raises RuntimeError where the columns do not suffice."""
        for action in actions:
            match action:
                case FeedAction(branch, tokens):
                    self._feed(branch, tokens)
                case ForkAction(parent, children):
                    self._fork(parent, children)
                case JoinAction(parent, children):
                    self._join(parent, children)
                case DropAction(_, children):
                    for child in children:
                        self.branches.pop(child).state = None

    def forget_states(self) -> None:
        """Frees the memory of the branches' recurrent states."""
        for view in self.branches.values():
            view.state = None

    def take(self, most: int, ready: Callable[[int], bool] | None = None) -> list[TokenRun]:
        """Runs of at most `most` tokens together, in order; those of branches not `ready` stay."""
        if self.again:
            taken, self.again = _cut(self.again, most, None)
        elif ready is None and self.rows <= most:
            taken, self.waiting = self.waiting, []
        else:
            taken, self.waiting = _cut(self.waiting, most, ready)
        self._count(taken)
        return taken

    def take_behind(self, most: int, last: Container[int]) -> list[TokenRun]:
        """As `take`, but each run whose id is in `last` keeps its last token, and what sees it."""
        taken: list[TokenRun] = []
        kept: list[TokenRun] = []
        held: list[int] = []  # columns
        for run in self.waiting:
            count = min(most, len(run.tokens) - (id(run) in last))
            if any(run.view.sees[column] for column in held if column < run.column):
                count = 0
            most -= count
            if count == len(run.tokens):
                taken.append(run)
                continue
            if count:
                taken.append(run.split(count))
            kept.append(run)
            held.append(run.column + len(run.tokens) - 1)
        self.waiting = kept
        self._count(taken)
        return taken

    @property
    def filled(self) -> int:
        """The first columns that were all fed."""
        runs = self.again or self.waiting
        return runs[0].column if runs else self.used

    def skip(self, count: int) -> None:
        """The first `count` tokens that wait need not be fed: what they would write is there."""
        while count:
            count -= sum(len(run.tokens) for run in self.take(count))

    def forget(self) -> None:
        """What was fed is lost: it waits again."""
        self.again = self.fed + self.again
        self.rows += sum(len(run.tokens) for run in self.fed)
        self.fed = []

    def _count(self, taken: list[TokenRun]) -> None:
        self.rows -= sum([len(run.tokens) for run in taken])
        self.fed += taken

    def _feed(self, branch: int, tokens: tuple[int, ...]) -> None:
        if not tokens:
            return
        view, count, first = self.branches[branch], len(tokens), self.used
        last = first + count
        if last > self.width:
            raise RuntimeError(
                f"the trace needs more than the {self.width} slots that were reserved for it"
            )
        view.last = TokenRun(branch, view, tokens, first, view.position)
        self.waiting.append(view.last)
        self.rows += count
        if count == 1:
            view.sees[first] = True
            self.positions[first] = view.position
        else:
            view.sees[first:last] = True
            self.positions[first:last] = np.arange(view.position, view.position + count)
        view.position += count
        self.used = last

    def _fork(self, parent: int, children: tuple[int, ...]) -> None:
        view, used = self.branches[parent], self.used
        for child in children:
            sees = np.zeros(self.width, dtype=bool)
            sees[:used] = view.sees[:used]
            self.branches[child] = BranchView(sees, view.position, view.last, view)

    def _join(self, parent: int, children: tuple[int, ...]) -> None:
        view, used = self.branches[parent], self.used
        view.last = self.branches[children[-1]].last
        for child in children:
            joined = self.branches.pop(child)
            view.sees[:used] |= joined.sees[:used]
            view.position = max(view.position, joined.position)


def _cut(
    runs: list[TokenRun], most: int, ready: Callable[[int], bool] | None
) -> tuple[list[TokenRun], list[TokenRun]]:
    """Runs of at most `most` tokens together, of branches that are ready, and those that stay."""
    taken: list[TokenRun] = []
    kept: list[TokenRun] = []
    for run in runs:
        if most == 0 or (ready is not None and not ready(run.branch)):
            kept.append(run)
        elif len(run.tokens) > most:
            taken.append(run.split(most))
            kept.append(run)
            most = 0
        else:
            taken.append(run)
            most -= len(run.tokens)
    return taken, kept
