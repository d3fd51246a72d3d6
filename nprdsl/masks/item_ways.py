"""Ways to go on with a list: how many further items each takes, and its fewest tokens.

A way with more items is kept only if it is cheaper, as the labels of more items cost more. The
labels themselves are left out here: what they cost depends on those that the list has used.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from nprdsl.tokens.fresh_labels import FreshLabels, Taken
from nprdsl.tokens.spelling import NEVER

Ways = tuple[tuple[int, int], ...]  # (items, tokens): more of the former, fewer of the latter
NO_ITEM: Final[Ways] = ((0, 0),)


def best(ways: Iterable[tuple[int, int]]) -> Ways:
    """Those that are worth it, with fewest items first; none where there is no way."""
    kept: list[tuple[int, int]] = []
    for way in sorted(ways):
        if way[1] < (kept[-1][1] if kept else NEVER):
            kept.append(way)
    return tuple(kept)


def then(first: Ways, second: Ways) -> Ways:
    """One after the other."""
    if len(first) == len(second) == 1:  # as most are
        ((a, b),), ((c, d),) = first, second
        return ((a + c, b + d),) if b + d < NEVER else ()
    return best((a + c, b + d) for a, b in first for c, d in second)


def times(ways: Ways, count: int) -> Ways:
    """The same `count` times."""
    whole, power = NO_ITEM, ways
    while count:
        if count % 2:
            whole = then(whole, power)
        count //= 2
        power = then(power, power) if count else power
    return whole


def cost(
    ways: Ways,
    labels: FreshLabels,
    taken: Taken,
    also: bytes | None = None,
    *,
    repeats: int,
    more: int = 0,
) -> int:
    """The fewest tokens of a way and of its labels, written `repeats` times each, none of them
    taken, or the one that is taken `also`; `more` labels are needed besides. NEVER where too few
    are left."""
    return min(
        (tokens + repeats * labels.tokens(items + more, taken, also) for items, tokens in ways),
        default=NEVER,
    )
