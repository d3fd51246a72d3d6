"""What a curation costs: calls and tokens of every step, as the endpoint counts them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass


@dataclass(slots=True)
class StepCost:
    """The calls of one step. Tokens are those of `calls` alone; those of `cached` calls were paid
    before. `uncounted` calls came back without a count of tokens."""

    calls: int = 0
    cached: int = 0
    again: int = 0  # calls with a reason why the reply before was refused
    retries: int = 0  # requests that were sent again by the transport
    uncounted: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Account:
    """Adds up; belongs to one run."""

    def __init__(self) -> None:
        self._steps: defaultdict[str, StepCost] = defaultdict(StepCost)

    def of(self, step: str) -> StepCost:
        return self._steps[step]

    @property
    def total(self) -> StepCost:
        total = StepCost()
        for cost in self._steps.values():
            for name, value in asdict(cost).items():
                setattr(total, name, getattr(total, name) + value)
        return total

    def to_dict(self) -> dict[str, dict[str, int]]:
        """The costs of every step that was asked, and their sum, as JSON values."""
        return {
            **{name: asdict(cost) for name, cost in self._steps.items()},
            "total": asdict(self.total),
        }
