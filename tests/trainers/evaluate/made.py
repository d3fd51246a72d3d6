"""Samples and reports that are made by hand, and the bundled model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from nprdsl.runtime import LocalEngine
from nprdsl.structure.events import EndReason
from nprdsl.trainers.evaluate.figures import figures
from nprdsl.trainers.evaluate.reports import EvaluationReport, SuiteReport
from nprdsl.trainers.evaluate.samples import Mode, Sample


@cache
def arith() -> LocalEngine:
    """The engine of the bundled model; in fp32, so that tokens are the same at any batch."""
    return LocalEngine.from_pretrained("arith", dtype="fp32")


def sample(
    problem: str = "p0",
    number: int = 0,
    *,
    right: bool = True,
    mode: Mode = Mode.PARALLEL,
    legal: bool = True,
    forks: int = 1,
    tokens: int = 100,
    critical_path: int = 50,
    time_s: float = 1.0,
    wall_s: float = 0.5,
    finish: EndReason = EndReason.COMPLETED,
    trace: str = "t",
) -> Sample:
    """A sample with these values."""
    return Sample(
        problem=problem,
        number=number,
        mode=mode,
        answer="1",
        right=right,
        legal=legal,
        forks=forks,
        tokens=tokens,
        sampled_tokens=tokens,
        critical_path=critical_path,
        time_s=time_s,
        wall_s=wall_s,
        finish=finish,
        trace=trace,
        text="",
    )


def graded(rights: Sequence[Sequence[int]]) -> list[Sample]:
    """Samples of problems `p0`, `p1` …, right where there is a 1."""
    return [
        sample(f"p{problem}", number, right=bool(right))
        for problem, row in enumerate(rights)
        for number, right in enumerate(row)
    ]


def failed(one: Sample) -> Sample:
    """The sample as it would be had it failed."""
    return replace(
        one,
        right=False,
        legal=False,
        forks=0,
        tokens=0,
        critical_path=0,
        time_s=0.0,
        error="no room",
    )


def report(samples: Sequence[Sample], suite: str = "made", model: str = "m") -> EvaluationReport:
    """A report of one suite."""
    found = SuiteReport("here", "d", (), figures(samples), tuple(samples))
    return EvaluationReport("0", {"model": model, "modes": ["parallel"]}, {suite: found})
