"""Free text as an automaton over characters: not blank, and without any tag as a substring.

The automaton is that of Aho and Corasick (1975) over the tags, doubled by "only blanks so far".
xgrammar gets it as right-linear rules, outlines as one regular expression.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nprdsl.export.regexes import (
    EMPTY,
    Chars,
    Regex,
    Times,
    complement,
    concat,
    either,
    one_of,
    union,
)
from nprdsl.structure.field_content import BLANKS


@dataclass(frozen=True, slots=True)
class TextState:
    """`prefix`: the longest suffix of the text read that begins a tag."""

    prefix: str
    blank: bool


START = TextState("", True)
OPEN = TextState("", False)  # not blank, no tag begun: the usual state


@dataclass(frozen=True, slots=True)
class FreeText:
    """`steps[state][next]`: the characters that lead on. Every state that is not blank is final."""

    steps: Mapping[TextState, Mapping[TextState, Chars]]


def free_text(tags: Iterable[str], forbidden: str = "") -> FreeText:
    """Text without `tags` and without any character of `forbidden`."""
    tags = tuple(tags)
    prefixes = {tag[:length] for tag in tags for length in range(len(tag))} | {""}
    letters = sorted({letter for tag in tags for letter in tag} | set(BLANKS))
    steps: dict[TextState, Mapping[TextState, Chars]] = {}
    todo = [START]
    while todo:
        state = todo.pop()
        if state in steps:
            continue
        named: dict[TextState, str] = {}
        for letter in letters:
            follow = _follow(state, letter, tags, prefixes)
            if follow is not None and letter not in forbidden:
                named[follow] = named.get(follow, "") + letter
        found = {follow: one_of(text) for follow, text in named.items()}
        rest = complement(one_of("".join(letters) + forbidden))
        found[OPEN] = either([rest, found[OPEN]]) if OPEN in found else rest
        steps[state] = found
        todo.extend(found)
    return FreeText(steps)


def _follow(
    state: TextState, letter: str, tags: tuple[str, ...], prefixes: set[str]
) -> TextState | None:
    """The state behind one character; None where a tag would be complete."""
    read = state.prefix + letter
    if any(read.endswith(tag) for tag in tags):
        return None
    while read not in prefixes:
        read = read[1:]
    return TextState(read, state.blank and letter in BLANKS)


def text_regex(text: FreeText, start: TextState) -> Regex:
    """The text from `start` on as one regular expression, by elimination of states.

    With `START` it is not blank; with `OPEN` it may be blank or empty, and is half as long.
    """
    final = TextState("\0", False)
    edges: dict[TextState, dict[TextState, Regex]] = {
        state: dict(follow) for state, follow in text.steps.items()
    }
    for state in edges:
        if not state.blank:
            edges[state][final] = EMPTY
    for state in sorted(edges, key=lambda s: (len(s.prefix), s == OPEN), reverse=True):
        if state != start and state != OPEN:
            _eliminate(edges, state)
    if start != OPEN:
        _eliminate(edges, OPEN)
    return _around(edges[start], start)[final]


def _around(out: dict[TextState, Regex], state: TextState) -> dict[TextState, Regex]:
    """The edges out of `state` with its loop put before each."""
    loop = out.get(state)
    if loop is None:
        return out
    first = Times(loop, 0, None)
    return {follow: concat(first, regex) for follow, regex in out.items() if follow != state}


def _eliminate(edges: dict[TextState, dict[TextState, Regex]], state: TextState) -> None:
    out = _around(edges.pop(state), state)
    for follows in edges.values():
        into = follows.pop(state, None)
        if into is not None:
            for target, regex in out.items():
                path = concat(into, regex)
                known = follows.get(target)
                follows[target] = path if known is None else union(path, known)
