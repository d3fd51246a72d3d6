"""The same prompt with its branches side by side and one after another, on the same engine.

The two ways take turns, after a first run of each that is not counted, so that neither has warmer
caches; medians are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nprdsl.runtime.results import Result

_ROUNDS = 3
_ENOUGH_S = 20.0  # slow models are measured once


@dataclass(frozen=True, slots=True)
class Comparison:
    """Seconds and model calls of both ways; `runs` of each were measured."""

    parallel_s: float
    in_turn_s: float
    parallel_forwards: int
    in_turn_forwards: int
    runs: int
    same_trace: bool

    @property
    def speed_up(self) -> float:
        return self.in_turn_s / self.parallel_s

    def record(self) -> dict[str, object]:
        """The comparison as JSON values."""
        return {
            "parallel_s": round(self.parallel_s, 4),
            "in_turn_s": round(self.in_turn_s, 4),
            "parallel_forwards": self.parallel_forwards,
            "in_turn_forwards": self.in_turn_forwards,
            "runs": self.runs,
            "same_trace": self.same_trace,
            "speed_up": round(self.speed_up, 4),
        }


def compare(
    first: Result, side_by_side: Callable[[], Result], in_turn: Callable[[], Result]
) -> Comparison:
    """Measure both ways; `first` is a run side by side that is done already."""
    fast: list[Result] = []
    slow: list[Result] = []
    if first.usage.time_s < _ENOUGH_S:
        in_turn()
    started = time.perf_counter()
    while len(fast) < _ROUNDS:
        slow.append(in_turn())
        fast.append(side_by_side())
        if time.perf_counter() - started > _ENOUGH_S:
            break
    return Comparison(
        parallel_s=median(result.usage.time_s for result in fast),
        in_turn_s=median(result.usage.time_s for result in slow),
        parallel_forwards=fast[0].usage.forwards,
        in_turn_forwards=slow[0].usage.forwards,
        runs=len(fast),
        same_trace=all(result.token_ids == first.token_ids for result in (*fast, *slow)),
    )
