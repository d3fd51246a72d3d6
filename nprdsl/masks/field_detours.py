"""What whole fields cost beyond their parts, where the shortest texts of neighbours spell a tag.

The costs of a grammar (`nprdsl.masks.completion_cost`) are sums over its nodes. That is true of a
field unless its parts' shortest texts spell a tag together, so that a longer way has to be taken:
the difference is the *detour* of the field, and is counted with its last terminal. A longer value
that a branch repeats is longer there as well. Fields that the vocabulary cannot write at all are
found here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from nprdsl.grammar.bindings import item_fields
from nprdsl.grammar.field_shapes import FieldShape, Leaf, field_shapes
from nprdsl.grammar.ir import Field, Grammar, Literal
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


def detours(grammar: Grammar, fields: Iterable[WholeField]) -> dict[Field, int]:
    """The tokens that the last terminal of a field may take beyond its own, where it does."""
    longest: dict[Field, int] = {}
    bound = {name for block in grammar.blocks for name in block.bound}
    repeated = _repeated(grammar)
    for shape, rest in fields:
        field = next((leaf for leaf in reversed(shape.leaves) if isinstance(leaf, Field)), None)
        detour = max(_detours(rest, shape, bound, repeated), default=0)
        if field is not None and detour:
            longest[field] = max(detour, longest.get(field, 0))
    return longest


def _repeated(grammar: Grammar) -> set[Leaf]:
    """The fields of items whose values branches repeat. Labels are left out: those that a list
    counts on are priced with their repeats."""
    return {
        field
        for block in grammar.blocks
        if block.bound
        for field in item_fields(block, grammar.rules)
        if field.terminal.name != grammar.label_of(block)
    }


def _detours(
    rest: FieldRest, shape: FieldShape, bound: set[str], repeated: set[Leaf]
) -> Iterator[int]:
    """From the beginning, and from behind every value that a branch repeats, whatever it is."""
    scan, here = rest.made_by.scan, rest
    yield _beyond(rest, ROOT, shape.leaves, repeated)
    for number, leaf in enumerate(shape.leaves, 1):
        assert here.rest is not None
        here = here.rest
        if not isinstance(leaf, Field) or leaf.terminal.name not in bound:
            continue
        apart = scan.touched.isdisjoint(here.next_bytes(here.part.start))
        if not apart or (here.is_tag and here.tag and here.tag not in scan.apart):
            leaves = shape.leaves[number:]
            yield from (_beyond(here, node, leaves, repeated) for node in range(len(scan.moves)))


def _beyond(rest: FieldRest, node: int, leaves: Sequence[Leaf], repeated: set[Leaf]) -> int:
    ending = rest.ending(rest.part.start, node)
    if ending.cost >= NEVER:
        return 0
    rests, here, again = rest.made_by, rest, 0
    for leaf, piece in zip(leaves, ending.pieces, strict=False):  # the last piece is the tag's
        if leaf in repeated:
            again += rests.spelling.tokens(piece) - here.part.whole_cost(rests)
        assert here.rest is not None
        here = here.rest
    return ending.cost - rest.sum_of_parts + again
