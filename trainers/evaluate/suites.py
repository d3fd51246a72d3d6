"""The suites by name: published files that ship, tasks that are generated, and files of the user.

A new task is a line in `GENERATED`.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from nprdsl.grammar.diagnostics import did_you_mean
from nprdsl.trainers.curriculum.arithmetic import development, held_out, longer, reported
from nprdsl.trainers.data.problems import Loaded, Problem, read_problems
from nprdsl.trainers.grading.quantities import EXACT, Tolerance
from nprdsl.trainers.smol.questions import Split
from nprdsl.trainers.smol.questions import problems as word_problems

GENERATED: Final[Mapping[str, Callable[[], Iterable[Problem]]]] = {
    "arith": held_out,
    "arith-long": longer,
    "arith-develop": development,
    "arith-test": reported,
    "smol": lambda: word_problems(Split.TEST, 500),
    "smol-unseen": lambda: word_problems(Split.UNSEEN, 300),
    "smol-develop": lambda: word_problems(Split.DEVELOP, 200),
}
SHIPPED: Final = ("aime25", "amc23", "hmmt25", "math500", "everyday", "everyday-develop")
ELSEWHERE: Final = ("aime24", "minerva", "olympiadbench", "zebralogic")
# of suites whose answers are measured numbers, as their graders have it
MEASURED: Final[Mapping[str, Tolerance]] = {"minerva": Tolerance(relative=1e-4)}


class SuiteError(ValueError):
    """A suite that is not known, or that needs a source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite(Loaded):
    """The problems of a source under a name."""

    name: str

    def __post_init__(self) -> None:
        if not self.problems:
            raise SuiteError(f"the suite `{self.name}` has no problems")

    @property
    def digest(self) -> str:
        """A digest of all problems and answers."""
        values = [
            (p.id, p.prompt, p.answer, p.choices, *_stated(p.tolerance, p.unit))
            for p in self.problems
        ]
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]

    def first(self, count: int) -> Suite:
        """The suite of its first problems."""
        return replace(self, problems=self.problems[:count])


def _stated(tolerance: Tolerance, unit: str) -> tuple[float | str, ...]:
    """What is stated beside an answer; nothing where it is nothing, as in results of before."""
    stated = (tolerance.absolute, tolerance.relative, unit)
    return stated if any(stated) else ()


def named(name: str) -> Suite:
    """The suite of that name that ships, or is generated. Raises SuiteError."""
    if name in GENERATED:
        return Suite("generated", tuple(GENERATED[name]()), (), name=name)
    if name in SHIPPED:
        file = importlib.resources.files("nprdsl.trainers") / "suites" / f"{name}.json"
        loaded = read_problems(str(file))
        return Suite(file.name, loaded.problems, loaded.rejected, name=name)
    if name in ELSEWHERE:
        raise SuiteError(
            f"the problems of `{name}` do not ship; name a file, or a dataset of the hub: "
            f"{name}=PATH"
        )
    known = sorted((*GENERATED, *SHIPPED, *ELSEWHERE))
    hint = did_you_mean(name, known) or f"the suites are {', '.join(known)}"
    raise SuiteError(f"there is no suite `{name}`; {hint}; problems of your own are NAME=PATH")


def from_source(name: str, source: str, **options: str) -> Suite:
    """The problems of a file, a folder or a dataset, under a name; `options` are those of
    `read_problems`. Answers of a suite whose name begins with `minerva` may be off by a
    ten-thousandth. Raises SourceError."""
    loaded = read_problems(source, **options)
    tolerances = (value for kind, value in MEASURED.items() if name.casefold().startswith(kind))
    tolerance = next(tolerances, EXACT)
    problems = tuple(
        replace(problem, tolerance=tolerance) if problem.tolerance == EXACT else problem
        for problem in loaded.problems
    )
    return Suite(loaded.source, problems, loaded.rejected, name=name)
