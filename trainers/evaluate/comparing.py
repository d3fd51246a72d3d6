"""Several evaluations side by side: what differs from the first, and whether it is more than noise.

Only problems that both have count, and their differences are drawn again (see `bootstrap`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from nprdsl.trainers.evaluate.bootstrap import Estimate, difference
from nprdsl.trainers.evaluate.figures import best_at, by_problem
from nprdsl.trainers.evaluate.reports import Report, ReportError, SuiteReport
from nprdsl.trainers.evaluate.samples import Sample

Group = Sequence[Sample]
Share = tuple[float, float]  # what a problem adds above and below the line


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


def compare(named: Sequence[tuple[str, Report]]) -> tuple[Pair, ...]:
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
        for suite in common:
            one = by_problem(first.suites[suite].of(first.mode))
            two = by_problem(other.suites[suite].of(other.mode))
            pairs.append(
                _pair(suite, other_name, one, two, (first.suites[suite], other.suites[suite]))
            )
    return tuple(pairs)


def _pair(
    suite: str,
    name: str,
    one: Mapping[str, Group],
    two: Mapping[str, Group],
    reports: tuple[SuiteReport, SuiteReport],
) -> Pair:
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
            _difference(figure, share, [one[p] for p in common], [two[p] for p in common])
            for figure, share in _figures(k).items()
        ),
    )


def _difference(
    figure: str, share: Callable[[Group], Share], one: Sequence[Group], two: Sequence[Group]
) -> Difference:
    first = _columns([share(group) for group in one])
    other = _columns([share(group) for group in two])
    return Difference(figure, _value(first), _value(other), difference(other, first))


def _columns(shares: Sequence[Share]) -> tuple[list[float], list[float]]:
    return [above for above, _ in shares], [below for _, below in shares]


def _value(columns: tuple[Sequence[float], Sequence[float]]) -> float:
    below = sum(columns[1])
    return sum(columns[0]) / below if below else 0.0


def _figures(k: int) -> dict[str, Callable[[Group], Share]]:
    """What each problem adds to a figure, above and below the line; best@k where k is above 1."""
    best = {f"best@{k}": lambda group: (_best(group, k), 1.0)} if k > 1 else {}
    return {"accuracy": _ACCURACY, **best, **_OTHERS}


def _best(group: Group, k: int) -> float:
    return best_at(k, len(group), sum(sample.right for sample in group))


def _ran(group: Group) -> list[Sample]:
    return [sample for sample in group if not sample.failed]


def _ACCURACY(group: Group) -> Share:
    return fmean(sample.right for sample in group), 1.0


_OTHERS: Final[Mapping[str, Callable[[Group], Share]]] = {
    "legal": lambda group: (fmean(s.legal for s in group), 1.0),
    "parallel": lambda group: (fmean(s.forks > 0 for s in group), 1.0),
    "tokens": lambda group: (float(sum(s.tokens for s in _ran(group))), float(len(_ran(group)))),
    "critical path": lambda group: (
        float(sum(s.critical_path for s in _ran(group))),
        float(len(_ran(group))),
    ),
    "degree": lambda group: (
        float(sum(s.tokens for s in _ran(group))),
        float(sum(s.critical_path for s in _ran(group))),
    ),
    "time to answer": lambda group: (sum(s.time_s for s in _ran(group)), float(len(_ran(group)))),
}
