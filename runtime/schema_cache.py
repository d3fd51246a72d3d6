"""Keeps schemas bound to one vocabulary for later requests, within bounds on memory.

What a model writes into labels, and into texts that branches repeat, becomes states of the schema's
automaton, so on a server that runs for long it grows without end. A binding that has grown too
large is therefore bound anew: the next trace computes its masks again, and requests that run keep
the old binding until they end.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.schema import Schema
from nprdsl.tokens.vocabulary import Vocabulary

MOST_SCHEMAS: Final = 64
MOST_STATES: Final = 200_000  # of all schemas together: about as many kilobytes


class Bindings:
    """At most `schemas` bindings, and about `states` states of their automata."""

    def __init__(
        self, vocabulary: Vocabulary, *, schemas: int = MOST_SCHEMAS, states: int = MOST_STATES
    ) -> None:
        self.vocabulary = vocabulary
        self._schemas = schemas
        self._states = states
        self._bound: OrderedDict[str, BoundSchema] = OrderedDict()  # least recently used first

    def get(self, schema: Schema) -> BoundSchema:
        """The schema over the vocabulary. Raises SchemaError where it cannot be bound."""
        key = schema.grammar.digest
        bound = self._bound.pop(key, None)
        if bound is None or bound.kept > self._states:
            bound = schema.bind(self.vocabulary)
        self._bound[key] = bound
        while len(self._bound) > 1 and self._overfull:
            self._bound.popitem(last=False)
        return bound

    @property
    def kept(self) -> int:
        """How many states are kept, of all schemas."""
        return sum(bound.kept for bound in self._bound.values())

    @property
    def _overfull(self) -> bool:
        return len(self._bound) > self._schemas or self.kept > self._states
