"""One branch of a running generation: its matcher, its account, what it wrote, where it forked.

Non-goals: deciding anything (see `nprdsl.machine`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from nprdsl.automaton import Automaton
from nprdsl.events import BranchReason, LeaveRule
from nprdsl.ledger import Account
from nprdsl.matcher import Matcher
from nprdsl.stack import Cell, Leave
from nprdsl.tagstates import TagState


@dataclass(frozen=True, slots=True)
class Written:
    """One token of a branch. `sampled` is false where it was forced; `logprob` in nats, if
    sampled."""

    token: int
    sampled: bool
    logprob: float | None


@dataclass(frozen=True, slots=True)
class Forked:
    """The place among a branch's tokens where its children were."""

    children: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scope:
    """An open use of a rule with a cap: its stack cell, and the branch's spending when it was
    entered."""

    cell: Cell
    rule: str
    since: int


@dataclass(slots=True)
class BranchState:
    """A branch that is being written. `path` names it the same whatever the order of scheduling."""

    number: int
    path: tuple[int, ...]
    matcher: Matcher
    account: Account
    parent: int | None
    written: list[Written | Forked] = field(default_factory=list)
    children: tuple[int, ...] = ()
    forks: int = 0
    squeezed: bool = False  # its last token was chosen with no slack left
    reason: BranchReason | None = None
    scopes: list[Scope] = field(default_factory=list)

    @property
    def tokens(self) -> Iterator[Written]:
        return (w for w in self.written if isinstance(w, Written))


def follow_scopes(branch: BranchState, caps: frozenset[str], before: TagState) -> None:
    """Open and close the scopes of capped rules after the structure has moved."""
    after = branch.matcher.structure
    if not caps or after is before:
        return
    left = [e.rule for e in after.events if isinstance(e, LeaveRule) and e.rule in caps]
    for rule in left:
        index = next((i for i, s in reversed(list(enumerate(branch.scopes))) if s.rule == rule), -1)
        if index >= 0:
            del branch.scopes[index]
    open_cells = _leaves(after, caps)
    known = len(branch.scopes)
    for cell, rule in open_cells[known:]:
        branch.scopes.append(Scope(cell, rule, branch.account.spent))


def _leaves(state: TagState, caps: frozenset[str]) -> list[tuple[Cell, str]]:
    """The open uses of capped rules on the stack, outermost first."""
    found, cell = [], state.cell
    while cell is not None:
        if isinstance(cell.entry, Leave) and cell.entry.rule in caps:
            found.append((cell, cell.entry.rule))
        cell = cell.below
    return found[::-1]


def scope_slack(branch: BranchState, automaton: Automaton, rule_tokens: dict[str, int]) -> int:
    """The least slack that the open scopes leave; a very large number without any."""
    slack = 1 << 30
    for scope in branch.scopes:
        used = branch.account.spent - scope.since
        to_leave = branch.matcher.cost_until(scope.cell)
        slack = min(slack, rule_tokens[scope.rule] - used - to_leave)
    return max(slack, 0)
