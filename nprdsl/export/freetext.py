"""Free text as an automaton over characters: not blank, and without any tag as a substring.

Its states are those of the Aho-Corasick automaton of the tags, each once for "only blanks so far"
and once for the rest. xgrammar gets it as right-linear rules, outlines as one regular expression.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nprdsl.regular.aho_corasick import NO_WORD, ROOT, aho_corasick
from nprdsl.regular.syntax import (
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
from nprdsl.structure.field_split import BLANKS


@dataclass(frozen=True, slots=True)
class FreeTextState:
    """A state of free text: `node` of the automaton of the tags, the length `begun` of the longest
    tag begun there, and whether the text so far is blank."""

    node: int
    begun: int
    blank: bool


START = FreeTextState(ROOT, 0, True)
OPEN = FreeTextState(ROOT, 0, False)  # not blank, no tag begun: the usual state
Transitions = Mapping[FreeTextState, Mapping[FreeTextState, Chars]]


def free_text(tags: Iterable[str], forbidden: str = "") -> Transitions:
    """Text without `tags` and without any character of `forbidden`.

    Gives for every state the characters that lead on, by next state. Every state that is not blank
    is final.
    """
    tags = tuple(tags)
    automaton = aho_corasick(tags)
    letters = sorted({letter for tag in tags for letter in tag} | set(BLANKS))
    rest = complement(one_of("".join(letters) + forbidden))
    steps: dict[FreeTextState, Mapping[FreeTextState, Chars]] = {}
    pending = [START]
    while pending:
        state = pending.pop()
        if state in steps:
            continue
        named: dict[FreeTextState, str] = {}
        for letter in letters:
            node = automaton.moves[state.node].get(letter, ROOT)
            if automaton.ends[node] == NO_WORD and letter not in forbidden:
                blank = state.blank and letter in BLANKS
                follow = FreeTextState(node, automaton.depths[node], blank)
                named[follow] = named.get(follow, "") + letter
        out = {follow: one_of(text) for follow, text in named.items()}
        out[OPEN] = either([rest, out[OPEN]]) if OPEN in out else rest
        steps[state] = out
        pending.extend(out)
    return steps


def text_regex(text: Transitions, start: FreeTextState) -> Regex:
    """The text from `start` on as one regular expression, by elimination of states.

    With `START` it is not blank; with `OPEN` it may be blank or empty, and is half as long.
    """
    final = FreeTextState(-1, 0, False)
    edges: dict[FreeTextState, dict[FreeTextState, Regex]] = {
        state: dict(follow) for state, follow in text.items()
    }
    for state in edges:
        if not state.blank:
            edges[state][final] = EMPTY
    for state in sorted(edges, key=lambda s: (s.begun, s == OPEN), reverse=True):
        if state != start and state != OPEN:
            _eliminate(edges, state)
    if start != OPEN:
        _eliminate(edges, OPEN)
    return _around(edges[start], start)[final]


def _around(out: dict[FreeTextState, Regex], state: FreeTextState) -> dict[FreeTextState, Regex]:
    """The edges out of `state` with its loop put before each."""
    loop = out.get(state)
    if loop is None:
        return out
    first = Times(loop, 0, None)
    return {follow: concat(first, regex) for follow, regex in out.items() if follow != state}


def _eliminate(
    edges: dict[FreeTextState, dict[FreeTextState, Regex]], state: FreeTextState
) -> None:
    out = _around(edges.pop(state), state)
    for follows in edges.values():
        into = follows.pop(state, None)
        if into is not None:
            for target, regex in out.items():
                path = concat(into, regex)
                known = follows.get(target)
                follows[target] = path if known is None else union(path, known)
