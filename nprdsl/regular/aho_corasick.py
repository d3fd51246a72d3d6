"""Finding several words in a text at once: the automaton of Aho and Corasick (1975).

A state stands for the longest end of the text read so far that begins one of the words, so one look
at each letter finds every word. The words may be bytes, as in `nprdsl.masks`, or characters, as in
`nprdsl.export`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Letter = TypeVar("Letter", bound=Hashable)

ROOT = 0  # the state in which no word is begun
NO_WORD = -1


@dataclass(frozen=True, slots=True)
class AhoCorasick(Generic[Letter]):
    """`moves[state]` maps a letter to the next state, `ROOT` where it is absent.

    `ends[state]` is the index of the longest word that ends there, or `NO_WORD`. `rests[state]`
    holds, for every word begun and not ended, the letters that it still lacks, and the empty word
    where one has ended; the longest word begun stands first. `depths[state]` counts the letters of
    that word read.
    """

    moves: tuple[dict[Letter, int], ...]
    ends: tuple[int, ...]
    rests: tuple[tuple[Any, ...], ...]
    depths: tuple[int, ...]


def aho_corasick(words: Sequence[Sequence[Letter]]) -> AhoCorasick[Letter]:
    """The automaton of `words`, none of which is empty."""
    children: list[dict[Letter, int]] = [{}]
    ends, depths = [NO_WORD], [0]
    rests: list[list[Any]] = [[]]
    for index, word in enumerate(words):
        state = ROOT
        for at, letter in enumerate(word):
            if letter not in children[state]:
                children[state][letter] = len(children)
                children.append({})
                ends.append(NO_WORD)
                depths.append(at + 1)
                rests.append([])
            state = children[state][letter]
            rests[state].append(word[at + 1 :])
        ends[state] = index
    moves = _complete(children, ends, rests)
    return AhoCorasick(moves, tuple(ends), tuple(map(tuple, rests)), tuple(depths))


def _complete(
    children: list[dict[Letter, int]], ends: list[int], rests: list[list[Any]]
) -> tuple[dict[Letter, int], ...]:
    """The moves of every state, level by level; adds to each state what shorter words say of it."""
    shorter = [ROOT] * len(children)  # the state of the next longest word begun
    moves = [dict(c) for c in children]
    queue = deque(children[ROOT].values())
    while queue:
        state = queue.popleft()
        back = shorter[state]
        if ends[state] == NO_WORD:
            ends[state] = ends[back]
        rests[state] += [rest for rest in rests[back] if rest not in rests[state]]
        for letter, child in children[state].items():
            shorter[child] = moves[back].get(letter, ROOT)
            queue.append(child)
        moves[state] = {**moves[back], **children[state]}
    return tuple(moves)
