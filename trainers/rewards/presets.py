"""Whole rewards, put together as the published systems do.

`zero`: NPR-Zero (arXiv:2512.07461, section 2.2), what the format costs, and ±1 for the answer where
the format is right. `papo`: NPR (section 2.4), ±1 for the answer; the engine writes legal traces
only. `threadweaver` (arXiv:2512.07843) and `parallel_r1` (arXiv:2509.07980): answer, format and a
term for parallelism, as their public code has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from nprdsl.grammar.ir import Grammar
from nprdsl.structure.violations import Violation
from nprdsl.trace.graph import ExecutionGraph
from nprdsl.trainers.rewards import NO_REWARD, Reason, Reward
from nprdsl.trainers.rewards.format import NPR, PARALLEL_R1, format_reward

THREADWEAVER_WEIGHT: Final = 0.5
THREADWEAVER_CAP: Final = 0.2
PARALLEL_R1_RIGHT: Final = 0.6
PARALLEL_R1_WRONG: Final = -0.1


@dataclass(frozen=True, slots=True)
class GradedTrace:
    """A trace as rewards see it. `graph` is None where it is not legal; its units are tokens, or
    characters where the trace is known as text only. `right`: the answer is `wanted`."""

    grammar: Grammar
    text: str
    wanted: str
    right: bool
    violations: tuple[Violation, ...]
    graph: ExecutionGraph | None


def answer_reward(trace: GradedTrace, *, wrong: float = -1.0) -> Reward:
    """+1 for the right answer, `wrong` else."""
    score = 1.0 if trace.right else wrong
    why = f"the answer is {'' if trace.right else 'not '}`{trace.wanted}`"
    return Reward(score, (Reason("answer", score, why),))


def zero(trace: GradedTrace) -> Reward:
    """(format = 0 ? ±1 : 0) + format."""
    if not trace.violations:
        return answer_reward(trace)
    return format_reward(trace.grammar, trace.text, trace.violations, NPR)


def threadweaver(trace: GradedTrace) -> Reward:
    """1 or 0 for the answer, and 0.5 min(1 - longest path / tokens, 0.2) where it is right; nothing
    for an illegal trace."""
    graph = trace.graph
    if graph is None:
        fault = trace.violations[0].message if trace.violations else "it does not come to its end"
        return Reward(0.0, (Reason("illegal", 0.0, fault),))
    answer = answer_reward(trace, wrong=0.0)
    if not trace.right or not graph.tokens:
        return answer
    saved = 1 - graph.critical_path / graph.tokens
    score = THREADWEAVER_WEIGHT * min(saved, THREADWEAVER_CAP)
    why = f"{graph.critical_path} of {graph.tokens} tokens lie on the longest path"
    return answer + Reward(score, (Reason("parallelism", score, why),))


def parallel_r1(trace: GradedTrace) -> Reward:
    """±1 for the answer, ±0.3 for the format, and for n blocks of a legal trace 0.6 ln(1 + n), or
    -0.1 ln(1 + n) where the answer is wrong."""
    form = format_reward(trace.grammar, trace.text, trace.violations, PARALLEL_R1)
    if not trace.violations:
        form = Reward(0.3, (Reason("format", 0.3, "the trace is legal"),))
    return answer_reward(trace) + form + _blocks(trace)


def _blocks(trace: GradedTrace) -> Reward:
    count = 0 if trace.graph is None else len(trace.graph.forks)
    if not count:
        return NO_REWARD
    score = (PARALLEL_R1_RIGHT if trace.right else PARALLEL_R1_WRONG) * math.log1p(count)
    blocks = f"{count} {'block' if count == 1 else 'blocks'}"
    why = f"{blocks}, answer {'right' if trace.right else 'wrong'}"
    return Reward(score, (Reason("parallelism", score, why),))


PRESETS: Final[Mapping[str, Callable[[GradedTrace], Reward]]] = MappingProxyType(
    {"zero": zero, "papo": answer_reward, "threadweaver": threadweaver, "parallel_r1": parallel_r1}
)
