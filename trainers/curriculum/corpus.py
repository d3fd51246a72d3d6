"""What the model reads before any stage: sequential text that knows the task only in part.

Drills in adding, solutions without tags, traces, and traces with a flaw, as a half-taught writer
makes them; short ones first. So the base model can do some of the arithmetic, and writes the format
wrong half of the time: what the stages are there to mend.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from nprdsl.journal import write_json_lines
from nprdsl.trainers.curriculum.arithmetic import (
    LARGEST,
    TRAINED,
    Flaw,
    Question,
    flat,
    question,
    totals,
)


class Document(StrEnum):
    DRILL = "drill"
    PLAIN = "plain"
    LEGAL = "legal"
    FLAWED = "flawed"


@dataclass(frozen=True, slots=True)
class Documents:
    """Weights of the kinds of documents. The first `short` of all have two parts."""

    drill: float = 0.4
    plain: float = 0.15
    legal: float = 0.2
    flawed: float = 0.25
    short: float = 0.3


DOCUMENTS: Final = Documents()


def write_corpus(file: Path, count: int, seed: int, documents: Documents = DOCUMENTS) -> None:
    """`count` documents as rows of prompt and trace."""
    rows = enumerate(_rows(count, seed, documents))
    write_json_lines(
        file, ({"id": f"{kind}-{n}", "prompt": p, "trace": t} for n, (kind, p, t) in rows)
    )


def _rows(count: int, seed: int, documents: Documents) -> Iterator[tuple[Document, str, str]]:
    rng = random.Random(seed)
    weights = [documents.drill, documents.plain, documents.legal, documents.flawed]
    for number in range(count):
        (kind,) = rng.choices(list(Document), weights=weights)
        if kind is Document.DRILL:
            yield kind, *_drill(rng)
            continue
        asked = flat(rng, 2) if number < documents.short * count else question(rng, TRAINED)
        yield kind, asked.prompt, _solution(rng, asked, kind)


def _solution(rng: random.Random, asked: Question, kind: Document) -> str:
    match kind:
        case Document.PLAIN:
            return asked.plain
        case Document.FLAWED:
            return asked.flawed(rng.choice(list(Flaw)))
    return asked.trace


def _drill(rng: random.Random) -> tuple[str, str]:
    """A sum as it stands in a takeaway: `03717+00645?`."""
    count = rng.randint(2, 8)
    most = rng.choice((9_801, LARGEST // count))
    numbers = [rng.randint(100, most) for _ in range(count)]
    prompt = "+".join(f"{number:05}" for number in numbers) + "?"
    return prompt, f"{totals(numbers)}\\boxed{{{sum(numbers)}}}"
