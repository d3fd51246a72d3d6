"""What whole fields cost beyond their parts, where the shortest texts of neighbours spell a tag.

The costs of a grammar (`nprdsl.masks.completion_cost`) are sums over its nodes. That is true of a
field unless its parts' shortest texts spell a tag together, so that a longer way has to be taken:
the difference is the *detour* of the field, and is counted with one of its terminals. A longer
value that a branch repeats is longer there as well. Fields that the vocabulary cannot write at all
are found here too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
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

_Parts = Sequence[tuple[Leaf, FieldPart]]


def _fields(grammar: Grammar) -> Iterator[tuple[FieldShape, _Parts]]:
    """All fields of a grammar, with the labels that lists count on."""
    labels = label_values(grammar).fields
    for shape in field_shapes(grammar):
        yield shape, [(leaf, _part(leaf, labels)) for leaf in shape.leaves]


def _part(leaf: Leaf, labels: Mapping[Field, Dfa]) -> FieldPart:
    if isinstance(leaf, Literal):
        return LiteralPart(leaf.text.encode())
    values = labels.get(leaf)
    return RegularPart(values) if values and has_values(values) else part_of(leaf.terminal)


def _whole(rests: FieldRests, shape: FieldShape, parts: _Parts) -> FieldRest:
    tag = shape.tag.text if shape.tag is not None else END
    return whole_field(rests, tuple(part for _, part in parts), tag)


def unwritable_fields(grammar: Grammar, rests: FieldRests) -> list[FieldShape]:
    """The fields in which no text is left that the vocabulary spells."""
    fields = _fields(grammar)
    return [shape for shape, parts in fields if _whole(rests, shape, parts).cost >= NEVER]


@dataclass(frozen=True, slots=True)
class Detours:
    """Tokens beyond the parts' own: by the last terminal of a field; and of those, by the index of
    the block and the terminal that item and branch share, what its value has to be longer."""

    fields: Mapping[Field, int]
    values: Mapping[tuple[int, str], int]


def detours(grammar: Grammar, rests: FieldRests) -> Detours:
    """The detours of a grammar's fields, where they have some."""
    bound = {name for block in grammar.blocks for name in block.bound}
    fields = [
        (shape, None if _is_plain(shape, parts, bound, rests) else _whole(rests, shape, parts))
        for shape, parts in _fields(grammar)
    ]
    doubtful = [(shape, rest) for shape, rest in fields if rest is not None]
    if not doubtful:
        return Detours({}, {})
    pairs = [
        (block, written, repeated)
        for block, written, repeated in repeats(grammar.rules)
        if written.terminal.name != grammar.label_of(block)  # labels are priced with their repeats
    ]
    longer = _longer_values(pairs, doubtful)
    uses = Counter(leaf for shape, _ in fields for leaf in shape.leaves)
    longest: dict[Field, int] = {}
    counted = [(_counted_with(shape, uses), shape, rest) for shape, rest in fields]
    for field, shape, rest in sorted(counted, key=lambda one: -uses[one[0]] if one[0] else 0):
        detour = sum(longer.get(leaf, 0) for leaf in shape.leaves)
        if rest is not None:
            known = sum(more for leaf, more in _longer(shape, rest) if leaf in longer)
            detour += _beyond(rest, ROOT) - known
            detour = max(detour, *_behind_bound(rest, shape, bound), 0)
        others = (leaf for leaf in shape.leaves if isinstance(leaf, Field) and leaf != field)
        detour -= sum(longest.get(leaf, 0) for leaf in others)  # counted in other fields already
        if field is not None and detour > 0:
            longest[field] = max(detour, longest.get(field, 0))
    values = {(block.index, one.terminal.name): longer[one] for block, one, _ in pairs}
    return Detours(longest, {key: more for key, more in values.items() if more})


def _counted_with(shape: FieldShape, uses: Mapping[Leaf, int]) -> Field | None:
    """The terminal of a field that stands in the fewest places, the last of those: wherever else it
    stands the detour is counted too."""
    terminals = [leaf for leaf in reversed(shape.leaves) if isinstance(leaf, Field)]
    return min(terminals, key=lambda leaf: uses[leaf], default=None)


def _is_plain(shape: FieldShape, parts: _Parts, bound: set[str], rests: FieldRests) -> bool:
    """Whether no detour is needed, as no part's shortest text begins a tag, and what stands behind
    values that a branch repeats breaks off every tag that these may begin."""
    scan, behind = rests.scan, False
    for leaf, part in parts:
        ending = next(iter(part.endings(part.start, rests)), b"")
        if not ending or not scan.moves[ROOT].keys().isdisjoint(ending):
            return False
        if behind and not scan.touched.isdisjoint(part.next_bytes(part.start, rests)):
            return False
        behind = _is_bound(leaf, bound)
    return not behind or shape.tag is None or shape.tag.text in scan.apart


def _is_bound(leaf: Leaf, bound: set[str]) -> bool:
    return isinstance(leaf, Field) and leaf.terminal.name in bound


def _longer_values(
    pairs: Sequence[tuple[Block, Field, Field]], fields: Iterable[tuple[FieldShape, FieldRest]]
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
        if not _is_bound(leaf, bound):
            continue
        apart = scan.touched.isdisjoint(here.next_bytes(here.part.start))
        if not apart or (here.is_tag and here.tag and here.tag not in scan.apart):
            yield from (_beyond(here, node) for node in (ROOT, *scan.led_by(_firsts(here))))


def _firsts(rest: FieldRest) -> Set[int]:
    """The bytes that decide how a field ends from another node than `ROOT`: those that may come
    first, or the first of the shortest text where it may be written behind `ROOT`."""
    if rest.is_tag:
        return {*rest.tag.encode()[:1]}
    text = next(iter(rest.part.endings(rest.part.start, rest.made_by)), b"")
    if text and rest.ending(rest.part.start, ROOT).pieces[:1] == (text,):
        return {text[0]}
    return rest.next_bytes(rest.part.start)


def _beyond(rest: FieldRest, node: int) -> int:
    cost = rest.ending(rest.part.start, node).cost
    return cost - rest.sum_of_parts if cost < NEVER else 0
