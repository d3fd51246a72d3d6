"""One branch of a running generation: its matcher, its account, its forks, and its open token caps.

`Limits.rule_tokens` caps what one use of a rule may take. Each branch keeps a list of the capped
rules that are open on it, with what it had spent when they were entered; the least that any of them
leaves bounds the branch's next tokens, as its budget does.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from enum import StrEnum

from nprdsl.machine.budget import TextTokens, TokenAccount
from nprdsl.masks.matcher import Matcher
from nprdsl.structure.events import BranchReason, EnterRule, LeaveRule
from nprdsl.structure.stack import Cell, MapFrame, RuleEnd
from nprdsl.structure.tag_machine import TagState, steps


class Place(StrEnum):
    """Where a text stands, by what runs beside it."""

    ITEM = "item"  # in an item of a list
    BRANCH = "branch"
    TRUNK = "trunk"  # before forks, in joins, behind them


@dataclass(frozen=True, slots=True)
class OpenCap:
    """An open use of a capped rule: its stack cell, and what the branch had spent before it."""

    cell: Cell
    rule: str
    spent: int


@dataclass(slots=True)
class BranchState:
    """A branch that is being written. `path` is () for the trunk, else block and branch numbers
    from the trunk down, whatever the order of scheduling. `children` are the branches of the fork
    that it waits for, of the last of which `held` is not fed yet; `forks` counts those begun."""

    number: int
    path: tuple[int, ...]
    matcher: Matcher
    account: TokenAccount
    parent: int | None
    children: tuple[int, ...] = ()
    held: tuple[int, ...] = ()
    forks: int = 0
    squeezed: bool = False  # its last token was chosen with no slack left
    reason: BranchReason | None = None
    caps: list[OpenCap] = field(default_factory=list)  # outermost first
    field_start: int = 0  # what was spent where the field in progress began
    text_start: int = 0  # the same, behind what was forced of the field
    text_end: int = 0  # the fewest tokens that ended the field there
    text_over: bool = False  # nothing more may stand in it


def open_caps(branch: BranchState, capped: frozenset[str]) -> None:
    """The capped rules that are open where a branch begins, or goes on behind a join."""
    spent, cells = branch.account.spent, _open_uses(branch.matcher.structure, capped)
    branch.caps += [OpenCap(cell, rule, spent) for cell, rule in cells[len(branch.caps) :]]
    branch.field_start = spent


def follow_caps(branch: BranchState, capped: frozenset[str], before: TagState, tag: str) -> None:
    """Enter and leave capped rules when the branch's next token has completed `tag`.

    A rule counts from the token that completes its first tag, one without tags from the tag before
    it.
    """
    after, spent = branch.matcher.structure, branch.account.spent
    arc = before.arcs.get(tag)
    kept, entered = len(branch.caps), []  # entered: what was spent before those newly open
    for event, at in (
        *((event, spent) for event in (steps(arc.trails[0]) if arc is not None else ())),
        *((event, spent + 1) for event in after.events),
    ):
        if isinstance(event, EnterRule) and event.rule in capped:
            entered.append(at)
        elif isinstance(event, LeaveRule) and event.rule in capped:
            if entered:
                entered.pop()
            else:
                kept -= 1
    cells = _open_uses(after, capped)
    del branch.caps[max(kept, 0) :]
    branch.caps += [
        OpenCap(cell, rule, at)
        for (cell, rule), at in zip(cells[len(branch.caps) :], entered, strict=False)
    ]
    branch.field_start = spent + 1


def begin_text(branch: BranchState) -> None:
    """A text may begin here: behind a tag, or behind what was forced."""
    branch.text_start = branch.account.spent
    branch.text_end = branch.matcher.cost_until(None)
    branch.text_over = False


def text_slack(branch: BranchState, texts: TextTokens) -> int:
    """The slack that the cap of the text in progress leaves: of the text alone, not of what may
    follow it."""
    if branch.text_over:
        return 0
    matcher = branch.matcher
    most = {Place.ITEM: texts.item, Place.BRANCH: texts.branch, Place.TRUNK: texts.trunk}
    spent = branch.account.spent - branch.text_start
    further = most[_place(matcher.structure)] - 1  # the shortest end has one token of the text
    return max(further - spent + branch.text_end - matcher.cost_until(None), 0)


def reserved_slack(branch: BranchState, texts: TextTokens) -> int:
    """The slack that is left beside what is kept for later texts."""
    matcher = branch.matcher
    return max(branch.account.free - matcher.cost - matcher.kept_back(texts.kept), 0)


def _place(state: TagState) -> Place:
    frame = state.frame
    if isinstance(frame, MapFrame) and frame.open is not None:
        return Place.ITEM
    return Place.BRANCH if frame.branch.depth else Place.TRUNK


def _open_uses(state: TagState, capped: frozenset[str]) -> list[tuple[Cell, str]]:
    """The open uses of capped rules on the stack, outermost first."""
    uses, cell = [], state.cell
    while cell is not None:
        if isinstance(cell.entry, RuleEnd) and cell.entry.rule in capped:
            uses.append((cell, cell.entry.rule))
        cell = cell.below
    return uses[::-1]


def cap_slack(branch: BranchState, rule_tokens: dict[str, int]) -> int:
    """The least slack that the open capped rules leave; a very large number without any."""
    matcher, spent = branch.matcher, branch.account.spent
    slack = 1 << 30
    for cap in branch.caps:
        to_leave = matcher.cost_until(cap.cell)
        slack = min(slack, rule_tokens[cap.rule] - (spent - cap.spent) - to_leave)
    used = spent - branch.field_start
    for rule in _passed(matcher, rule_tokens):
        slack = min(slack, rule_tokens[rule] - used - matcher.cost_until(None))
    return max(slack, 0)


def _passed(matcher: Matcher, capped: Container[str]) -> set[str]:
    """The capped rules without tags that stand in this field, whatever the next tag."""
    arcs = matcher.structure.arcs
    ways = [
        {e.rule for e in trail if isinstance(e, EnterRule) and e.rule in capped}
        for tag in matcher.next_tags
        for trail in arcs[tag].trails
    ]
    return set.intersection(*ways) if ways else set()
