"""The token ids of a trace that is known as text, as a generation would have written them.

A legal text is cut where a token must end (forks, branches, joins, what a branch repeats) and
around every stretch without a choice, which the runtime emits as a run of its own; what is between
is spelled as the model's tokenizer would. Other texts are cut at their tags alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from nprdsl.tokens.vocabulary import Vocabulary
from nprdsl.trace.lexemes import tag_pattern
from nprdsl.trace.parser import ParsedText


def spell_text(vocabulary: Vocabulary, text: str, tags: tuple[str, ...]) -> tuple[int, ...]:
    """Any text: tags as their own tokens where there are, the rest piece by piece.

    Raises UnspellableError.
    """
    return _spelled(vocabulary, text, tags, ())


def spell_trace(
    vocabulary: Vocabulary, text: str, tags: tuple[str, ...], parsed: ParsedText
) -> tuple[int, ...]:
    """A legal text, as the parser read it. Raises UnspellableError."""
    seams = {mark.at for mark in parsed.graph_marks()}
    seams |= {at for at, _ in parsed.token_ends} | {at for span in parsed.forced for at in span}
    return _spelled(vocabulary, text, tags, seams)


def _spelled(
    vocabulary: Vocabulary, text: str, tags: tuple[str, ...], seams: Iterable[int]
) -> tuple[int, ...]:
    """The characters `seams` are those before which a token must end."""
    spans = {tag.span() for tag in tag_pattern(tags).finditer(text)}
    inside = {at for start, end in spans for at in range(start + 1, end)}
    edges = {0, len(text), *(at for span in spans for at in span), *seams} - inside
    tokens = vocabulary.tag_tokens(tags)
    ids: list[int] = []
    for start, end in pairwise(sorted(edges)):
        piece = text[start:end]
        token = tokens.get(piece) if (start, end) in spans else None
        ids += vocabulary.encode(piece) if token is None else (token,)
    return tuple(ids)
