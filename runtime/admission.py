"""How much KV memory a request is given, and who gives it back where none is left.

An engine admits requests in the order of their numbers, each with room for what traces of its kind
are likely to take; one that needs more grows while it runs. Where nothing is left, the youngest
gives all of its room back and waits at its old place in the queue; later it is filled again from
its own tokens. So the oldest can always go on, whatever the others hold, and every request becomes
the oldest one day: nothing can deadlock or starve. This module decides, in numbers of slots; how
slots are laid out is the engine's business, so any engine can follow it: the local one and the
SGLang runtime do.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Hashable, Mapping
from typing import Final

SHARE: Final = 0.9  # of the traces that take no more than what is likely
REMEMBERED: Final = 128  # traces of a kind
KINDS: Final = 512  # those seen last: clients may send any number
STEP: Final = 16  # slots by which a request grows at least


class LikelyLengths:
    """What traces of each kind took: a running quantile over the last ones."""

    def __init__(self) -> None:
        self._last: dict[Hashable, deque[int]] = {}
        self._sorted: dict[Hashable, list[int]] = {}

    def saw(self, kind: Hashable, length: int) -> None:
        """A trace has ended that took `length` slots behind its prompt."""
        last = self._last.pop(kind, deque())
        if len(self._last) == KINDS:
            longest_ago = next(iter(self._last))
            del self._last[longest_ago], self._sorted[longest_ago]
        self._last[kind] = last
        ascending = self._sorted.setdefault(kind, [])
        if len(last) == REMEMBERED:
            del ascending[bisect_left(ascending, last.popleft())]
        last.append(length)
        insort(ascending, length)

    def likely(self, kind: Hashable, least: int) -> int:
        """Slots behind the prompt for one that comes now; `least` before any has ended."""
        ascending = self._sorted.get(kind)
        if not ascending:
            return least
        return max(least, ascending[min(len(ascending) - 1, int(SHARE * len(ascending)))])


def at_start(likely: int, used: int, prompt: int, most: int) -> int:
    """The slots that a request is let in with: what is `likely` behind its prompt; and some more
    than the `used` that it has to feed by now, where it has given slots back before."""
    again = grown(used, prompt, most) if used > prompt else 0
    return min(most, max(prompt + likely, again))


def grown(need: int, prompt: int, most: int) -> int:
    """The slots to ask for when `need` are needed: half of what was written on top, so that a
    request grows a few times only."""
    return min(most, need + max(STEP, (need - prompt) // 2))


def giving_back(held: Mapping[int, int], free: int, asker: int, more: int) -> list[int]:
    """Who gives all slots back so that the running request `asker` gets `more` of them.

    `held` are the slots of all that run, by number. The youngest come first, until there is room;
    where all that are younger than the asker do not suffice, the asker gives back, and they go on.
    The oldest never does: what others hold besides, the engine has to ask back for it.
    """
    chosen: list[int] = []
    for number in sorted(held, reverse=True):
        if free >= more:
            return chosen
        if number <= asker:
            break
        chosen.append(number)
        free += held[number]
    return chosen if free >= more or asker == min(held) else [asker]
