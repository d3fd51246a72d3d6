"""Strategies for documents, and the text that tests put into slots.

Non-goals: chains of thought that mean something.
"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st

from nprdsl.trainers.curate.document import BlockKind, DocumentBlock, LeafRange, Passage, nest
from nprdsl.trainers.curate.form import (
    ConclusionSlot,
    ExtraSlot,
    ItemSlot,
    Slot,
)


@st.composite
def documents(draw: st.DrawFn, max_depth: int = 2) -> tuple[tuple[Passage, ...], int]:
    """A document and the number of its leaves."""
    leaves = draw(st.integers(2, 14))
    return nest(draw(_blocks(0, leaves - 1, max_depth)), leaves), leaves


@st.composite
def _blocks(draw: st.DrawFn, first: int, last: int, depth: int) -> list[DocumentBlock]:
    """Blocks between two leaves; each covers two leaves at least."""
    found: list[DocumentBlock] = []
    at = first
    while depth and at < last and draw(st.booleans()):
        begin = draw(st.integers(at, last - 1))
        count = draw(st.integers(2, min(4, last - begin + 1)))
        inner = draw(
            st.lists(
                st.integers(begin + 1, last), min_size=count - 1, max_size=count - 1, unique=True
            )
        )
        starts = [begin, *sorted(inner)]
        end = draw(st.integers(starts[-1], last))
        edges = [*starts, end + 1]
        branches = tuple((a, b - 1) for a, b in pairwise(edges))
        kind = draw(st.sampled_from([BlockKind.COLLECTIVE, BlockKind.SELECTIVE]))
        found.append(DocumentBlock(kind, tuple((LeafRange(a, b),) for a, b in branches)))
        for a, b in branches:
            found += draw(_blocks(a, b, depth - 1))
        at = end + 1
    spans = [(span.first, span.last, len(span.branches)) for span in found]
    return found if len(set(spans)) == len(spans) else []


def named(slot: Slot) -> str:
    """A text that tells which slot it fills."""
    match slot:
        case LeafRange(first, last):
            return " ".join(f"leaf{leaf}." for leaf in range(first, last + 1))
        case ItemSlot(path, branch):
            return f"item{'.'.join(map(str, (*path, branch)))}."
        case ConclusionSlot(path):
            return f"conclusion{'.'.join(map(str, path))}."
        case ExtraSlot(number):
            return f"extra{number}."
