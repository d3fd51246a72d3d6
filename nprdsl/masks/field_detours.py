"""What whole fields cost beyond their parts, where the shortest texts of neighbours spell a tag.

The costs of a grammar (`nprdsl.masks.completion_cost`) are sums over its nodes. That is true of a
field unless its parts' shortest texts spell a tag together, so that a longer way has to be taken:
the difference is the *detour* of the field, and is counted with its last terminal. A longer value
that a branch repeats is longer there as well. Fields that the vocabulary cannot write at all are
found here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nprdsl.grammar.bindings import repeats
from nprdsl.grammar.field_shapes import FieldShape, Leaf, field_shapes
from nprdsl.grammar.ir import Block, Field, Grammar, Literal
from nprdsl.grammar.label_values import label_values
from nprdsl.masks.field_rests import FieldPart, FieldRest, FieldRests
from nprdsl.masks.parts import LiteralPart, RegularPart, part_of, whole_field
from nprdsl.regular.aho_corasick import ROOT
from nprdsl.regular.dfa import Dfa
from nprdsl.regular.tag_free import has_values
from nprdsl.structure.tag_machine import END
from nprdsl.tokens.spelling import NEVER

WholeField = tuple[FieldShape, FieldRest]


def whole_fields(grammar: Grammar, rests: FieldRests) -> list[WholeField]:
    """All fields of a grammar over a vocabulary, with the labels that lists count on."""
    labels = label_values(grammar).fields
    return [
        (shape, whole_field(rests, parts, _tag(shape)))
        for shape in field_shapes(grammar)
        for parts in [tuple(_part(leaf, labels) for leaf in shape.leaves)]
    ]


def _tag(shape: FieldShape) -> str:
    return shape.tag.text if shape.tag is not None else END


def _part(leaf: Leaf, labels: Mapping[Field, Dfa]) -> FieldPart:
    if isinstance(leaf, Literal):
        return LiteralPart(leaf.text.encode())
    values = labels.get(leaf)
    return RegularPart(values) if values and has_values(values) else part_of(leaf.terminal)


def unwritable_fields(fields: Iterable[WholeField]) -> list[FieldShape]:
    """The fields in which no text is left that the vocabulary spells."""
    return [shape for shape, rest in fields if rest.cost >= NEVER]


@dataclass(frozen=True, slots=True)
class Detours:
    """Tokens beyond the parts' own: by the last terminal of a field; and of those, by the index of
    the block and the terminal that item and branch share, what its value has to be longer."""

    fields: Mapping[Field, int]
    values: Mapping[tuple[int, str], int]


def detours(grammar: Grammar, fields: Iterable[WholeField]) -> Detours:
    """The detours of a grammar's fields, where they have some."""
    longest: dict[Field, int] = {}
    bound = {name for block in grammar.blocks for name in block.bound}
    whole = list(fields)
    pairs = [
        (block, written, repeated)
        for block, written, repeated in repeats(grammar.rules)
        if written.terminal.name != grammar.label_of(block)  # labels are priced with their repeats
    ]
    longer = _longer_values(pairs, whole)
    for shape, rest in whole:
        field = next((leaf for leaf in reversed(shape.leaves) if isinstance(leaf, Field)), None)
        own = _beyond(rest, ROOT)
        if pairs:
            differ = ((leaf, more) for leaf, more in _longer(shape, rest) if leaf in longer)
            own += sum(longer[leaf] - more for leaf, more in differ)
        detour = max(own, *_behind_bound(rest, shape, bound), 0)
        if field is not None and detour:
            longest[field] = max(detour, longest.get(field, 0))
    values = {(block.index, one.terminal.name): longer[one] for block, one, _ in pairs}
    return Detours(longest, {key: more for key, more in values.items() if more})


def _longer_values(
    pairs: Sequence[tuple[Block, Field, Field]], fields: Iterable[WholeField]
) -> dict[Leaf, int]:
    """The tokens by which values have to be longer than the shortest, in the item or in the branch
    that repeats them: so they are in both."""
    values: dict[Leaf, int] = dict.fromkeys((field for _, *both in pairs for field in both), 0)
    for shape, rest in fields if pairs else ():
        for leaf, more in _longer(shape, rest):
            if leaf in values:
                values[leaf] = max(values[leaf], more)
    for _, written, repeated in pairs:
        values[written] = values[repeated] = max(values[written], values[repeated])
    return values


def _longer(shape: FieldShape, rest: FieldRest) -> Iterator[tuple[Leaf, int]]:
    """By how many tokens each part is longer than its shortest text, in the way counted on."""
    rests, here = rest.made_by, rest
    for leaf, piece in zip(shape.leaves, rest.ending(rest.part.start, ROOT).pieces, strict=False):
        yield leaf, rests.spelling.tokens(piece) - here.part.whole_cost(rests)
        assert here.rest is not None
        here = here.rest


def _behind_bound(rest: FieldRest, shape: FieldShape, bound: set[str]) -> Iterator[int]:
    """From behind every value that a branch repeats, whatever it is."""
    scan, here = rest.made_by.scan, rest
    for leaf in shape.leaves:
        assert here.rest is not None
        here = here.rest
        if not isinstance(leaf, Field) or leaf.terminal.name not in bound:
            continue
        apart = scan.touched.isdisjoint(here.next_bytes(here.part.start))
        if not apart or (here.is_tag and here.tag and here.tag not in scan.apart):
            yield from (_beyond(here, node) for node in range(len(scan.moves)))


def _beyond(rest: FieldRest, node: int) -> int:
    cost = rest.ending(rest.part.start, node).cost
    return cost - rest.sum_of_parts if cost < NEVER else 0
