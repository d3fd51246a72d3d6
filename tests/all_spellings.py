"""All traces of a small finite language over a small vocabulary, as an oracle of masks and costs.

The texts of the language are listed by hand, every way to spell them in tokens is tried, and the
checker says which of these are legal. What a mask may allow at a place is then known, and how many
tokens it takes to end there. The automata of the masks take no part in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.masks.matcher import Matcher
from nprdsl.tokens.bitmask import unpack

FAR = 1 << 20
MOST = 1500  # traces that are compared
Ids = tuple[int, ...]


class TooManyError(ValueError):
    """There are too many spellings to try them all."""


@dataclass(frozen=True, slots=True)
class Found:
    """What differs between matcher and search, over all legal prefixes."""

    refused: list[str]  # legal tokens that the mask leaves out
    stuck: list[str]  # tokens that it allows, behind which no legal trace goes on
    dear: list[tuple[str, int, int]]  # costs above the fewest tokens: text, cost, fewest
    cheap: list[tuple[str, int, int]]  # costs below them


def spellings(bound: BoundSchema, text: str) -> Iterator[Ids]:
    """Every sequence of tokens that spells a text, special tokens where its tags have one."""
    vocabulary = bound.vocabulary
    special = {tag.encode(): token for tag, token in bound.tag_tokens.items()}
    data = text.encode()
    ways: list[list[Ids]] = [[] for _ in range(len(data) + 1)]
    ways[0] = [()]
    for at in range(len(data)):
        steps = list(vocabulary.trie.tokens_at(data, at))
        steps += [(len(tag), token) for tag, token in special.items() if data.startswith(tag, at)]
        for length, token in steps:
            ways[at + length] += [(*ids, token) for ids in ways[at]]
            if len(ways[at + length]) > MOST:
                raise TooManyError
    yield from ways[-1]


def compare(bound: BoundSchema, texts: Iterable[str]) -> Found:
    """`texts` are all legal texts of the language as they are generated."""
    traces = set[Ids]()
    for text in texts:
        for ids in spellings(bound, text):
            if not bound.check(ids):
                traces.add(ids)
        if len(traces) > MOST:
            raise TooManyError
    fewest: dict[Ids, int] = {}
    for ids in traces:
        for length in range(len(ids) + 1):
            prefix = ids[:length]
            fewest[prefix] = min(fewest.get(prefix, FAR), len(ids) - length)
    found = Found([], [], [], [])
    matchers: dict[Ids, Matcher] = {(): bound.matcher()}
    for prefix in sorted(fewest, key=len):
        text = bound.vocabulary.text(prefix)
        if prefix:
            before = matchers.get(prefix[:-1])
            if before is None or not before.accepts(prefix[-1]):
                continue
            matchers[prefix] = before.fork()
            matchers[prefix].advance(prefix[-1])
        matcher = matchers[prefix]
        row = unpack(matcher.mask(), bound.vocabulary.size)
        row[bound.vocabulary.eos_id] = False
        allowed = set(row.nonzero()[0].tolist())
        legal = {t for t in range(bound.vocabulary.size) if (*prefix, t) in fewest}
        named = bound.vocabulary.text
        found.refused.extend(f"{text}|{named((t,))}" for t in sorted(legal - allowed))
        found.stuck.extend(f"{text}|{named((t,))}" for t in sorted(allowed - legal))
        if matcher.cost > fewest[prefix]:
            found.dear.append((text, matcher.cost, fewest[prefix]))
        elif matcher.cost < fewest[prefix]:
            found.cheap.append((text, matcher.cost, fewest[prefix]))
        if fewest[prefix] and not unpack(matcher.tight(0), bound.vocabulary.size).any():
            found.stuck.append(f"{text}|nothing at its cost")
    return found
