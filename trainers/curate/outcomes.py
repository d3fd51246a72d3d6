"""Chains of thought that come in, what becomes of each, and the figures of a whole run.

A chain becomes a `Curated` trace or is `Rejected` with the reason. The row of a trace is what
`nprdsl train sft` reads: `prompt`, `trace`, `schema`, `id`, and whatever else the chain's row had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from nprdsl.trainers.curate.document import BlockKind


class RejectReason(StrEnum):
    TAG_IN_TEXT = "tag-in-text"  # the chain holds a tag of the schema
    NOTHING_PARALLEL = "nothing-parallel"  # no two parts are independent
    STEP_FAILED = "step-failed"  # no answer of a step held
    ENDPOINT_FAILED = "endpoint-failed"  # a request failed for good; a later run tries again


@dataclass(frozen=True, slots=True)
class Chain:
    """A problem and its chain of thought; `extra` goes into the trace's row as it is."""

    id: str
    prompt: str
    thought: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, text in (("prompt", self.prompt), ("chain of thought", self.thought)):
            if not text.strip():
                raise ValueError(f"the {name} of `{self.id}` is empty")

    def row(self, **own: Any) -> dict[str, Any]:
        """A row about this chain; its own fields win over `extra`."""
        own = {"id": self.id, "prompt": self.prompt, **own}
        return own | {name: value for name, value in self.extra.items() if name not in own}


@dataclass(frozen=True, slots=True)
class Curated:
    """A legal trace. `kinds` and `branches` are those of its parallel blocks, in order; `depth` is
    how deep they lie in each other, `degree` the parallelism in characters, `distance` how far its
    sentences are from the chain's."""

    chain: Chain
    schema: str
    trace: str
    kinds: tuple[BlockKind, ...]
    branches: tuple[int, ...]
    depth: int
    degree: float
    distance: float

    def row(self) -> dict[str, Any]:
        blocks = zip(self.kinds, self.branches, strict=True)
        figures = {
            "blocks": [{"kind": str(kind), "branches": count} for kind, count in blocks],
            "depth": self.depth,
            "degree": round(self.degree, 4),
            "distance": round(self.distance, 4),
        }
        return self.chain.row(trace=self.trace, schema=self.schema, curated=figures)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A chain that became no trace. `step` is where, empty before the first; `faults` say why."""

    chain: Chain
    reason: RejectReason
    step: str
    faults: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        why = {"reason": str(self.reason), "step": self.step, "faults": list(self.faults)}
        return self.chain.row(thought=self.chain.thought, rejected=why)


Outcome = Curated | Rejected


@dataclass(slots=True)
class Summary:
    """Adds outcomes up."""

    curated: int = 0
    rejected: Counter[tuple[RejectReason, str]] = field(default_factory=Counter)
    kinds: Counter[BlockKind] = field(default_factory=Counter)
    branches: int = 0
    depths: Counter[int] = field(default_factory=Counter)
    degrees: float = 0.0
    distances: float = 0.0

    def add(self, outcome: Outcome) -> None:
        if isinstance(outcome, Rejected):
            self.rejected[outcome.reason, outcome.step] += 1
            return
        self.curated += 1
        self.kinds.update(outcome.kinds)
        self.branches += sum(outcome.branches)
        self.depths[outcome.depth] += 1
        self.degrees += outcome.degree
        self.distances += outcome.distance

    @property
    def unanswered(self) -> int:
        """Chains that the endpoint failed; a later run tries them again."""
        failed = RejectReason.ENDPOINT_FAILED
        return sum(count for (reason, _), count in self.rejected.items() if reason is failed)

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values; means are per trace."""
        blocks, rejected = sum(self.kinds.values()), sum(self.rejected.values())
        return {
            "chains": self.curated + rejected,
            "curated": self.curated,
            "rejected": rejected,
            "reasons": [
                {"reason": str(reason), "step": step, "chains": count}
                for (reason, step), count in self.rejected.most_common()
            ],
            "blocks": blocks,
            "blocks_per_trace": self._mean(blocks),
            "branches_per_trace": self._mean(self.branches),
            "kinds": {str(kind): count for kind, count in sorted(self.kinds.items())},
            "depths": {str(depth): count for depth, count in sorted(self.depths.items())},
            "degree": self._mean(self.degrees),
            "distance": self._mean(self.distances),
        }

    def _mean(self, total: float) -> float:
        return round(total / self.curated, 4) if self.curated else 0.0
