"""The figures of an evaluation, from its samples alone.

avg@k is the share of right samples. best@k is the chance that one of k samples is right; with more
than k samples the unbiased estimator (arXiv:2107.03374, eq. 1). The parallel trigger rate is the
share of samples with a fork into two or more branches (arXiv:2512.07461, eq. 8). A failed sample
counts as wrong, illegal and sequential; lengths and times are those of samples that did not fail.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final

from nprdsl.structure.events import EndReason
from nprdsl.trainers.evaluate.bootstrap import Estimate, mean, ratio
from nprdsl.trainers.evaluate.samples import Mode, Sample


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens each second over the whole run, and the median seconds from question to answer."""

    tokens_per_s: float
    time_to_answer_s: float


@dataclass(frozen=True, slots=True)
class Baseline:
    """The same requests with one branch after another, as an autoregressive model decodes.

    `speed_up` is the ratio of tokens each second, `time_speed_up` that of the times to an answer;
    `same_traces` the share of samples whose tokens are the same in both.
    """

    speed: Speed
    speed_up: float
    time_speed_up: float
    same_traces: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What an evaluation comes to; rates are shares from 0 to 1.

    `samples` is k of avg@k; `best` maps k to best@k. `tokens` and `critical_path` are means for one
    trace, `degree` their ratio.
    """

    problems: int
    samples: int
    accuracy: Estimate
    best: Mapping[int, Estimate]
    legal_rate: float
    trigger_rate: Estimate
    completed_rate: float
    failed: int
    tokens: Estimate
    critical_path: Estimate
    degree: Estimate
    speed: Speed
    baseline: Baseline | None


Quotient = Callable[[Sequence[Sample]], tuple[float, float]]


def _share(value: Callable[[Sample], bool]) -> Quotient:
    """The share of samples for which something holds."""
    return lambda group: (fmean(value(sample) for sample in group), 1.0)


def _per(value: Callable[[Sample], float], unit: Callable[[Sample], float]) -> Quotient:
    """The ratio of two sums over the samples that did not fail."""

    def quotient(group: Sequence[Sample]) -> tuple[float, float]:
        ran = [sample for sample in group if not sample.failed]
        return float(sum(map(value, ran))), float(sum(map(unit, ran)))

    return quotient


# What the samples of a problem add to a figure: dividend and divisor, to be summed over problems.
QUOTIENTS: Final[Mapping[str, Quotient]] = {
    "accuracy": _share(lambda s: s.right),
    "legal": _share(lambda s: s.legal),
    "parallel": _share(lambda s: s.forks > 0),
    "tokens": _per(lambda s: s.tokens, lambda s: 1),
    "critical path": _per(lambda s: s.critical_path, lambda s: 1),
    "degree": _per(lambda s: s.tokens, lambda s: s.critical_path),
    "time to answer": _per(lambda s: s.time_s, lambda s: 1),
}


def sums(quotient: Quotient, groups: Sequence[Sequence[Sample]]) -> tuple[list[float], list[float]]:
    """Dividends and divisors, one of each for every problem."""
    pairs = [quotient(group) for group in groups]
    return [dividend for dividend, _ in pairs], [divisor for _, divisor in pairs]


def figures(samples: Sequence[Sample], mode: Mode = Mode.PARALLEL) -> Figures:
    """The figures of the samples decoded in `mode`; those decoded in turn are their baseline."""
    own = [sample for sample in samples if sample.mode is mode]
    groups = by_problem(own)
    if not groups:
        raise ValueError("there are no samples to take figures of")
    counts = {len(group) for group in groups.values()}
    if len(counts) != 1:
        raise ValueError(f"some problems have {min(counts)} samples, others {max(counts)}")
    turns = [sample for sample in samples if sample.mode is Mode.IN_TURN]

    def estimate(figure: str) -> Estimate:
        return ratio(*sums(QUOTIENTS[figure], list(groups.values())))

    return Figures(
        problems=len(groups),
        samples=counts.pop(),
        accuracy=estimate("accuracy"),
        best=_best(groups),
        legal_rate=fmean(s.legal for s in own),
        trigger_rate=estimate("parallel"),
        completed_rate=fmean(s.finish is EndReason.COMPLETED for s in own),
        failed=sum(s.failed for s in own),
        tokens=estimate("tokens"),
        critical_path=estimate("critical path"),
        degree=estimate("degree"),
        speed=_speed(own),
        baseline=_baseline(own, turns) if turns and mode is Mode.PARALLEL else None,
    )


def by_problem(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """The samples of each problem, problems in the order of their first sample."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.problem, []).append(sample)
    return groups


def best_at(k: int, samples: int, right: int) -> float:
    """The chance that one of `k` samples is right, where `right` of `samples` are."""
    if not 1 <= k <= samples or not 0 <= right <= samples:
        raise ValueError(f"best@{k} of {samples} samples, {right} of them right, has no meaning")
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def _best(groups: Mapping[str, Sequence[Sample]]) -> dict[int, Estimate]:
    """best@k for the powers of two up to the number of samples, and for that number."""
    samples = len(next(iter(groups.values())))
    sizes = {2**power for power in range(samples.bit_length())} | {samples}
    right = [sum(s.right for s in group) for group in groups.values()]
    return {k: mean([best_at(k, samples, count) for count in right]) for k in sorted(sizes)}


def _speed(samples: Sequence[Sample]) -> Speed:
    ran = [sample for sample in samples if not sample.failed]
    wall = sum(sample.wall_s for sample in samples)
    tokens = sum(sample.tokens for sample in ran)
    return Speed(
        tokens_per_s=tokens / wall if wall else 0.0,
        time_to_answer_s=median(sample.time_s for sample in ran) if ran else 0.0,
    )


def _baseline(own: Sequence[Sample], turns: Sequence[Sample]) -> Baseline:
    fast, slow = _speed(own), _speed(turns)
    other = {(s.problem, s.number): s.trace for s in turns}
    return Baseline(
        speed=slow,
        speed_up=_over(fast.tokens_per_s, slow.tokens_per_s),
        time_speed_up=_over(slow.time_to_answer_s, fast.time_to_answer_s),
        same_traces=fmean(other.get((s.problem, s.number)) == s.trace for s in own),
    )


def _over(one: float, other: float) -> float:
    return one / other if other else 0.0
