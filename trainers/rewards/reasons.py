"""A reward and its reasons."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """One part of a reward: what it is for, and the words that say why."""

    name: str
    score: float
    why: str


@dataclass(frozen=True, slots=True)
class Reward:
    """`score` is what trains; it is the sum of the reasons unless a bound cut it off."""

    score: float
    reasons: tuple[Reason, ...] = ()

    def __add__(self, other: Reward) -> Reward:
        return Reward(self.score + other.score, self.reasons + other.reasons)


NOTHING = Reward(0.0)
