"""Closing a branch without its model: the fewest tokens that finish what is begun.

Used where a join has enough branches and the others are cut.
"""

from __future__ import annotations

import numpy as np

from nprdsl.masks.automaton import Automaton
from nprdsl.masks.matcher import Matcher
from nprdsl.tokens.bitmask import unpack

_FILLERS = (b".", b"-", b"x", b"0", b"1", b"a")


def closing_tokens(automaton: Automaton, matcher: Matcher) -> tuple[int, ...]:
    """The tokens of the cheapest way to the matcher's next fork or end; it stays where it is."""
    taken: list[int] = []
    matcher = matcher.fork()
    while not matcher.finished and matcher.structure.fork is None:
        run = matcher.forced() or [_closest(automaton, matcher)]
        for token in run:
            matcher.advance(token)
        taken += run
    return tuple(taken)


def _closest(automaton: Automaton, matcher: Matcher) -> int:
    """A token that brings the end nearer: a plain character where any text will do."""
    allowed = unpack(matcher.tight(0), automaton.vocabulary.size)
    for filler in _FILLERS:
        spelled = automaton.vocabulary.spell(filler)
        if spelled is not None and len(spelled) == 1 and allowed[spelled[0]]:
            return spelled[0]
    return int(np.argmax(allowed))
