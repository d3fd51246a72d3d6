"""The labels that a list can count on: those that may be written wherever its items write one.

A label may spell a tag together with what stands beside it in its field: before the literal `a`, no
label may be `a` where `aa` is a tag. Labels of one list must differ, so it matters how many are
left; they are counted, and priced, among those that spell no tag in any field of an item.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nprdsl.grammar.bindings import item_fields
from nprdsl.grammar.field_automata import FieldAutomaton
from nprdsl.grammar.field_shapes import field_shapes
from nprdsl.grammar.ir import Block, Field, Grammar, once_for_grammar
from nprdsl.regular.aho_corasick import ROOT
from nprdsl.regular.dfa import Dfa
from nprdsl.regular.tag_free import Nodes, tag_free, tag_free_among
from nprdsl.regular.tag_scan import TagScan, tag_scan
from nprdsl.regular.words import ENDLESS, words_of

_Place = tuple[FieldAutomaton, int]  # a field that may hold a label, and where it does


@dataclass(frozen=True, slots=True)
class LabelValues:
    """The labels to count on, by block and by field of an item; blocks without a label lack."""

    blocks: Mapping[Block, Dfa]
    fields: Mapping[Field, Dfa]


@once_for_grammar
def label_values(grammar: Grammar) -> LabelValues:
    """The labels of all lists of a grammar without other faults."""
    scan = tag_scan(grammar.tags)
    blocks: dict[Block, Dfa] = {}
    fields: dict[Field, Dfa] = {}
    for group, written in _groups(grammar):
        values = _values(grammar, scan, written)
        blocks |= dict.fromkeys(group, values)
        fields |= dict.fromkeys(written, values)
    return LabelValues(blocks, fields)


def _groups(grammar: Grammar) -> list[tuple[set[Block], set[Field]]]:
    """Blocks with the fields in which their items write the label; those that share one are
    together."""
    groups: list[tuple[set[Block], set[Field]]] = []
    for block in grammar.blocks:
        name = grammar.label_of(block)
        if name is None:
            continue
        fields = {f for f in item_fields(block, grammar.rules) if f.terminal.name == name}
        blocks = {block}
        for other in [group for group in groups if group[1] & fields]:
            groups.remove(other)
            blocks |= other[0]
            fields |= other[1]
        groups.append((blocks, fields))
    return groups


def scarce_labels(grammar: Grammar) -> Iterator[tuple[Block, str, int]]:
    """The blocks of which a label may stand in one place of an item and not in another: with the
    label's name, and how many labels may stand in all."""
    scan, known = tag_scan(grammar.tags), label_values(grammar).blocks
    for group, written in _groups(grammar):
        dfa, values = _tag_free(grammar, written), known[next(iter(group))]
        if values is dfa or (count := words_of(values).size) == ENDLESS:
            continue
        places = _places(grammar, scan, written)
        if any(words_of(_writable(dfa, scan, [place])).size > count for place in places):
            yield from ((block, str(grammar.label_of(block)), count) for block in group)


def _values(grammar: Grammar, scan: TagScan, written: Iterable[Field]) -> Dfa:
    dfa = _tag_free(grammar, written)
    return dfa if _is_apart(dfa, scan) else _writable(dfa, scan, _places(grammar, scan, written))


def _tag_free(grammar: Grammar, written: Iterable[Field]) -> Dfa:
    return tag_free(next(iter(written)).terminal.pattern, grammar.tags)


def _is_apart(dfa: Dfa, scan: TagScan) -> bool:
    """Whether no label can be a part of a tag."""
    return scan.touched.isdisjoint(_used(dfa))


def _used(dfa: Dfa) -> set[int]:
    return set(np.flatnonzero(dfa.table.any(axis=0)).tolist())


def _places(grammar: Grammar, scan: TagScan, written: Iterable[Field]) -> list[_Place]:
    fields = list(written)
    return [
        (FieldAutomaton(shape, scan, frozenset(), loose=False), number)
        for shape in field_shapes(grammar)
        for number, leaf in enumerate(shape.leaves)
        if leaf in fields
    ]


def _writable(dfa: Dfa, scan: TagScan, around: Sequence[_Place]) -> Dfa:
    """The labels that may stand in all these places."""
    begin = frozenset(
        (at, node)
        for at, (field, number) in enumerate(around)
        for _, _, node in field.beginnings(number)
    )
    if _used(dfa).isdisjoint(scan.moves[ROOT]) and all(node == ROOT for _, node in begin):
        return dfa

    def may_end(nodes: Nodes) -> bool:
        places = ((around[at][0], around[at][1] + 1, node) for at, node in nodes)
        return all(field.alive(field.begin_at(number, node)) for field, number, node in places)

    return tag_free_among(dfa, scan, begin, may_end)
