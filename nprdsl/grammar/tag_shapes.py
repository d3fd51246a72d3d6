"""What makes a text a tag, and how an author makes one of it.

A string is a tag if it has brackets around text without white space (`<step>`); any other string
becomes one in a terminal named `TAG_…`, whose alternatives are tags each. Where a schema is refused
because something is no tag, `way_to_tag` says how to write it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import chain, count, product
from math import prod
from typing import Final

from nprdsl.grammar.declarations import (
    Alternatives,
    Definition,
    Expansion,
    Expression,
    StringLiteral,
)

TAG_SHAPE: Final = re.compile(r"<[^\s<>]+>|\[[^\s\[\]]+\]|⟨[^\s⟨⟩]+⟩", re.ASCII)
PREFIX: Final = "TAG_"  # of terminals that are tags by name
_SHOWN: Final = 40  # characters of a string in a message
_ESCAPES: Final = str.maketrans({"\n": "\\n", "\r": "\\r", "\t": "\\t"})
_MOST: Final = 1_000  # tags of one terminal
_BRACKETS: Final = re.compile(r"<(?=/?\w)[^<>]*>|[【［＜〈《「『〔⟪].*[】］＞〉》」』〕⟫]", re.S)  # noqa: RUF001


def is_tag(text: str) -> bool:
    """Whether a literal has the shape of a tag: brackets around text without white space."""
    return TAG_SHAPE.fullmatch(text) is not None


def looks_like_a_tag(text: str) -> bool:
    """Whether a reader would take a literal that is no tag for one: other brackets, or white space
    inside them."""
    return not is_tag(text) and _BRACKETS.fullmatch(text) is not None


def promises_tags(definition: Definition) -> bool:
    """Whether a terminal must be tags, by its name in its own file or in the schema."""
    return definition.own_name.startswith(PREFIX) or definition.name.startswith(PREFIX)


def tag_texts(definition: Definition) -> tuple[str, ...]:
    """The tags that are the whole definition of a terminal: one in brackets, or all the strings of
    a terminal named `TAG_…`. None where it is no tag, or strings are not all that it is made of."""
    body = definition.body
    if promises_tags(definition):
        return tuple(dict.fromkeys(_strings(body)))
    if isinstance(body, StringLiteral) and is_tag(body.value) and not body.ignore_case:
        return (body.value,)
    return ()


def _strings(node: Expression) -> list[str]:
    """Every text of `node`; none where they are not written out, or one is empty, or too many."""
    match node:
        case StringLiteral(ignore_case=False):
            return [node.value] if node.value else []
        case Alternatives():
            ways = [_strings(option) for option in node.options]
            return [text for way in ways for text in way] if all(ways) else []
        case Expansion() if node.items:
            parts = [_strings(item) for item in node.items]
            few = prod(map(len, parts)) <= _MOST
            return ["".join(way) for way in product(*parts)] if few else []
        case _:
            return []


# -- ways out --------------------------------------------------------------------------------------


def tag_names(texts: Iterable[str]) -> dict[str, str]:
    """A terminal name for each text of a schema that is no tag by its shape, no two alike, so that
    `way_to_tag` can be followed for one text after the other."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for text in dict.fromkeys(text for text in texts if not is_tag(text)):
        word = re.sub(r"[^A-Z0-9]+", "_", text.upper()).strip("_")[:12].strip("_") or "END"
        numbered = chain([word], (f"{word}_{number}" for number in count(2)))
        names[text] = next(name for name in numbered if name not in taken)
        taken.add(names[text])
    return {text: PREFIX + name for text, name in names.items()}


def way_to_tag(text: str, names: Mapping[str, str]) -> str:
    """How the author of `text`, which is no tag, gets one; `names` are the schema's `tag_names`."""
    stripped, tags = text.strip(), TAG_SHAPE.findall(text)
    if len(tags) > 1 and not TAG_SHAPE.sub("", text).strip():
        between = " _NL " if re.search(r"\s", stripped) else " "
        written = between.join(f'"{tag}"' for tag in tags)
        return f"one string is one tag: write `{written}`"
    if is_tag(stripped):
        front = text[0].isspace()
        place = "in front of it" if front else "to the front of the element that follows"
        return f'white space is no part of a tag: write `"{stripped}"`, and move the rest {place}'
    written = shown(text.replace("\\", "\\\\").replace('"', '\\"'))
    named = f'a terminal named `TAG_…` makes a tag of any string: `{names[text]}: "{written}"`'
    if re.fullmatch(r"</?\w[^<>]*", stripped):
        named += "; a value in a tag is a terminal behind it, and no closing tag can repeat it"
    return named


def shown(text: str) -> str:
    """A string as a message shows it: in short, on one line."""
    cut = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return cut.translate(_ESCAPES)
