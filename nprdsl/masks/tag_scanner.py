"""Where in a stream of bytes a tag ends: one automaton over all tags of a schema.

The first tag to be complete is the tag that was written (no tag contains another), so scanning from
the end of the last tag decides what is text and what is structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nprdsl.regular.aho_corasick import NO_WORD, ROOT, aho_corasick


@dataclass(frozen=True)
class TagScan:
    """`moves[node]` maps a byte to the next node (`ROOT` where absent); `ends[node]` is the tag
    that is complete there, or empty; `rests[node]` holds, for every tag begun, the bytes it still
    lacks."""

    moves: tuple[dict[int, int], ...]
    ends: tuple[str, ...]
    rests: tuple[tuple[bytes, ...], ...]

    def last(self, data: bytes, node: int = ROOT) -> tuple[str, bytes] | None:
        """The last tag complete in `data`, and what of `data` stands behind it."""
        found = None
        for at, byte in enumerate(data):
            node = self.moves[node].get(byte, ROOT)
            if self.ends[node]:
                found, node = (self.ends[node], data[at + 1 :]), ROOT
        return found


def tag_scan(tags: Sequence[str]) -> TagScan:
    """The automaton of these tags."""
    automaton = aho_corasick([tag.encode() for tag in tags])
    ends = tuple("" if word == NO_WORD else tags[word] for word in automaton.ends)
    return TagScan(automaton.moves, ends, automaton.rests)
