"""Rewards for reasoning in parallel, read from the execution graph."""

from __future__ import annotations

import math
from typing import Final

from nprdsl.trace.graph import ExecutionGraph
from nprdsl.trainers.rewards.reasons import NOTHING, Reason, Reward

THREADWEAVER_WEIGHT: Final = 0.5
THREADWEAVER_CAP: Final = 0.2
PARALLEL_R1_RIGHT: Final = 0.6
PARALLEL_R1_WRONG: Final = -0.1


def threadweaver(graph: ExecutionGraph, *, correct: bool) -> Reward:
    """0.5 min(1 - longest path / tokens, 0.2) for a correct trace (arXiv:2512.07843, as its public
    code has it)."""
    if not correct or not graph.tokens:
        return NOTHING
    saved = 1 - graph.critical_path / graph.tokens
    score = THREADWEAVER_WEIGHT * min(saved, THREADWEAVER_CAP)
    why = f"{graph.critical_path} of {graph.tokens} tokens lie on the longest path"
    return Reward(score, (Reason("parallelism", score, why),))


def parallel_r1(graph: ExecutionGraph | None, *, correct: bool) -> Reward:
    """0.6 ln(1 + n) for a correct and legal trace with n blocks, -0.1 ln(1 + n) for one with a
    wrong answer (arXiv:2509.07980, as its public code has it). `graph` None: not legal."""
    if graph is None:
        return NOTHING
    blocks = len(graph.forks)
    score = (PARALLEL_R1_RIGHT if correct else PARALLEL_R1_WRONG) * math.log1p(blocks)
    if not score:
        return NOTHING
    why = (
        f"{blocks} {'block' if blocks == 1 else 'blocks'}, answer {'right' if correct else 'wrong'}"
    )
    return Reward(score, (Reason("parallelism", score, why),))
