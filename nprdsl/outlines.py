"""Schemas in Outlines, the library of structured generation.

`schema.logits_processor(tokenizer)` is a processor of Outlines as it stands:
`outlines.Generator(model, processor=…)` writes legal traces with it, labels bound and budgets kept.
What else Outlines needs is here: `from_transformers` wraps a model so that its texts keep the
schema's tags, which Outlines drops where they are special tokens, and `output_type` states the
schema as a grammar, for places that take an output type only.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

try:
    from outlines.models.transformers import Transformers, TransformerTokenizer
    from outlines.types import CFG
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "nprdsl.outlines needs outlines 1.3; install it with: pip install 'outlines>=1.3,<2'",
        name=error.name,
    ) from error

from nprdsl.grammar.diagnostics import SchemaWarning
from nprdsl.schema import Schema
from nprdsl.tokens.vocabulary import Vocabulary


class OutlinesWarning(SchemaWarning):
    """What an output type of Outlines cannot hold of a schema."""


class TagTokenizer(TransformerTokenizer):  # type: ignore[misc]
    """A tokenizer of Outlines whose texts keep the tags of a schema; end and padding are dropped,
    and all other special tokens."""

    def __init__(self, tokenizer: Any, schema: Schema) -> None:
        super().__init__(tokenizer)
        self._vocabulary = Vocabulary.from_tokenizer(tokenizer)
        tags = self._vocabulary.tag_tokens(schema.tags).values()
        self._dropped = set(self._vocabulary.special_text) - set(tags)

    def decode(self, token_ids: Iterable[Any]) -> list[str]:
        """A text for each row of ids, a tensor."""
        rows = [row.tolist() for row in token_ids]
        kept = [[token for token in row if token not in self._dropped] for row in rows]
        return [self._vocabulary.text(row) for row in kept]


def from_transformers(model: Any, tokenizer: Any, schema: Schema) -> Transformers:
    """`outlines.from_transformers(model, tokenizer)`, whose texts keep the tags of the schema."""
    wrapped = Transformers(model, tokenizer)
    wrapped.tokenizer = TagTokenizer(tokenizer, schema)
    return wrapped


def output_type(schema: Schema, tokenizer: Any) -> CFG:
    """The schema as an output type: a grammar for the backend llguidance, which Outlines takes for
    grammars by itself.

    `tokenizer` is the model's fast tokenizer, whose special tokens the tags may be. Warns
    (`OutlinesWarning`) of all that the grammar cannot hold; it knows no budgets either.
    """
    tags = Vocabulary.from_tokenizer(tokenizer).tag_tokens(schema.tags)
    export = schema.export("llguidance", special=tags)
    for lost in export.lost:
        warnings.warn(f"in Outlines, {lost}", OutlinesWarning, stacklevel=2)
    return CFG(export.text)
