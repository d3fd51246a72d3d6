"""Advantages: how much better a sample is than the others of its prompt, from their rewards.

PAPO divides what differs from the mean of the prompt's group by the standard deviation of the whole
batch, computed once (arXiv:2512.07461, eq. 5); GRPO and DAPO divide by the group's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

EPSILON: Final = 1e-6
Floats = NDArray[np.float64]


def batch_normalised(rewards: Sequence[float], groups: Sequence[int]) -> Floats:
    """(R - mean of the group) / std of the batch: arXiv:2512.07461, eq. 5; [N].

    `groups` names the prompt of each sample. A batch whose rewards are all equal has advantage 0. A
    sample alone in its group has nothing to be compared with: 0 too.
    """
    values, means = _means(rewards, groups)
    return _divided(values - means, np.full(len(values), values.std()))


def group_normalised(rewards: Sequence[float], groups: Sequence[int]) -> Floats:
    """(R - mean of the group) / std of the group: arXiv:2503.14476, eq. 9; [N]."""
    values, means = _means(rewards, groups)
    return _divided(values - means, _by_group(values, groups, np.std))


def informative(rewards: Sequence[float], groups: Sequence[int]) -> NDArray[np.bool_]:
    """Dynamic sampling (arXiv:2503.14476, eq. 11): the samples of groups whose rewards are not all
    equal; the others teach nothing. bool [N]."""
    return _by_group(np.asarray(rewards, np.float64), groups, np.ptp) > EPSILON


def overlong(length: int, limit: int, buffer: int, factor: float = 1.0) -> float:
    """Overlong shaping (arXiv:2503.14476, eq. 13): 0 up to `limit - buffer` tokens, down to
    `-factor` at `limit`, and `-factor` beyond."""
    if not 0 < buffer <= limit:
        raise ValueError(f"buffer must be from 1 to {limit}, not {buffer}")
    excess = length - (limit - buffer)
    return -factor * min(max(excess / buffer, 0.0), 1.0)


def _means(rewards: Sequence[float], groups: Sequence[int]) -> tuple[Floats, Floats]:
    values = np.asarray(rewards, np.float64)
    if values.shape != (len(groups),):
        raise ValueError(f"there are {len(values)} rewards, but {len(groups)} group numbers")
    if not np.isfinite(values).all():
        raise ValueError(f"reward {int(np.flatnonzero(~np.isfinite(values))[0])} is not finite")
    return values, _by_group(values, groups, np.mean)


def _by_group(values: Floats, groups: Sequence[int], of: Callable[[Floats], np.float64]) -> Floats:
    """For every sample what `of` gives for the values of its group, [N]."""
    numbers, figures = np.asarray(groups), np.empty(len(values))
    for group in np.unique(numbers):
        members = numbers == group
        figures[members] = of(values[members])
    return figures


def _divided(differences: Floats, spreads: Floats) -> Floats:
    """0 where nothing differs, rather than rounding errors blown up."""
    zeros = np.zeros_like(differences)
    return np.divide(differences, spreads, out=zeros, where=spreads > EPSILON)
