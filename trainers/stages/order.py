"""The order of rows: passes over all of them, each shuffled by the seed, cut into batches.

What a batch holds follows from its number alone, so that a run goes on anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True, slots=True)
class Order:
    """`rows` rows in batches of `size`; `shuffled` False keeps them in their own order."""

    rows: int
    size: int
    seed: int
    shuffled: bool = True

    def __post_init__(self) -> None:
        if self.rows < 1 or self.size < 1:
            raise ValueError(f"{self.rows} rows in batches of {self.size} cannot be ordered")

    def batches(self, passes: float) -> int:
        """Batches of so many passes over all rows, one at least."""
        return max(1, round(passes * self.rows / self.size))

    def batch(self, number: int) -> list[int]:
        """The rows of batch `number`."""
        return self.span(number * self.size, self.size)

    def span(self, begin: int, count: int) -> list[int]:
        """`count` rows from place `begin` of all passes on."""
        places = range(begin, begin + count)
        return [self._pass(at // self.rows)[at % self.rows] for at in places]

    def _pass(self, number: int) -> tuple[int, ...]:
        if not self.shuffled:
            return tuple(range(self.rows))
        return _shuffled(self.rows, self.seed, number)


@lru_cache(maxsize=4)
def _shuffled(rows: int, seed: int, number: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng((seed, number)).permutation(rows).tolist())
