"""The bootstrap: 95 % intervals for means and ratios over problems.

One value for each problem goes in, an estimate with its interval comes out. The problems are drawn
again many times, with replacement; not the samples, as those of one problem are not independent.
Where two models have the same problems, their differences are what is drawn (paired bootstrap). The
draws are seeded: equal data give equal intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

DRAWS: Final = 4000
LEVEL: Final = 0.95
_AT_ONCE: Final = 2_000_000  # drawn values in memory


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"the interval from {self.low} to {self.high} is empty")

    @property
    def differs(self) -> bool:
        """For a difference: 0 lies outside the interval."""
        return not self.low <= 0.0 <= self.high


def mean(values: Sequence[float]) -> Estimate:
    """The mean of one value for each problem."""
    return ratio(values, [1.0] * len(values))


def ratio(over: Sequence[float], under: Sequence[float]) -> Estimate:
    """The ratio of two sums over the problems; 0 where nothing stands below."""
    return difference((over, under), ([0.0] * len(over), [1.0] * len(over)))


def difference(
    one: tuple[Sequence[float], Sequence[float]], other: tuple[Sequence[float], Sequence[float]]
) -> Estimate:
    """The difference of two ratios of sums over the same problems, in the same order."""
    columns = np.array([*one, *other], np.float64)
    count = columns.shape[1]
    if not count:
        raise ValueError("there are no problems to take a mean of")
    drawn = _drawn(count)
    parts = np.array_split(drawn, -(-drawn.size // _AT_ONCE))
    gaps = np.concatenate([_gap(columns @ part.T) for part in parts])
    low, high = np.quantile(gaps, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(_gap(columns.sum(axis=1))), float(low), float(high))


@lru_cache(maxsize=2)
def _drawn(count: int) -> NDArray[np.uint16]:
    """How often each problem is drawn, uint16 [DRAWS, count]."""
    random = np.random.default_rng(0)
    shares = np.full(count, 1 / count)
    rows = [random.multinomial(count, shares).astype(np.uint16) for _ in range(DRAWS)]
    return np.stack(rows)


def _gap(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [4, …] to float64 […]: first over second, less third over fourth."""
    first = np.divide(sums[0], sums[1], out=np.zeros_like(sums[0]), where=sums[1] != 0)
    second = np.divide(sums[2], sums[3], out=np.zeros_like(sums[2]), where=sums[3] != 0)
    gap: NDArray[np.float64] = first - second
    return gap
