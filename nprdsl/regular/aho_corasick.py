"""Finding several words in a text at once: the automaton of Aho and Corasick (1975).

A state stands for the longest end of the text read so far that begins one of the words, so one look
at each letter finds every word. The words may be bytes, as in `nprdsl.masks`, or characters, as in
`nprdsl.export`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
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


@dataclass(frozen=True, slots=True)
class _Trie(Generic[Letter]):
    """`children[state]` are the states one letter on, `ends[state]` the index of the word that ends
    there, `shorter[state]` the state of the next longest word begun. Parents stand before their
    children; in `by_depth`, which lacks `ROOT`, all states of shorter beginnings do."""

    children: list[dict[Letter, int]]
    ends: list[int]
    shorter: list[int]
    by_depth: list[int]

    def after(self, state: int, letter: Letter) -> int:
        while state != ROOT and letter not in self.children[state]:
            state = self.shorter[state]
        return self.children[state].get(letter, ROOT)


def aho_corasick(words: Sequence[Sequence[Letter]]) -> AhoCorasick[Letter]:
    """The automaton of `words`, none of which is empty."""
    trie = _trie(words)
    depths = [0] * len(trie.children)
    rests: list[dict[Any, None]] = [{} for _ in trie.children]
    for word in words:
        state = ROOT
        for at, letter in enumerate(word):
            state = trie.children[state][letter]
            depths[state] = at + 1
            rests[state][word[at + 1 :]] = None
    moves = [dict(c) for c in trie.children]
    for state in trie.by_depth:
        back = trie.shorter[state]
        rests[state].update(rests[back])
        moves[state] = {**moves[back], **trie.children[state]}
    return AhoCorasick(tuple(moves), tuple(trie.ends), tuple(map(tuple, rests)), tuple(depths))


def words_inside(words: Sequence[str], texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The texts that hold a word, as pairs of indices of a text and of the first word found in it.

    The first texts may be the words themselves: a word does not hold itself.
    """
    trie = _trie(words)
    for index, text in enumerate(texts):
        state = ROOT
        for letter in text:
            state = trie.after(state, letter)
            found = trie.ends[state]
            if found == index:
                found = trie.ends[trie.shorter[state]]
            if found != NO_WORD:
                yield index, found
                break


def _trie(words: Sequence[Sequence[Letter]]) -> _Trie[Letter]:
    children: list[dict[Letter, int]] = [{}]
    ends = [NO_WORD]
    for index, word in enumerate(words):
        state = ROOT
        for letter in word:
            if letter not in children[state]:
                children[state][letter] = len(children)
                children.append({})
                ends.append(NO_WORD)
            state = children[state][letter]
        ends[state] = index
    trie = _Trie(children, ends, [ROOT] * len(children), list(children[ROOT].values()))
    for state in trie.by_depth:  # grows on the way
        if ends[state] == NO_WORD:
            ends[state] = ends[trie.shorter[state]]
        for letter, child in children[state].items():
            trie.shorter[child] = trie.after(trie.shorter[state], letter)
            trie.by_depth.append(child)
    return trie
