"""One trace of one problem, graded and measured.

A sample that could not be run, or that failed, is a sample too: it is wrong, and says why.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np

from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.runtime.results import Completion, Result, Usage
from nprdsl.runtime.sampling import Sampling
from nprdsl.structure.events import EndReason
from nprdsl.structure.violations import TraceError
from nprdsl.trace.graph import ExecutionGraph
from nprdsl.trace.trace import TokenTrace
from nprdsl.trainers.data.problems import Problem
from nprdsl.trainers.grading.answers import Fallback


class Mode(StrEnum):
    """How a model writes: under masks, branches all at once or one after another, as an
    autoregressive model; or without masks, forking where it writes the tags of a fork, or freely,
    on one branch."""

    PARALLEL = "parallel"
    IN_TURN = "in_turn"
    NATIVE = "native"
    FREE = "free"


MASKED: Final = (Mode.PARALLEL, Mode.IN_TURN)


@dataclass(frozen=True, slots=True)
class Sample:
    """Sample `number` of the problem with the id `problem`.

    `answer` is what counts as the answer, "" if there is none. `forks` are the forks into two or
    more branches, `branches` all of the trace. `time_s` goes from submission to the end, `wall_s`
    from the end of the sample before, so that all `wall_s` together are the time of the run.
    `trace` is a digest of the tokens. `error` says why there is no trace.
    """

    problem: str
    number: int
    mode: Mode
    answer: str
    right: bool
    legal: bool
    forks: int
    tokens: int
    sampled_tokens: int
    critical_path: int
    time_s: float
    wall_s: float
    finish: EndReason
    trace: str
    text: str
    error: str = ""
    branches: int = 0

    def __post_init__(self) -> None:
        if self.critical_path > self.tokens:
            raise ValueError(
                f"the critical path of `{self.problem}` has {self.critical_path} of "
                f"{self.tokens} tokens: it cannot be longer than the trace"
            )

    @property
    def key(self) -> tuple[str, int, Mode]:
        """What names it in a run."""
        return self.problem, self.number, self.mode

    @property
    def failed(self) -> bool:
        return bool(self.error)


def judged(
    problem: Problem,
    result: Result,
    *,
    number: int = 0,
    mode: Mode = Mode.PARALLEL,
    wall_s: float = 0.0,
    fallback: Fallback = Fallback.LAST_NUMBER,
) -> Sample:
    """A result as a sample of the problem."""
    return _sample(problem, number, mode, result, result.trace, result.usage, wall_s, fallback)


def judged_freely(
    problem: Problem,
    bound: BoundSchema,
    completion: Completion,
    *,
    number: int = 0,
    time_s: float = 0.0,
    wall_s: float = 0.0,
    fallback: Fallback = Fallback.LAST_NUMBER,
) -> Sample:
    """What a model wrote freely as a sample: it may be a trace of the schema or not, and every
    token lies on its critical path, as they were written one after another."""
    prompt, ids = completion.prompt_ids, completion.token_ids
    try:
        trace: TokenTrace | None = bound.parse((*prompt, *ids), prompt=len(prompt))
    except TraceError:
        trace = None
    usage = Usage(len(prompt), len(ids), 0, len(ids), len(ids), time_s)
    return _sample(problem, number, Mode.FREE, completion, trace, usage, wall_s, fallback)


def unanswered(problem: Problem, number: int, mode: Mode, error: str) -> Sample:
    """A sample that could not be run."""
    nothing = Completion((), "", (), (), EndReason.FAILED, error)
    usage = Usage(0, 0, 0, 0, 0, 0.0)
    return _sample(problem, number, mode, nothing, None, usage, 0.0, Fallback.NONE)


def _sample(
    problem: Problem,
    number: int,
    mode: Mode,
    written: Result | Completion,
    trace: TokenTrace | None,
    usage: Usage,
    wall_s: float,
    fallback: Fallback,
) -> Sample:
    text, ids, error = written.text, written.token_ids, written.error
    graph, marked = (None, "") if trace is None else (trace.graph, trace.answer)
    whole = mode in MASKED or written.finish is EndReason.COMPLETED
    return Sample(
        problem=problem.id,
        number=number,
        mode=mode,
        answer=problem.answer_in(text, fallback, marked),
        right=not error and problem.is_answered_by(text, fallback, marked),
        legal=whole and graph is not None,
        forks=wide_forks(graph),
        tokens=usage.total,
        sampled_tokens=usage.sampled_tokens,
        critical_path=min(usage.critical_path, usage.total),
        time_s=usage.time_s,
        wall_s=wall_s,
        finish=written.finish,
        trace=hashlib.sha256(repr(tuple(ids)).encode()).hexdigest()[:16] if ids else "",
        text=text,
        error=error,
        branches=0 if graph is None else sum(len(fork.after) for fork in graph.forks),
    )


def seeded(sampling: Sampling, seed: int, problem: Problem, number: int) -> Sampling:
    """The settings with a seed for this sample; it does not depend on the other problems."""
    name = int.from_bytes(hashlib.sha256(problem.id.encode()).digest()[:8], "big")
    drawn = np.random.SeedSequence((seed, name, number)).generate_state(1)[0]
    return replace(sampling, seed=int(drawn))


def wide_forks(graph: ExecutionGraph | None) -> int:
    """Forks into two or more branches (arXiv:2512.07461, eq. 8)."""
    return 0 if graph is None else sum(len(fork.after) >= 2 for fork in graph.forks)
