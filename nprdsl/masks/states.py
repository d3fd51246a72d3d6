"""The states of the token automaton, and the tables that do not depend on limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nprdsl.grammar.ir import Grammar
from nprdsl.masks.completion_cost import Costs
from nprdsl.masks.fields import FieldMachine, FieldState, tag_scan
from nprdsl.masks.mask_cache import CrossingKey, MaskCache
from nprdsl.masks.mask_rows import MaskTable
from nprdsl.masks.parts import FieldRest
from nprdsl.structure.stack import Symbol
from nprdsl.structure.tag_machine import TagState
from nprdsl.tokens.bitmask import Mask
from nprdsl.tokens.spelling import Spelling
from nprdsl.tokens.vocabulary import Vocabulary
from nprdsl.trace.lexemes import TagMode


class GlueMode(StrEnum):
    """How the automaton takes glue."""

    EXACT = "exact"  # as the runtime emits it
    ANY = "any"  # any white space, or none, as the checker takes it


@dataclass(frozen=True, slots=True)
class FieldTokens:
    """What a matcher holds of a field whose values a branch repeats: the bytes with which the token
    that completed the last tag went on, and the tokens since."""

    head: bytes = b""
    tokens: tuple[int, ...] = ()


NO_TOKENS: Final = FieldTokens()


class FieldStart:
    """What may stand right behind a tag: the field state, the tags that may come next, and what
    finishing costs behind each of them (worked out when a budget first asks)."""

    __slots__ = ("_closings", "_costs", "capturing", "field", "structure", "tags")

    def __init__(
        self,
        structure: TagState,
        field: FieldState,
        tags: frozenset[str],
        costs: Callable[[], Costs],
    ) -> None:
        self.structure = structure
        self.field = field
        self.tags = tags
        self.capturing = any(arc.captures for arc in structure.arcs.values())
        self._costs = costs
        self._closings: dict[str, int] | None = None

    @property
    def closings(self) -> dict[str, int]:
        """tag -> the fewest tokens that finish everything behind it."""
        if self._closings is None:
            arcs, costs = self.structure.arcs, self._costs()
            self._closings = {
                tag: costs.stack(arcs[tag].cell, arcs[tag].frame) for tag in self.tags
            }
        return self._closings


class TokenState:
    """One place in a trace. `mask`, `cost`, `forced` and `chooses` are None until asked for; `next`
    holds moves that depend on nothing but this state."""

    __slots__ = (
        "capturing",
        "chooses",
        "cost",
        "counted",
        "field",
        "forced",
        "mask",
        "next",
        "prose",
        "start",
        "tight",
    )

    def __init__(self, start: FieldStart, field: FieldState) -> None:
        self.start = start
        self.field = field
        self.capturing = start.capturing  # the field holds values that a branch repeats
        self.counted = start.capturing and field.is_counted
        self.next: dict[int, TokenState] = {}
        self.prose: TokenState | None = None  # where clean prose leads, see `MaskTable.clean`
        self.mask: Mask | None = None
        self.cost: int | None = None
        self.forced: tuple[int, ...] | None = None
        self.chooses: bool | None = None
        self.tight: dict[int, Mask] = {}

    @property
    def structure(self) -> TagState:
        return self.start.structure

    @property
    def closings(self) -> dict[str, int]:
        return self.start.closings


class SharedTables:
    """What does not depend on bounds: field states and rows, shared by all automata of a bound
    schema."""

    def __init__(self, grammar: Grammar, vocabulary: Vocabulary, glue: GlueMode) -> None:
        self.mode = tag_mode(grammar, vocabulary)
        self.glue = glue
        self.vocabulary = vocabulary
        self.spelling = Spelling(vocabulary)
        self.fields = FieldMachine(tag_scan(grammar.tags), self.mode, self.spelling)
        self.table = MaskTable(self.fields, vocabulary)
        self.crossings: dict[CrossingKey, Mask] = {}
        self.known_fields: dict[tuple[tuple[Symbol, ...], str], FieldRest] = {}
        self.store: MaskCache | None = None

    @property
    def kept(self) -> int:
        """How many field states are kept."""
        return len(self.fields.known)

    def crossed(self, key: CrossingKey) -> Mask | None:
        """The row of a state whose tokens may run past a tag, if it is known or on disk."""
        row = self.crossings.get(key)
        if row is None and self.store is not None:
            row = self.store.find_crossed(key)
            if row is not None:
                self.crossings[key] = row
        return row


def tag_mode(grammar: Grammar, vocabulary: Vocabulary) -> TagMode:
    """Special-token tags if the vocabulary has every tag of the schema as a special token."""
    special = all(tag in vocabulary.special for tag in grammar.tags)
    return TagMode.SPECIAL if special and grammar.tags else TagMode.TEXT
