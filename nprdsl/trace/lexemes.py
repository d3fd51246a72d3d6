"""Cutting a trace into lexemes: the content of a field and the tag behind it.

Text is cut at the leftmost occurrence of a tag. Tokens are cut at the special tokens that are tags,
and where they spell a tag that has no special token; prose that spells one that has is a fault.
Each token is known by the characters that it has a part of. Bytes that are not UTF-8 become lone
surrogates, which the matcher of contents reports. The last lexeme of a trace has the tag `END`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nprdsl.structure.field_content import ContentFault
from nprdsl.structure.tag_machine import END
from nprdsl.structure.violations import ViolationCode
from nprdsl.tokens.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Lexeme:
    """Content text[start:end], then `tag` up to `tag_end`; `fault` if the content itself is
    broken."""

    start: int
    end: int
    tag: str
    tag_end: int
    fault: ContentFault | None = None


def tag_pattern(tags: tuple[str, ...]) -> re.Pattern[str]:
    """Matches any tag; none contains another, so the order does not matter."""
    return re.compile("|".join(re.escape(tag) for tag in tags) or r"(?!)")


def text_lexemes(text: str, pattern: re.Pattern[str]) -> Iterator[Lexeme]:
    """The lexemes of a text whose tags are all spelled."""
    at = 0
    for tag in pattern.finditer(text):
        start, end = tag.span()
        yield Lexeme(at, start, tag[0], end)
        at = end
    yield Lexeme(at, len(text), END, len(text))


@dataclass(frozen=True, slots=True)
class TokenText:
    """Token i has a part of text[starts[i]:ends[i]]; several may have parts of one character."""

    text: str
    lexemes: tuple[Lexeme, ...]
    starts: list[int]
    ends: list[int]


def token_text(
    ids: Sequence[int], vocabulary: Vocabulary, tags: tuple[str, ...], *, ended: bool
) -> TokenText:
    """Read the ids of a trace, without its prompt. `ended`: the last one is the end, which is no
    part of the text."""
    body = ids[:-1] if ended else ids
    pieces = [_piece(token, vocabulary) for token in body]
    text, starts, ends = _decode(pieces)
    if ended:
        starts.append(len(text))
        ends.append(len(text))
    lexemes = _token_lexemes(body, text, starts, vocabulary, tags)
    names = vocabulary.special_text
    foreign = {token for token in names.keys() & set(body) if names[token] not in tags}
    if foreign or not all(pieces):
        _blame(body, lexemes, starts, vocabulary, foreign)
    return TokenText(text, tuple(lexemes), starts, ends)


def _piece(token: int, vocabulary: Vocabulary) -> bytes:
    special = vocabulary.special_text.get(token)
    return special.encode() if special is not None else vocabulary.bytes_of(token)


def _decode(pieces: list[bytes]) -> tuple[str, list[int], list[int]]:
    """The text, and for each piece the characters in which it begins and behind which it ends."""
    data = b"".join(pieces)
    text = data.decode("utf-8", "surrogateescape")
    borders = np.cumsum([0, *map(len, pieces)])
    if len(text) == len(data):
        return text, borders[:-1].tolist(), borders[1:].tolist()
    leads = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80
    if np.count_nonzero(leads) != len(text):  # a stray byte is a character of its own
        widths = [len(c.encode("utf-8", "surrogateescape")) for c in text]
        leads = np.zeros(len(data), np.bool_)
        leads[np.cumsum([0, *widths[:-1]])] = True
    begun = np.concatenate([[0], np.cumsum(leads)])[borders]  # characters, at each border
    inside = ~np.concatenate([leads, [True]])[borders]
    return text, (begun - inside)[:-1].tolist(), begun[1:].tolist()


def _token_lexemes(
    ids: Sequence[int], text: str, starts: list[int], vocabulary: Vocabulary, tags: tuple[str, ...]
) -> list[Lexeme]:
    """Cut at the tokens of tags, and between them at the tags that have no token."""
    tokens, pattern = vocabulary.tag_tokens(tags), tag_pattern(tags)
    if not tokens:
        return list(text_lexemes(text, pattern))
    by_id, at = {token: tag for tag, token in tokens.items()}, 0
    lexemes: list[Lexeme] = []
    for number, token in enumerate(ids):
        tag = by_id.get(token)
        if tag is not None:
            start, end = starts[number], starts[number] + len(tag)
            fault = None
            found = pattern.search(text, at, end)
            if found is None or found.start() < start:
                at, fault = _spelled(lexemes, text, at, start, pattern, tokens)
                fault = fault or _spelled_across(text, at, start, end, pattern)
            lexemes.append(Lexeme(at, start, tag, end, fault))
            at = end
    at, fault = _spelled(lexemes, text, at, len(text), pattern, tokens)
    lexemes.append(Lexeme(at, len(text), END, len(text), fault))
    return lexemes


def _spelled(
    lexemes: list[Lexeme],
    text: str,
    at: int,
    end: int,
    pattern: re.Pattern[str],
    tokens: Collection[str],
) -> tuple[int, ContentFault | None]:
    """Add the lexemes of the tags that text[at:end] spells; gives where the content behind them
    begins. A spelled tag of `tokens` is no structure but a fault: prose never is."""
    fault = None
    for found in pattern.finditer(text, at, end):
        tag, start = found[0], found.start()
        if tag not in tokens:
            lexemes.append(Lexeme(at, start, tag, found.end(), fault))
            at, fault = found.end(), None
        elif fault is None:
            message = f"`{tag}` is spelled as text; a tag must be its own token"
            fault = ContentFault(ViolationCode.TAG_OUT_OF_PLACE, start - at, message)
    return at, fault


def _spelled_across(
    text: str, at: int, start: int, end: int, pattern: re.Pattern[str]
) -> ContentFault | None:
    """The fault of content whose end spells a tag together with the tag text[start:end]: the text
    of the trace would be read otherwise."""
    found = pattern.search(text, at, end)
    if found is None or found.start() >= start:
        return None
    message = f"`{found[0]}` is spelled by what stands before `{text[start:end]}` and its beginning"
    return ContentFault(ViolationCode.TAG_OUT_OF_PLACE, found.start() - at, message)


def _blame(
    ids: Sequence[int],
    lexemes: list[Lexeme],
    starts: list[int],
    vocabulary: Vocabulary,
    foreign: Collection[int],
) -> None:
    """Special tokens that are no tags, and ids of no token, may stand nowhere in a trace."""
    ends = [lexeme.tag_end for lexeme in lexemes[:-1]]
    for number, token in enumerate(ids):
        name = vocabulary.special_text.get(token)
        is_known = name is not None or vocabulary.bytes_of(token)
        if is_known and token not in foreign:
            continue
        at = bisect_right(ends, starts[number])  # the lexeme that it stands in, its tag included
        lexeme = lexemes[at]
        if lexeme.fault is None:
            code, message = _foreign(token, name)
            fault = ContentFault(code, starts[number] - lexeme.start, message)
            lexemes[at] = replace(lexeme, fault=fault)


def _foreign(token: int, name: str | None) -> tuple[ViolationCode, str]:
    if name is None:
        return ViolationCode.UNKNOWN_TOKEN, f"the id {token} is no token of the vocabulary"
    message = f"the special token `{name}` may not stand in a trace"
    return ViolationCode.TAG_OUT_OF_PLACE, message
