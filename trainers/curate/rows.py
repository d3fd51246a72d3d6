"""Rows of files: chains that come in, traces that go out, and what was rejected, with the reason.

A trace is a row as `nprdsl train sft` reads it: `prompt`, `trace`, `schema`, `id`, and whatever
else the chain's row had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from nprdsl.trainers.curate.document import Kind


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


@dataclass(frozen=True, slots=True)
class Curated:
    """A legal trace. `kinds` and `branches` are those of its parallel blocks, in order; `depth` is
    how deep they lie in each other, `degree` the parallelism in characters, `distance` how far its
    sentences are from the chain's."""

    chain: Chain
    schema: str
    trace: str
    kinds: tuple[Kind, ...]
    branches: tuple[int, ...]
    depth: int
    degree: float
    distance: float

    def row(self) -> dict[str, Any]:
        figures = {
            "blocks": [
                {"kind": str(kind), "branches": count}
                for kind, count in zip(self.kinds, self.branches, strict=True)
            ],
            "depth": self.depth,
            "degree": round(self.degree, 4),
            "distance": round(self.distance, 4),
        }
        own = {
            "id": self.chain.id,
            "prompt": self.chain.prompt,
            "trace": self.trace,
            "schema": self.schema,
            "curated": figures,
        }
        return own | {k: v for k, v in self.chain.extra.items() if k not in own}


@dataclass(frozen=True, slots=True)
class Rejected:
    """A chain that became no trace. `step` is where, empty before the first; `faults` say why."""

    chain: Chain
    reason: RejectReason
    step: str
    faults: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        own = {
            "id": self.chain.id,
            "prompt": self.chain.prompt,
            "thought": self.chain.thought,
            "rejected": {
                "reason": str(self.reason),
                "step": self.step,
                "faults": list(self.faults),
            },
        }
        return own | {k: v for k, v in self.chain.extra.items() if k not in own}
