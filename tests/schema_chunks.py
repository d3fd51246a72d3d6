"""Schema files split at `---` lines; `### "regex"` marks a fault that is expected on its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SCHEMAS = Path(__file__).parent / "schemas"
_EXPECTED = re.compile(r'### "(?P<regex>.*?)"(?=\s*(?:###|$))')

_COMMENT = re.compile(r"[ ]*// ###.*$", re.M)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One schema, without expectations; line numbers are those of the file."""

    path: Path
    line: int
    source: str
    expected: tuple[tuple[int, str], ...]  # line, regex

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line}"


def chunks() -> Iterator[Chunk]:
    """All chunks of all files in tests/schemas/."""
    for path in sorted(SCHEMAS.glob("*.lark")):
        line = 1
        for text in re.split(r"^---\n", path.read_text(encoding="utf-8"), flags=re.M):
            rows = text.split("\n")
            expected = tuple(
                (line + i, m["regex"])
                for i, row in enumerate(rows)
                for m in _EXPECTED.finditer(row)
            )
            bare = _COMMENT.sub("", text)
            yield Chunk(path, line, "\n" * (line - 1) + bare, expected)
            line += len(rows) - (1 if text.endswith("\n") else 0)
            line += 1


def compare(chunk: Chunk, found: list[tuple[int, str]]) -> None:
    """Every fault that was found was expected, and every expected one was found."""
    open_ones = list(chunk.expected)
    for line, message in found:
        match = next((e for e in open_ones if e[0] == line and re.search(e[1], message)), None)
        assert match is not None, f"{chunk.path.name}:{line}: unexpected: {message}"
        open_ones.remove(match)
    assert not open_ones, f"expected, but not found: {open_ones}"
