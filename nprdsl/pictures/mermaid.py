"""Text in Mermaid labels."""

from __future__ import annotations

_CODES = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "\n": "<br/>"}


def escape(text: str) -> str:
    """`text` as the inside of a quoted Mermaid label; a newline becomes a line break."""
    return "".join(_CODES.get(character, character) for character in text)
