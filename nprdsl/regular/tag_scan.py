"""Where tags stand in a text: the one rule by which every reader and writer of traces finds them.

A tag is found wherever its text stands, leftmost first, and the search begins anew behind it; no
tag holds another. What stands before a tag may spell the beginning of one, so a writer keeps the
*node* that the search has reached (an automaton of Aho and Corasick over the tags' bytes) across
every border inside a field, and asks here what the next bytes complete.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from nprdsl.regular.aho_corasick import NO_WORD, ROOT, aho_corasick


@dataclass(frozen=True)
class TagScan:
    """`moves[node]` maps a byte to the next node (`ROOT` where absent); `ends[node]` is the tag
    that is complete there, or empty; `rests[node]` holds, for every tag begun, the bytes it still
    lacks."""

    moves: tuple[dict[int, int], ...]
    ends: tuple[str, ...]
    rests: tuple[tuple[bytes, ...], ...]
    _closing: dict[tuple[int, str, int], bool] = field(default_factory=dict)

    def last(self, data: bytes, node: int = ROOT) -> tuple[str, bytes] | None:
        """The last tag complete in `data`, and what of `data` stands behind it."""
        last = None
        for at, byte in enumerate(data):
            node = self.moves[node].get(byte, ROOT)
            if self.ends[node]:
                last, node = (self.ends[node], data[at + 1 :]), ROOT
        return last

    def through(self, node: int, data: bytes) -> int | None:
        """The node behind `data`; None if a tag is complete in it."""
        moves, ends = self.moves, self.ends
        for byte in data:
            node = moves[node].get(byte, ROOT)
            if ends[node]:
                return None
        return node

    def closes(self, node: int, tag: str, read: int = 0) -> bool:
        """Whether the bytes of `tag` from byte `read` on complete that tag, and no other one
        before. The end of a trace (an empty tag) may stand anywhere."""
        if not read and tag in self.apart:
            return True
        key = (node, tag, read)
        known = self._closing.get(key)
        if known is None:
            known = self._closing[key] = self._closes(node, tag, read)
        return known

    def _closes(self, node: int, tag: str, read: int) -> bool:
        data = tag.encode()
        if not data:
            return True
        before = self.through(node, data[read:-1])
        return before is not None and self.ends[self.moves[before].get(data[-1], ROOT)] == tag

    def led_by(self, firsts: Set[int]) -> set[int]:
        """The nodes from which one of these bytes leads elsewhere than from `ROOT`."""
        return {node for first in firsts for node in self._led.get(first, ())}

    @cached_property
    def _led(self) -> dict[int, list[int]]:
        at_root, led = self.moves[ROOT], dict[int, list[int]]()
        for node, moves in enumerate(self.moves):
            for byte, after in moves.items():
                if after != at_root.get(byte):
                    led.setdefault(byte, []).append(node)
        return led

    @cached_property
    def touched(self) -> frozenset[int]:
        """The bytes of all tags: any other byte breaks off every tag begun."""
        return frozenset(b"".join(tag.encode() for tag in self.ends))

    @cached_property
    def apart(self) -> frozenset[str]:
        """The tags that are found wherever they stand: no end of a tag begins them."""
        tags = {tag: tag.encode() for tag in self.ends if tag}
        begun = {data[:n] for data in tags.values() for n in range(1, len(data))}
        ends = {data[n:] for data in tags.values() for n in range(1, len(data))} & begun
        reach = {len(end) for end in ends}
        return frozenset(
            tag for tag, data in tags.items() if not any(data[:n] in ends for n in reach)
        )

    @cached_property
    def table(self) -> NDArray[np.int32]:
        """int32 [nodes + 1, 256]: node n is row n + 1, row 0 stands for a complete tag."""
        table = np.full((len(self.moves) + 1, 256), ROOT + 1, np.int32)
        for node, moves in enumerate(self.moves):
            for byte, after in moves.items():
                table[node + 1, byte] = 0 if self.ends[after] else after + 1
        table[0] = 0
        return table


@lru_cache(maxsize=64)
def tag_scan(tags: tuple[str, ...]) -> TagScan:
    """The automaton of these tags."""
    automaton = aho_corasick([tag.encode() for tag in tags])
    ends = tuple("" if word == NO_WORD else tags[word] for word in automaton.ends)
    return TagScan(automaton.moves, ends, automaton.rests)
