"""What the machine asks of an engine, and how many branches a join waits for.

Actions are executed in order. All feeds of one round, of all branches and requests, may go into one
forward: the KV of every fed token is written before attention.
"""

from __future__ import annotations

from dataclasses import dataclass

from nprdsl.machine.budget import check_count
from nprdsl.structure.events import EndReason

ROOT = 0


@dataclass(frozen=True, slots=True)
class JoinPolicy:
    """How many complete branches a join waits for; None waits for all. The others are then cut:
    closed
    legally with the fewest tokens, so that the trace stays legal."""

    quorum: int | None = None

    def __post_init__(self) -> None:
        if self.quorum is not None:
            check_count("quorum", self.quorum)


ALL = JoinPolicy()
FIRST = JoinPolicy(1)


@dataclass(frozen=True, slots=True)
class FeedAction:
    """Append these tokens to the branch; positions go on from the branch's last."""

    branch: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ForkAction:
    """The children see what the parent sees and go on at its position; the parent waits."""

    parent: int
    children: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class JoinAction:
    """The parent sees all that the children see; its next position is the greatest of theirs. Until
    it is fed, it draws behind what the last child was fed last."""

    parent: int
    children: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DropAction:
    """The children's KV is not needed any more; the parent goes on from where it forked."""

    parent: int
    children: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EndAction:
    """The generation is over; its KV can be freed."""

    reason: EndReason


Action = FeedAction | ForkAction | JoinAction | DropAction | EndAction
