"""What happens while a trace is read or written, as small frozen values.

Structure events are made by `nprdsl.structure.tag_machine` between tags: entering and leaving
rules, forks, branches, joins. Run events are made by `nprdsl.machine.machine` for whoever watches a
generation.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar

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


def _plain(value: object) -> object:
    if isinstance(value, StrEnum):
        return value.value
    return list(value) if isinstance(value, tuple) else value


class EventKind(StrEnum):
    """What a run event tells."""

    TOKEN = "token"
    FORK = "fork"
    BRANCH_END = "branch_end"
    JOIN = "join"
    END = "end"


class RunEvent:
    """What all events of a generation have: their `kind`, and a form for JSON.

    `path` is () for the trunk, else block and branch numbers from the trunk down: (0, 2) is the
    third branch of the trunk's first fork.
    """

    __slots__ = ()
    kind: ClassVar[EventKind]

    def to_dict(self) -> dict[str, Any]:
        """`kind` and the fields as JSON values: a line of a stream, once it is dumped."""
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        return {"kind": self.kind.value, **{name: _plain(getattr(self, name)) for name in names}}


@dataclass(frozen=True, slots=True)
class TokenEvent(RunEvent):
    """Tokens were appended to a branch; `forced` is true where the model had no choice.

    `text` is the characters that they complete: "" where a character goes on in the next token, and
    for the token that ends the trace. `rule` is the innermost rule that the branch was writing,
    `label` that of the branch in its fork. `logprobs` are natural logarithms, one for each token,
    None where it was forced, or a stock server has not told it; none unless they were asked for.
    `answer` is what is surely the answer of what was written up to here and not told before: all of
    them make a beginning of `Result.answer`, if the trace comes to a legal end.
    """

    kind: ClassVar[EventKind] = EventKind.TOKEN

    branch: int
    path: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str
    forced: bool
    rule: str = ""
    label: str = ""
    logprobs: tuple[float | None, ...] = ()
    answer: str = ""


@dataclass(frozen=True, slots=True)
class ForkEvent(RunEvent):
    """`rule` is the one that all children are written by; `labels` name them for people. `path` is
    the parent's, `block` counts its forks: the children's paths are `(*path, block, 0)` and on."""

    kind: ClassVar[EventKind] = EventKind.FORK

    parent: int
    children: tuple[int, ...]
    labels: tuple[str, ...]
    rule: str
    path: tuple[int, ...] = ()
    block: int = 0


@dataclass(frozen=True, slots=True)
class BranchEndEvent(RunEvent):
    """A branch has ended, and waits for the join."""

    kind: ClassVar[EventKind] = EventKind.BRANCH_END

    branch: int
    reason: BranchReason
    path: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class JoinEvent(RunEvent):
    """The parent goes on; `path` is its own."""

    kind: ClassVar[EventKind] = EventKind.JOIN

    parent: int
    children: tuple[int, ...]
    path: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class EndEvent(RunEvent):
    """The generation is over; nothing follows but the result. `path` is that of the trunk."""

    kind: ClassVar[EventKind] = EventKind.END

    reason: EndReason
    path: tuple[int, ...] = ()


Event = TokenEvent | ForkEvent | BranchEndEvent | JoinEvent | EndEvent
