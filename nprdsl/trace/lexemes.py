"""Cutting a trace into lexemes: the content of a field and the tag behind it.

Text is cut at the leftmost occurrence of a tag; tokens are cut at special tokens, or, where the
tags are spelled, as text. The last lexeme of a trace has the tag `END`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from nprdsl.structure.field_content import ContentFault
from nprdsl.structure.tag_machine import END
from nprdsl.structure.violations import ViolationCode


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
    for found in pattern.finditer(text):
        start, end = found.span()
        lexemes.append(Lexeme(at, start, found[0], end))
        at = end
    lexemes.append(Lexeme(at, len(text), END, len(text)))
    return lexemes


def spelled_tag_fault(content: str, pattern: re.Pattern[str]) -> ContentFault | None:
    """The fault of prose that spells a tag where tags are special tokens: prose is never
    structure."""
    found = pattern.search(content)
    if found is None:
        return None
    message = f"`{found[0]}` is spelled as text; a tag must be its special token"
    return ContentFault(ViolationCode.TAG_OUT_OF_PLACE, found.start(), message)
