"""Rewards of traces: a score, and the reasons that make it up.

`format` scores the violations of a trace; `presets` puts format, answer and parallelism together as
the published systems do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


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


NO_REWARD: Final = Reward(0.0)
