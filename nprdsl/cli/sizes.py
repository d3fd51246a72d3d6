"""How large the automaton of a schema is over a vocabulary.

Rows are computed where a generation comes to them, so they are counted along the shortest trace.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nprdsl.schema import Schema
from nprdsl.tokens.bitmask import unpack
from nprdsl.tokens.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Size:
    """`minimum`: the fewest tokens of a legal trace; `rows`: different masks on the way through it;
    `bytes`: of those rows."""

    vocabulary: int
    tags: str
    minimum: int
    rows: int
    bytes: int

    def __str__(self) -> str:
        return (
            f"{self.vocabulary} tokens, tags {self.tags}; the shortest trace takes {self.minimum}, "
            f"{self.rows} different masks ({_amount(self.bytes)}) on its way"
        )


def automaton_size(schema: Schema, vocabulary: Vocabulary) -> Size:
    """Bind `schema` to `vocabulary` and walk the shortest trace. Raises SchemaError."""
    bound = schema.bind(vocabulary)
    matcher = bound.matcher()
    seen = {id(matcher.mask())}
    for _ in range(bound.minimum):
        nearer = unpack(matcher.tight(0), vocabulary.size)  # tokens that bring the end nearer
        matcher.advance(int(np.argmax(nearer)))
        seen.add(id(matcher.mask()))
    width = (vocabulary.size + 31) // 32 * 4
    return Size(vocabulary.size, str(bound.mode), bound.minimum, len(seen), len(seen) * width)


def _amount(size: int) -> str:
    return f"{size / 2**20:.1f} MB" if size >= 2**20 else f"{size / 2**10:.1f} kB"
