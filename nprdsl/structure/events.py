"""What happens while a trace is read or written, as small frozen values.

Structure events are made by `nprdsl.structure.tag_machine` between tags: entering and leaving
rules, forks, branches, joins. Run events are made by `nprdsl.machine.machine` for whoever watches a
generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nprdsl.grammar.ir import Block


@dataclass(frozen=True, slots=True)
class EnterRule:
    rule: str


@dataclass(frozen=True, slots=True)
class LeaveRule:
    rule: str


@dataclass(frozen=True, slots=True)
class EnterBlock:
    """A map, or a spawn, begins."""

    block: Block


@dataclass(frozen=True, slots=True)
class EnterFork:
    """The map is complete: the branches begin here."""

    block: Block


@dataclass(frozen=True, slots=True)
class EnterBranch:
    block: Block
    index: int
    labels: tuple[str, ...]  # bound values, in the order of `block.bound`


@dataclass(frozen=True, slots=True)
class LeaveBranch:
    block: Block
    index: int


@dataclass(frozen=True, slots=True)
class EnterJoin:
    """All branches are complete: the join element begins here."""

    block: Block


StructureEvent = (
    EnterRule | LeaveRule | EnterBlock | EnterFork | EnterBranch | LeaveBranch | EnterJoin
)


class EndReason(StrEnum):
    """Why a generation ended."""

    COMPLETED = "completed"  # the model ended the trace
    BUDGET = "budget"  # the token budget was spent; the trace was closed legally
    ABORTED = "aborted"  # the caller stopped it
    FAILED = "failed"  # the engine failed; see the error
    ILLEGAL = "illegal"  # the model, which nothing constrained, left the schema


class BranchReason(StrEnum):
    """Why a branch ended."""

    COMPLETED = "completed"  # the model ended it
    BUDGET = "budget"  # its allotment was spent; it was closed legally
    CUT = "cut"  # the join had enough branches; it was closed legally


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """Tokens were appended to a branch; `forced` is true where the model had no choice."""

    branch: int
    path: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str
    forced: bool


@dataclass(frozen=True, slots=True)
class ForkEvent:
    """`rule` is the one that all children are written by; `labels` name them for people."""

    parent: int
    children: tuple[int, ...]
    labels: tuple[str, ...]
    rule: str


@dataclass(frozen=True, slots=True)
class BranchEndEvent:
    branch: int
    reason: BranchReason


@dataclass(frozen=True, slots=True)
class JoinEvent:
    parent: int
    children: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EndEvent:
    reason: EndReason


Event = TokenEvent | ForkEvent | BranchEndEvent | JoinEvent | EndEvent
