"""One branch of a running generation: its matcher, its account, what it wrote, where it forked."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from nprdsl.machine.budget import Account
from nprdsl.masks.matcher import Matcher
from nprdsl.structure.events import BranchReason, EnterRule, LeaveRule
from nprdsl.structure.stack import Cell, Leave
from nprdsl.structure.tag_machine import TagState


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
    field_start: int = 0  # what was spent where the field in progress began

    @property
    def tokens(self) -> Iterator[Written]:
        return (w for w in self.written if isinstance(w, Written))


def open_scopes(branch: BranchState, caps: frozenset[str]) -> None:
    """The scopes of a branch that begins, or goes on behind a join."""
    spent, cells = branch.account.spent, _leaves(branch.matcher.structure, caps)
    branch.scopes += [Scope(cell, rule, spent) for cell, rule in cells[len(branch.scopes) :]]
    branch.field_start = spent


def follow_scopes(branch: BranchState, caps: frozenset[str], before: TagState, tag: str) -> None:
    """Open and close the scopes of capped rules when the branch's next token has completed `tag`.

    A rule counts from the token that completes its first tag, one without tags from the tag before
    it.
    """
    after, spent = branch.matcher.structure, branch.account.spent
    arc = before.arcs.get(tag)
    kept, since = len(branch.scopes), []  # since: where those newly open began
    for event, at in (
        *((event, spent) for event in (arc.trails[0] if arc is not None else ())),
        *((event, spent + 1) for event in after.events),
    ):
        if isinstance(event, EnterRule) and event.rule in caps:
            since.append(at)
        elif isinstance(event, LeaveRule) and event.rule in caps:
            if since:
                since.pop()
            else:
                kept -= 1
    cells = _leaves(after, caps)
    del branch.scopes[max(kept, 0) :]
    branch.scopes += [
        Scope(cell, rule, at)
        for (cell, rule), at in zip(cells[len(branch.scopes) :], since, strict=False)
    ]
    branch.field_start = spent + 1


def _leaves(state: TagState, caps: frozenset[str]) -> list[tuple[Cell, str]]:
    """The open uses of capped rules on the stack, outermost first."""
    found, cell = [], state.cell
    while cell is not None:
        if isinstance(cell.entry, Leave) and cell.entry.rule in caps:
            found.append((cell, cell.entry.rule))
        cell = cell.below
    return found[::-1]


def scope_slack(branch: BranchState, rule_tokens: dict[str, int]) -> int:
    """The least slack that the open scopes leave; a very large number without any."""
    matcher, spent = branch.matcher, branch.account.spent
    slack = 1 << 30
    for scope in branch.scopes:
        to_leave = matcher.cost_until(scope.cell)
        slack = min(slack, rule_tokens[scope.rule] - (spent - scope.since) - to_leave)
    used = spent - branch.field_start
    for rule in _passed(matcher, rule_tokens):
        slack = min(slack, rule_tokens[rule] - used - matcher.cost_until(None))
    return max(slack, 0)


def _passed(matcher: Matcher, caps: Container[str]) -> set[str]:
    """The capped rules without tags that stand in this field, whatever the next tag."""
    arcs = matcher.structure.arcs
    ways = [
        {e.rule for e in trail if isinstance(e, EnterRule) and e.rule in caps}
        for tag in matcher.next_tags
        for trail in arcs[tag].trails
    ]
    return set.intersection(*ways) if ways else set()
