"""Sets of Unicode code points, and the bytes by which UTF-8 encodes their members.

A set is a sorted tuple of ranges (first, last). `union`, `complement` and `ignore_case` compute
with such sets, and `byte_tree` gives the byte sequences that encode a set's members: an automaton
over bytes is built from these. UTF-8 cannot encode surrogates (U+D800 to U+DFFF), so they belong to
no set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

Ranges = tuple[tuple[int, int], ...]
# Alternatives, each a set of last bytes (bit b = byte b) after a tree of what stands before it.
ByteTree = tuple[tuple["ByteTree", int], ...]

_HIGHEST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)
# Within one of these ranges all spellings have the same length.
_LENGTHS = ((0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, _HIGHEST))

EVERYTHING: Ranges = ((0, _SURROGATES[0] - 1), (_SURROGATES[1] + 1, _HIGHEST))
DIGIT: Ranges = ((0x30, 0x39),)
SPACE: Ranges = ((0x09, 0x0D), (0x20, 0x20))
WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))


def union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """`ranges` sorted and merged."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return tuple(merged)


def complement(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """All code points that are not in `ranges`."""
    gaps: list[tuple[int, int]] = []
    begin = 0
    for low, high in union((*ranges, _SURROGATES)):
        if begin < low:
            gaps.append((begin, low - 1))
        begin = high + 1
    return (*gaps, (begin, _HIGHEST)) if begin <= _HIGHEST else tuple(gaps)


def ignore_case(ranges: Ranges) -> Ranges:
    """`ranges` with both cases of every ASCII letter in it."""
    twins = list(ranges)
    for low, high in ranges:
        for first, last, shift in ((0x41, 0x5A, 32), (0x61, 0x7A, -32)):
            if max(low, first) <= min(high, last):
                twins.append((max(low, first) + shift, min(high, last) + shift))
    return union(twins)


@lru_cache(maxsize=1024)
def byte_tree(ranges: Ranges) -> ByteTree:
    """The UTF-8 spellings of `ranges`, with common endings shared."""
    return _share_endings([s for low, high in ranges for s in _sequences(low, high)])


def _share_endings(sequences: list[tuple[int, ...]]) -> ByteTree:
    single = 0
    before: dict[int, list[tuple[int, ...]]] = {}
    for *head, last in sequences:
        if head:
            before.setdefault(last, []).append(tuple(head))
        else:
            single |= last
    shared = [(_share_endings(heads), last) for last, heads in before.items()]
    return (*([((), single)] if single else []), *shared)


def _sequences(low: int, high: int) -> Iterator[tuple[int, ...]]:
    """Byte-set sequences whose products are exactly the spellings of low..high."""
    for first, last in _LENGTHS:
        if max(low, first) <= min(high, last):
            yield from _aligned(max(low, first), min(high, last))


def _aligned(low: int, high: int) -> Iterator[tuple[int, ...]]:
    """Cut low..high until every continuation byte ranges freely or is constant."""
    length = len(chr(low).encode())
    for n in range(1, length):
        mask = (1 << 6 * n) - 1
        if low & ~mask == high & ~mask:
            continue
        if low & mask:
            yield from _aligned(low, low | mask)
            yield from _aligned((low | mask) + 1, high)
            return
        if high & mask != mask:
            yield from _aligned(low, (high & ~mask) - 1)
            yield from _aligned(high & ~mask, high)
            return
    pairs = zip(chr(low).encode(), chr(high).encode(), strict=True)
    yield tuple(((2 << b - a) - 1) << a for a, b in pairs)
