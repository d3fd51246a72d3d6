"""Which schema a text is a trace of, where nobody says it.

In goes a text, and schemas that are likelier than others; out comes the first of these that reads
it without a fault. Else, of all that do, or of all where none does, it is the one that most tags of
the text are of, so that its faults tell something.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.schema import Schema, load, shipped

_FIRST: Final = "npr"  # of the schemas that ship


def recognised(text: str, likelier: Sequence[Schema] = ()) -> Schema:
    """To a schema that needs no block any text without tags is a trace, so it must have some, and a
    text without any is one of the first schema."""
    best: tuple[tuple[bool, int], Schema] | None = None
    for schema in _candidates(likelier):
        tags = len(schema.tag_pattern.findall(text))
        fits = (tags > 0 and not schema.check(text), tags)
        if best is None or fits > best[0]:
            best = (fits, schema)
        if fits[0] and schema in likelier:
            break
    assert best is not None, "there are schemas that ship"
    return best[1]


def _candidates(likelier: Sequence[Schema]) -> Iterator[Schema]:
    yield from likelier
    for name in sorted(shipped(), key=lambda name: name != _FIRST):
        with suppress(SchemaError):  # it needs types, which are not known here
            yield load(name)
