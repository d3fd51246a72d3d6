"""Where in a stream of bytes a tag ends: one Aho-Corasick automaton over all tags of a schema.

The first tag to be complete is the tag that was written (no tag contains another), so scanning from
the end of the last tag decides what is text and what is structure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

ROOT = 0


@dataclass(frozen=True)
class TagScan:
    """`moves[node]` maps a byte to the next node (`ROOT` where absent); `ends[node]` is the tag
    that is complete there, or empty; `rests[node]` holds, for every tag begun, the bytes it still
    lacks."""

    moves: tuple[dict[int, int], ...]
    ends: tuple[str, ...]
    rests: tuple[tuple[bytes, ...], ...]

    def scan(self, data: bytes, node: int = ROOT) -> str:
        """The first tag complete in `data`, or an empty string."""
        for byte in data:
            node = self.moves[node].get(byte, ROOT)
            if self.ends[node]:
                return self.ends[node]
        return ""

    def last(self, data: bytes, node: int = ROOT) -> tuple[str, bytes] | None:
        """The last tag complete in `data`, and what of `data` stands behind it."""
        found = None
        for at, byte in enumerate(data):
            node = self.moves[node].get(byte, ROOT)
            if self.ends[node]:
                found, node = (self.ends[node], data[at + 1 :]), ROOT
        return found


def tag_scan(tags: Sequence[str]) -> TagScan:
    """The automaton of these tags (Aho and Corasick 1975)."""
    children: list[dict[int, int]] = [{}]
    ends = [""]
    begun: list[list[bytes]] = [[]]
    for tag in tags:
        data, node = tag.encode(), ROOT
        for at, byte in enumerate(data):
            if byte not in children[node]:
                children[node][byte] = len(children)
                children.append({})
                ends.append("")
                begun.append([])
            node = children[node][byte]
            begun[node].append(data[at + 1 :])
        ends[node] = tag
    return _with_failures(children, ends, begun)


def _with_failures(
    children: list[dict[int, int]], ends: list[str], begun: list[list[bytes]]
) -> TagScan:
    fail = [ROOT] * len(children)
    moves = [dict(c) for c in children]
    queue = deque(children[ROOT].values())
    while queue:
        node = queue.popleft()
        ends[node] = ends[node] or ends[fail[node]]
        begun[node] += [r for r in begun[fail[node]] if r not in begun[node]]
        for byte, child in children[node].items():
            fail[child] = moves[fail[node]].get(byte, ROOT)
            queue.append(child)
        moves[node] = {**moves[fail[node]], **children[node]}
    return TagScan(tuple(moves), tuple(ends), tuple(tuple(b) for b in begun))
