"""How far the log-probabilities of rollouts are from those that the trainer finds for them.

In go, for each token that teaches, both log-probabilities; out come figures over all of them, and a
refusal of the step where their mean difference or the divergence of the two policies is too large:
training would not be on policy. One token of millions may differ by a lot where precision is low,
so the largest difference is told, and stops a run only where that is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object

from nprdsl.trainers.config.stages import RolloutSection
from nprdsl.trainers.objective.advantages import Floats
from nprdsl.trainers.rollout.rollout import Rollout

FAR: Final = 0.1  # a token whose probability differs by a tenth
_QUANTILE: Final = 0.999


class MismatchError(RuntimeError):
    """Rollout and trainer give the same tokens different log-probabilities."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Differences between the log-probabilities of rollout and trainer, over `tokens` tokens.

    `mean`, `p999` (the 99.9th percentile) and `largest` are of their sizes; `far` is the share of
    tokens that differ by more than 0.1. `kl` estimates the divergence of the trainer's policy from
    the one that sampled by the mean of r - 1 - log r, with r the ratio of their probabilities, in
    nats for each token; it is never negative.
    """

    mean: float = 0.0
    p999: float = 0.0
    largest: float = 0.0
    far: float = 0.0
    kl: float = 0.0
    tokens: int = 0

    @classmethod
    def of(cls, gaps: Floats) -> Mismatch:
        """Of the trainer's log-probabilities less those of the rollouts, [N]."""
        if not len(gaps):
            return cls()
        sizes = np.abs(gaps)
        with np.errstate(over="ignore", invalid="ignore"):  # what is no number stops a step
            return cls(
                mean=float(sizes.mean()),
                p999=float(np.quantile(sizes, _QUANTILE)),
                largest=float(sizes.max()),
                far=float((sizes > FAR).mean()),
                kl=float((np.expm1(gaps) - gaps).mean()),
                tokens=len(gaps),
            )

    def metrics(self) -> dict[str, float]:
        names = ("mean", "p999", "largest", "far", "kl")
        return {f"mismatch/{name}": getattr(self, name) for name in names}


def gaps_between(rollouts: Sequence[Rollout], trained: Sequence[Floats]) -> list[Floats]:
    """For each rollout the trainer's log-probabilities less its own, [N]."""
    pairs = zip(rollouts, trained, strict=True)
    return [logprobs - rollout.row.logprobs for rollout, logprobs in pairs]


def compare(gaps: Sequence[Floats], section: RolloutSection, accelerator: Accelerator) -> Mismatch:
    """The figures of the rollouts of all processes; `gaps` are those of this one.

    Raises MismatchError, on all processes, where a figure is above its limit or no number.
    """
    own = np.concatenate([np.zeros(0), *gaps]).astype(np.float32)
    every = gather_object([own]) if accelerator.num_processes > 1 else [own]
    found = Mismatch.of(np.concatenate(every).astype(np.float64))
    limits = {"mean": section.mismatch_mean, "kl": section.mismatch_kl, "largest": section.mismatch}
    for name, limit in limits.items():
        value = getattr(found, name)
        if limit is not None and not value <= limit:  # also where it is not a number
            key = "mismatch" if name == "largest" else f"mismatch_{name}"
            raise MismatchError(
                f"rollout and trainer differ in the log-probabilities of {found.tokens} tokens by "
                f"{found.mean:.3g} in the mean, {found.largest:.3g} at most{_worst(gaps)}, a "
                f"divergence of {found.kl:.3g}; `rollout.{key}` allows {limit:g}: are the "
                "weights, the dtype and the mask of both the same?"
            )
    return found


def _worst(gaps: Sequence[Floats]) -> str:
    """Where the largest difference of this process is."""
    largest = [np.abs(gap).max(initial=0.0) for gap in gaps]
    if not largest:
        return ""
    trace = int(np.argmax(largest))
    return f" (trace {trace}, sampled token {int(np.argmax(np.abs(gaps[trace])))})"
