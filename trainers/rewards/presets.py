"""Whole rewards, put together as the published systems do.

`zero`: NPR-Zero (arXiv:2512.07461, section 2.2), what the format costs, and ±1 for the answer where
the format is right; `zero_boxed` takes 1 for an answer that is not boxed, too. `papo`: NPR (section
2.4), ±1 for the answer; the engine writes legal traces only. `threadweaver` (arXiv:2512.07843) and
`parallel_r1` (arXiv:2509.07980): answer, format and a term for parallelism, as their public code
has them but for what the functions say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from nprdsl.grammar.ir import Grammar
from nprdsl.schema import Schema
from nprdsl.structure.violations import TraceError, Violation
from nprdsl.trace.graph import ExecutionGraph
from nprdsl.trainers.rewards import NO_REWARD, Reason, Reward
from nprdsl.trainers.rewards.branches import copied_branches
from nprdsl.trainers.rewards.format import NPR, NPR_BOXED, PARALLEL_R1, format_reward
from nprdsl.trainers.rewards.roles import wrapper_of

THREADWEAVER_WEIGHT: Final = 0.5
THREADWEAVER_CAP: Final = 0.2
PARALLEL_R1_RIGHT: Final = 0.6
PARALLEL_R1_WRONG: Final = -0.1


@dataclass(frozen=True, slots=True)
class GradedTrace:
    """A trace as rewards see it. `graph` is None where it is not legal; its units are tokens, or
    characters where the trace is known as text only. `right`: the answer is `wanted`. `wrapper`:
    units of what stands around the text of a branch."""

    grammar: Grammar
    text: str
    wanted: str
    right: bool
    violations: tuple[Violation, ...]
    graph: ExecutionGraph | None
    wrapper: int = 2


def answer_reward(trace: GradedTrace, *, wrong: float = -1.0) -> Reward:
    """+1 for the right answer, `wrong` else."""
    score = 1.0 if trace.right else wrong
    why = f"the answer is {'' if trace.right else 'not '}`{trace.wanted}`"
    return Reward(score, (Reason("answer", score, why),))


def zero(trace: GradedTrace) -> Reward:
    """(format = 0 ? ±1 : 0) + format."""
    form = format_reward(trace.grammar, trace.text, trace.violations, NPR)
    return answer_reward(trace) if not form.score else form


def zero_boxed(trace: GradedTrace) -> Reward:
    """As `zero`, with the penalty of the public checker for a missing box."""
    form = format_reward(trace.grammar, trace.text, trace.violations, NPR_BOXED)
    return answer_reward(trace) if not form.score else form


def threadweaver(trace: GradedTrace) -> Reward:
    """1 or 0 for the answer, and 0.5 min(1 - longest path / tokens, 0.2) where it is right; nothing
    for an illegal trace. The tags around every branch, and the glue before them, lie on the longest
    path, as in the public code. It differs in two things: branches that repeat another, or hold
    neither letters nor digits, count as not written, and illegal traces earn nothing; the public
    code pays for both."""
    graph = trace.graph
    if graph is None:
        fault = trace.violations[0].message if trace.violations else "it does not come to its end"
        return Reward(0.0, (Reason("illegal", 0.0, fault),))
    answer = answer_reward(trace, wrong=0.0)
    if not trace.right or not graph.tokens:
        return answer
    copied = _copied_length(trace, graph)
    tokens = max(graph.tokens - copied, graph.critical_path)
    path = min(graph.critical_path + _wrappers(trace, graph), tokens)
    score = THREADWEAVER_WEIGHT * min(1 - path / tokens, THREADWEAVER_CAP)
    why = f"{path} of {tokens} tokens lie on the longest path"
    if copied:
        why += f"; {copied} are in branches that repeat another"
    return answer + Reward(score, (Reason("parallelism", score, why),))


def parallel_r1(trace: GradedTrace) -> Reward:
    """±1 for the answer, -0.3 for a broken format, and for n blocks of a legal trace 0.3 and
    0.6 ln(1 + n), or -0.1 ln(1 + n) where the answer is wrong. Blocks with two branches or more
    count that are no copies of each other; the public code counts all, and pays 0.3 without any."""
    form = format_reward(trace.grammar, trace.text, trace.violations, PARALLEL_R1)
    return answer_reward(trace) + form + _blocks(trace)


def _blocks(trace: GradedTrace) -> Reward:
    copies = _copies(trace)
    count = sum(branches.count(False) >= 2 for branches in copies)
    if not count:
        return NO_REWARD
    form = Reward(0.3, (Reason("format", 0.3, "its blocks are legal"),))
    score = (PARALLEL_R1_RIGHT if trace.right else PARALLEL_R1_WRONG) * math.log1p(count)
    blocks = f"{count} {'block' if count == 1 else 'blocks'}"
    why = f"{blocks}, answer {'right' if trace.right else 'wrong'}"
    return form + Reward(score, (Reason("parallelism", score, why),))


def _copies(trace: GradedTrace) -> list[list[bool]]:
    """For each fork of the graph, whether each branch repeats another."""
    if trace.graph is None:
        return []
    found = copied_branches(trace.grammar, trace.text)
    widths = [len(fork.after) for fork in trace.graph.forks]
    if [len(branches) for branches in found] != widths:  # the ids are another text's
        return [[False] * width for width in widths]
    return found


def _wrappers(trace: GradedTrace, graph: ExecutionGraph) -> int:
    """The tags around those branches of each fork that are not on the longest path."""
    branches = sum(max(copies.count(False) - 1, 0) for copies in _copies(trace))
    return branches * trace.wrapper


def _copied_length(trace: GradedTrace, graph: ExecutionGraph) -> int:
    """How long the branches are that repeat another, in the units of the graph."""
    paths = [
        graph.segments[first].path
        for fork, copies in zip(graph.forks, _copies(trace), strict=True)
        for first, copy in zip(fork.after, copies, strict=True)
        if copy
    ]
    return sum(
        len(segment)
        for segment in graph.segments
        if any(segment.path[: len(path)] == path for path in paths)
    )


def judge_text(schema: Schema, text: str, wanted: str, *, right: bool) -> GradedTrace:
    """A text as rewards see it; lengths count characters."""
    grammar = schema.grammar
    try:
        graph = schema.parse(text).graph
        return GradedTrace(grammar, text, wanted, right, (), graph, wrapper_of(grammar).characters)
    except TraceError as error:
        return GradedTrace(grammar, text, wanted, right, tuple(error.violations), None)


PRESETS: Final[Mapping[str, Callable[[GradedTrace], Reward]]] = MappingProxyType(
    {
        "zero": zero,
        "zero_boxed": zero_boxed,
        "papo": answer_reward,
        "threadweaver": threadweaver,
        "parallel_r1": parallel_r1,
    }
)
