"""Cutting a trace into lexemes: the content of a field and the tag behind it.

Text is cut at the leftmost occurrence of a tag. Tokens are cut at special tokens, and prose that
spells a tag is a fault; where the vocabulary has no special tokens for tags they are cut as text,
with the character at which each token begins. Bytes that are not UTF-8 become lone surrogates,
which the matcher of contents reports. The last lexeme of a trace has the tag `END`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from nprdsl.structure.field_content import ContentFault
from nprdsl.structure.tag_machine import END
from nprdsl.structure.violations import ViolationCode
from nprdsl.tokens.vocabulary import Vocabulary


class TagMode(StrEnum):
    """How tags stand among the tokens of a vocabulary."""

    SPECIAL = "special"  # every tag is one special token
    TEXT = "text"  # tags are spelled


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


def text_lexemes(text: str, pattern: re.Pattern[str]) -> list[Lexeme]:
    lexemes, at = [], 0
    for tag in pattern.finditer(text):
        start, end = tag.span()
        lexemes.append(Lexeme(at, start, tag[0], end))
        at = end
    lexemes.append(Lexeme(at, len(text), END, len(text)))
    return lexemes


def spelled_tag_fault(content: str, pattern: re.Pattern[str]) -> ContentFault | None:
    """The fault of prose that spells a tag where tags are special tokens: prose is never
    structure."""
    tag = pattern.search(content)
    if tag is None:
        return None
    message = f"`{tag[0]}` is spelled as text; a tag must be its special token"
    return ContentFault(ViolationCode.TAG_OUT_OF_PLACE, tag.start(), message)


@dataclass(frozen=True, slots=True)
class TokenText:
    """`starts[i]` is the character offset at which token i begins in `text`."""

    text: str
    lexemes: tuple[Lexeme, ...]
    starts: list[int]


def token_text(
    ids: Sequence[int], vocabulary: Vocabulary, tags: tuple[str, ...], mode: TagMode
) -> TokenText:
    """Read the ids of a trace, without its prompt; an end token at the end is no part of the
    text."""
    ended = bool(ids) and ids[-1] == vocabulary.eos_id
    body = ids[:-1] if ended else ids
    pieces = [_piece(token, vocabulary) for token in body]
    text, starts = _decode(pieces)
    if ended:
        starts.append(len(text))
    if mode is TagMode.TEXT:
        lexemes = text_lexemes(text, tag_pattern(tags))
    else:
        lexemes = _special_lexemes(body, text, starts, vocabulary, tags)
    return TokenText(text, tuple(_with_foreign(body, lexemes, starts, vocabulary, tags)), starts)


def _piece(token: int, vocabulary: Vocabulary) -> bytes:
    special = vocabulary.special_text.get(token)
    return special.encode() if special is not None else vocabulary.bytes_of(token)


def _decode(pieces: list[bytes]) -> tuple[str, list[int]]:
    data = b"".join(pieces)
    text = data.decode("utf-8", "surrogateescape")
    lengths = np.array([len(p) for p in pieces], np.int64)
    begins = np.concatenate([[0], np.cumsum(lengths)])[:-1] if pieces else lengths
    if len(text) != len(data):
        leads = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80
        if np.count_nonzero(leads) != len(text):  # a stray byte is a character of its own
            widths = [len(c.encode("utf-8", "surrogateescape")) for c in text]
            leads = np.zeros(len(data), np.bool_)
            leads[np.cumsum([0, *widths[:-1]])] = True
        characters = np.concatenate([[0], np.cumsum(leads)])
        begins = np.minimum(characters[begins], len(text))
    return text, begins.tolist()


def _special_lexemes(
    ids: Sequence[int], text: str, starts: list[int], vocabulary: Vocabulary, tags: tuple[str, ...]
) -> list[Lexeme]:
    by_id = {vocabulary.special[tag]: tag for tag in tags}
    pattern = tag_pattern(tags)
    lexemes, at = [], 0
    for number, token in enumerate(ids):
        tag = by_id.get(token)
        if tag is not None:
            start = starts[number]
            fault = spelled_tag_fault(text[at:start], pattern)
            lexemes.append(Lexeme(at, start, tag, start + len(tag), fault))
            at = start + len(tag)
    fault = spelled_tag_fault(text[at:], pattern)
    lexemes.append(Lexeme(at, len(text), END, len(text), fault))
    return lexemes


def _with_foreign(
    ids: Sequence[int],
    lexemes: list[Lexeme],
    starts: list[int],
    vocabulary: Vocabulary,
    tags: tuple[str, ...],
) -> list[Lexeme]:
    """Special tokens that are no tags may stand nowhere in a trace."""
    foreign = [
        (starts[n], vocabulary.special_text[t])
        for n, t in enumerate(ids)
        if t in vocabulary.special_text and vocabulary.special_text[t] not in tags
    ]
    for at, text in foreign:
        for number, lexeme in enumerate(lexemes):
            if lexeme.start <= at <= lexeme.end and lexeme.fault is None:
                message = f"the special token `{text}` may not stand in a trace"
                code = ViolationCode.TAG_OUT_OF_PLACE
                fault = ContentFault(code, at - lexeme.start, message)
                lexemes[number] = replace(lexeme, fault=fault)
                break
    return lexemes
