"""A shortest legal trace of a grammar, written by the matcher over bytes.

A grammar goes in, a text comes out. The skeleton of a schema is written freely, with words that say
what stands where; where such words spell a tag, alone or with what stands beside them, this is the
example instead.
"""

from __future__ import annotations

import numpy as np

from nprdsl.grammar import ir
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.masks.matcher import Matcher
from nprdsl.structure.stack import UNBOUNDED
from nprdsl.tokens.bitmask import unpack
from nprdsl.tokens.vocabulary import Vocabulary
from nprdsl.trace.parser import Parser

_PLAIN = b"xabcdefghijklmnopqrstuvwyz0123456789"


def shortest_trace(grammar: ir.Grammar) -> str:
    """A legal text with the fewest bytes, of letters where any will do. Raises SchemaError for a
    grammar of which no trace can be written."""
    vocabulary = Vocabulary({byte: bytes([byte]) for byte in range(256)})
    bound = BoundSchema(grammar, vocabulary, lambda bounds: Parser(grammar, bounds), UNBOUNDED)
    matcher, written = bound.matcher(), bytearray()
    while not (matcher.finished or (matcher.may_end and not matcher.cost)):
        for byte in matcher.forced() or [_plainest(matcher)]:
            matcher.advance(byte)
            written.append(byte)
    return written.decode()


def _plainest(matcher: Matcher) -> int:
    """A byte that brings the end nearer."""
    allowed = unpack(matcher.tight(0), 256)
    return next((byte for byte in _PLAIN if allowed[byte]), int(np.argmax(allowed)))
