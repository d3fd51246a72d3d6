"""What a run came to: traces, their parallel blocks, and what was rejected for which reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from nprdsl.trainers.curate.document import Kind
from nprdsl.trainers.curate.rows import Curated, Rejected, RejectReason


@dataclass(slots=True)
class Summary:
    """Adds outcomes up."""

    curated: int = 0
    rejected: Counter[tuple[RejectReason, str]] = field(default_factory=Counter)
    kinds: Counter[Kind] = field(default_factory=Counter)
    branches: int = 0
    depths: Counter[int] = field(default_factory=Counter)
    degrees: float = 0.0
    distances: float = 0.0

    def add(self, outcome: Curated | Rejected) -> None:
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
        return sum(n for (reason, _), n in self.rejected.items() if reason is _UNANSWERED)

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


_UNANSWERED = RejectReason.ENDPOINT_FAILED
