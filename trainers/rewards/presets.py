"""Whole rewards, put together as the published systems do.

`zero`: NPR-Zero (arXiv:2512.07461, section 2.2), what the format costs, and ±1 for the answer where
the format is right. `papo`: NPR (section 2.4), ±1 for the answer; the engine writes legal traces
only. `threadweaver`, `parallel_r1`: their own, with their terms for parallelism.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from nprdsl.grammar.ir import Grammar
from nprdsl.schema import Schema
from nprdsl.structure.violations import TraceError, Violation
from nprdsl.trace.graph import ExecutionGraph
from nprdsl.trainers.rewards.format import NPR, PARALLEL_R1, of_violations
from nprdsl.trainers.rewards.parallelism import parallel_r1, threadweaver
from nprdsl.trainers.rewards.reasons import Reason, Reward


@dataclass(frozen=True, slots=True)
class Judged:
    """A trace as rewards see it. `graph` is None where it is not legal; its units are tokens, or
    characters where the trace is known as text only. `right`: the answer is `wanted`."""

    grammar: Grammar
    text: str
    wanted: str
    right: bool
    violations: tuple[Violation, ...]
    graph: ExecutionGraph | None


def judge_text(schema: Schema, text: str, wanted: str, *, right: bool) -> Judged:
    """A trace that is known as text."""
    try:
        graph: ExecutionGraph | None = schema.parse(text).graph
        violations: Sequence[Violation] = ()
    except TraceError as error:
        graph, violations = None, error.violations
    return Judged(schema.grammar, text, wanted, right, tuple(violations), graph)


def answer_reward(judged: Judged, *, wrong: float = -1.0) -> Reward:
    """+1 for the right answer, `wrong` else."""
    score = 1.0 if judged.right else wrong
    why = f"the answer is {'' if judged.right else 'not '}`{judged.wanted}`"
    return Reward(score, (Reason("answer", score, why),))


def zero(judged: Judged) -> Reward:
    """(format = 0 ? ±1 : 0) + format."""
    form = of_violations(judged.grammar, judged.text, judged.violations, NPR)
    return form if judged.violations else answer_reward(judged)


def papo(judged: Judged) -> Reward:
    """±1."""
    return answer_reward(judged)


def whole_threadweaver(judged: Judged) -> Reward:
    """1 or 0 for the answer, and the parallelism of a right one; nothing for an illegal trace."""
    if judged.graph is None:
        return Reward(0.0, (Reason("illegal", 0.0, judged.violations[0].message),))
    return answer_reward(judged, wrong=0.0) + threadweaver(judged.graph, correct=judged.right)


def whole_parallel_r1(judged: Judged) -> Reward:
    """±1 for the answer, ±0.3 for the format, and the blocks."""
    form = of_violations(judged.grammar, judged.text, judged.violations, PARALLEL_R1)
    if not judged.violations:
        form = Reward(0.3, (Reason("format", 0.3, "the trace is legal"),))
    return answer_reward(judged) + form + parallel_r1(judged.graph, correct=judged.right)


PRESETS: Final[Mapping[str, Callable[[Judged], Reward]]] = MappingProxyType(
    {
        "zero": zero,
        "papo": papo,
        "threadweaver": whole_threadweaver,
        "parallel_r1": whole_parallel_r1,
    }
)
