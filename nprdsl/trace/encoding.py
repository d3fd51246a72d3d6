"""The token ids of a trace that is known as text, as a generation would have written them.

A legal text is cut where a token must end (forks, branches, joins, what a branch repeats) and
around every stretch without a choice, which the runtime emits as a run of its own; what is between
is spelled as the model's tokenizer would. Other texts are cut at their tags alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from nprdsl.tokens.vocabulary import Vocabulary
from nprdsl.trace.lexemes import tag_pattern
from nprdsl.trace.parser import Boundary, Forced, Placed
from nprdsl.trace.reading import marks


def spell_text(vocabulary: Vocabulary, text: str, tags: tuple[str, ...]) -> tuple[int, ...]:
    """Any text: tags as special tokens where there are, the rest piece by piece.

    Raises UnspellableError.
    """
    return _spelled(vocabulary, text, tags, ())


def spell_trace(
    vocabulary: Vocabulary, text: str, tags: tuple[str, ...], placed: Sequence[Placed]
) -> tuple[int, ...]:
    """A legal text, of which the parser found `placed`. Raises UnspellableError."""
    return _spelled(vocabulary, text, tags, _seams(placed))


def _seams(placed: Sequence[Placed]) -> set[int]:
    """The characters before which a token must end."""
    found = {mark.at for mark in marks(placed, lambda at: at)}
    for item in placed:
        if isinstance(item.what, (Boundary, Forced)):
            found |= {item.start, item.end}
    return found


def _spelled(
    vocabulary: Vocabulary, text: str, tags: tuple[str, ...], seams: Iterable[int]
) -> tuple[int, ...]:
    found = {tag.span() for tag in tag_pattern(tags).finditer(text)}
    inside = {at for start, end in found for at in range(start + 1, end)}
    edges = {0, len(text), *(at for span in found for at in span), *seams} - inside
    ids: list[int] = []
    for start, end in pairwise(sorted(edges)):
        piece = text[start:end]
        special = vocabulary.special.get(piece) if (start, end) in found else None
        ids += vocabulary.encode(piece) if special is None else (special,)
    return tuple(ids)
