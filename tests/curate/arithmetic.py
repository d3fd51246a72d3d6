"""Sequential solutions of sums of products, sums and differences, and a model that curates them.

Non-goals: solutions that are hard to read: every part is a sentence.
"""

from __future__ import annotations

import operator
import random
from dataclasses import dataclass
from typing import Any

from tests.curate.oracle import Annotated, Oracle

OPERATIONS = {"*": operator.mul, "+": operator.add, "-": operator.sub}


@dataclass(frozen=True)
class Solution:
    """A problem, its parts with their values, and the sum of these."""

    parts: tuple[tuple[str, int], ...]

    @property
    def total(self) -> int:
        return sum(value for _, value in self.parts)

    @property
    def prompt(self) -> str:
        return f"{' + '.join(part for part, _ in self.parts)}?"

    @property
    def row(self) -> dict[str, Any]:
        """As `nprdsl curate` reads it."""
        worked = "".join(f"{part} = {value}.\n" for part, value in self.parts)
        added = "+".join(str(value) for _, value in self.parts)
        thought = f"{worked}{added} = {self.total}, so the answer is \\boxed{{{self.total}}}."
        return {"id": self.prompt, "prompt": self.prompt, "solution": thought}

    @property
    def annotated(self) -> Annotated:
        steps = [
            {"title": part, "last": number, "needs": [], "result": f"{part} = {value}"}
            for number, (part, value) in enumerate(self.parts, 1)
        ]
        needs = [str(number) for number in range(1, len(self.parts) + 1)]
        last = {"title": "Add", "last": len(self.parts) + 1, "needs": needs, "result": ""}
        return Annotated(self.prompt, str(self.total), [*steps, last], {})


def solutions(count: int, seed: int = 0) -> list[Solution]:
    """Different problems of two to four parts."""
    rng = random.Random(seed)
    found: dict[str, Solution] = {}
    while len(found) < count:
        made = Solution(tuple(_part(rng) for _ in range(rng.randint(2, 4))))
        found.setdefault(made.prompt, made)
    return list(found.values())


def _part(rng: random.Random) -> tuple[str, int]:
    sign = rng.choice("*+-")
    left, right = rng.randint(50, 99), rng.randint(2, 9 if sign == "*" else 49)
    return f"{left}{sign}{right}", OPERATIONS[sign](left, right)


def arithmetic_oracle(made: list[Solution]) -> Oracle:
    return Oracle(solution.annotated for solution in made)
