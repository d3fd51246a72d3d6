"""Several evaluations side by side: what differs from the first, and whether it is more than noise.

Only problems that both have count, and their differences are drawn again (see `bootstrap`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nprdsl.trainers.evaluate.bootstrap import Estimate, difference
from nprdsl.trainers.evaluate.figures import QUOTIENTS, Quotient, best_at, by_problem, sums
from nprdsl.trainers.evaluate.reports import EvaluationReport, ReportError
from nprdsl.trainers.evaluate.samples import Sample

Groups = Sequence[Sequence[Sample]]  # the samples of each problem


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of one suite: its value in the first report and in another, over the problems
    that both have, and the second less the first."""

    figure: str
    first: float
    other: float
    gap: Estimate


@dataclass(frozen=True, slots=True)
class Pair:
    """The first report and another on one suite. `only_first`, `only_other`: problems left out."""

    suite: str
    name: str
    problems: int
    only_first: int
    only_other: int
    differences: tuple[Difference, ...]


def compare(named: Sequence[tuple[str, EvaluationReport]]) -> tuple[Pair, ...]:
    """Every report against the first, suite by suite. Raises ReportError.

    Reports without a common suite, or without a common problem in it, cannot be compared.
    """
    if len(named) < 2:
        raise ReportError(f"a comparison needs two reports or more, not {len(named)}")
    (name, first), *others = named
    pairs: list[Pair] = []
    for other_name, other in others:
        common = [suite for suite in first.suites if suite in other.suites]
        if not common:
            raise ReportError(
                f"`{name}` has the suites {', '.join(first.suites)}, `{other_name}` has "
                f"{', '.join(other.suites)}: none is in both"
            )
        pairs += [_pair(other_name, suite, first, other) for suite in common]
    return tuple(pairs)


def _pair(name: str, suite: str, first: EvaluationReport, other: EvaluationReport) -> Pair:
    reports = first.suites[suite], other.suites[suite]
    one, two = by_problem(reports[0].of(first.mode)), by_problem(reports[1].of(other.mode))
    common = [problem for problem in one if problem in two]
    if not common:
        raise ReportError(
            f"the suite `{suite}` has no problem in both (`{reports[0].source}` and "
            f"`{reports[1].source}`)"
        )
    k = min(len(one[common[0]]), len(two[common[0]]))
    return Pair(
        suite=suite,
        name=name,
        problems=len(common),
        only_first=len(one) - len(common),
        only_other=len(two) - len(common),
        differences=tuple(
            _difference(figure, quotient, [one[p] for p in common], [two[p] for p in common])
            for figure, quotient in _figures(k).items()
        ),
    )


def _difference(figure: str, quotient: Quotient, one: Groups, two: Groups) -> Difference:
    first, other = sums(quotient, one), sums(quotient, two)
    return Difference(figure, _value(*first), _value(*other), difference(other, first))


def _value(dividends: Sequence[float], divisors: Sequence[float]) -> float:
    below = sum(divisors)
    return sum(dividends) / below if below else 0.0


def _figures(k: int) -> dict[str, Quotient]:
    """The figures to be compared; best@k where k is above 1."""

    def best(group: Sequence[Sample]) -> tuple[float, float]:
        return best_at(k, len(group), sum(sample.right for sample in group)), 1.0

    named = {f"best@{k}": best} if k > 1 else {}
    return {"accuracy": QUOTIENTS["accuracy"], **named, **QUOTIENTS}
