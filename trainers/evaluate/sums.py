"""The arithmetic task of the bundled model: sums of two to four parts, such as `37*4 + 85-19?`.

A part is `ab+cd`, `ab-cd` (never below 0) or `ab*c` with two-digit a, b and c from 2 to 9.
Non-goals: traces of the task (see the training of the model).
"""

from __future__ import annotations

from random import Random
from typing import Final

from nprdsl.trainers.data.problems import Problem

LEAST_PARTS: Final = 2
MOST_PARTS: Final = 4


def sums(count: int = 500, seed: int = 0) -> tuple[Problem, ...]:
    """`count` different sums; equal seeds give equal problems, and fewer are the first of more."""
    random = Random(f"sums {seed}")
    found: dict[str, Problem] = {}
    while len(found) < count:
        parts = [_part(random) for _ in range(random.randint(LEAST_PARTS, MOST_PARTS))]
        prompt = " + ".join(text for text, _ in parts) + "?"
        found.setdefault(prompt, Problem(prompt, prompt, str(sum(value for _, value in parts))))
    return tuple(found.values())


def _part(random: Random) -> tuple[str, int]:
    """The text of a part and its value."""
    first, second = random.randint(10, 99), random.randint(10, 99)
    match random.choice("+-*"):
        case "+":
            return f"{first}+{second}", first + second
        case "-":
            high, low = max(first, second), min(first, second)
            return f"{high}-{low}", high - low
        case _:
            factor = random.randint(2, 9)
            return f"{first}*{factor}", first * factor
