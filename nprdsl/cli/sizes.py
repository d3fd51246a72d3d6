"""How large the automaton of a schema is over a vocabulary.

Rows are computed where a generation comes to them, so they are counted along an example.
Non-goals: time (see benchmarks/automaton.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from nprdsl.cli.vocabularies import encode
from nprdsl.matcher import IllegalTokenError
from nprdsl.schema import Schema
from nprdsl.vocabulary import UnspellableError, Vocabulary


@dataclass(frozen=True, slots=True)
class Size:
    """`minimum`: the fewest tokens of a legal trace; `rows`: different masks along the schema's own
    example of `steps` tokens; `bytes`: of those rows."""

    vocabulary: int
    tags: str
    minimum: int
    steps: int
    rows: int
    bytes: int

    def __str__(self) -> str:
        return (
            f"{self.vocabulary} tokens, tags {self.tags}; shortest trace {self.minimum} tokens; "
            f"{self.rows} different masks ({_amount(self.bytes)}) along the {self.steps} tokens of "
            "the example"
        )


def automaton_size(schema: Schema, vocabulary: Vocabulary) -> Size:
    """Bind `schema` to `vocabulary` and walk its example. Raises SchemaError."""
    bound = schema.bind(vocabulary)
    matcher = bound.matcher()
    matcher.mask()
    steps = 0
    try:
        for token in encode(vocabulary, schema.skeleton(), schema.tag_pattern):
            matcher.advance(token)
            matcher.mask()
            steps += 1
    except (IllegalTokenError, UnspellableError):
        pass  # the tokenizer merges what the automaton keeps apart: the walk ends here
    rows = bound.automaton().rows.count
    width = (vocabulary.size + 31) // 32 * 4
    return Size(vocabulary.size, str(bound.mode), bound.minimum, steps, rows, rows * width)


def _amount(size: int) -> str:
    return f"{size / 2**20:.1f} MB" if size >= 2**20 else f"{size / 2**10:.1f} kB"
