"""A schema's text in the form that the schemas which ship have; nothing but white space changes.

Bodies of rules that stand together begin in one column, further alternatives under them; spaces
between words, at the ends of lines and blank lines are made single. Comments, strings and regular
expressions stay as they are. A text that cannot be read comes back unchanged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.grammar.reader import read

_WORD: Final = re.compile(
    r'"(?:\\.|[^"\\\n])*"i?|/(?!/)(?:\\.|[^/\\\n])*/[imslux]*|(?:(?<=\s)|^)//.*|[ \t]+|[^\s"/]+|.'
)
_DEFINED: Final = re.compile(r"([?!]*_*[a-z]\w*(?:\{[^}]*\})?(?:\.\d+)?)\s*:\s*(.*)", re.S)
_TERMINAL: Final = re.compile(r"([?!]*_*[A-Z]\w*(?:\.\d+)?)\s*:\s*(.*)", re.S)
_CONTINUED: Final = re.compile(r"\\[ ]*\r?\n")  # a line that goes on: its form is the author's
_WIDEST: Final = 24  # a longer name does not push the bodies of its neighbours


@dataclass(slots=True)
class _Line:
    """One line: what it defines, its words, its comment and where that stands."""

    words: str
    comment: str = ""
    comment_column: int = 0
    name: str = ""  # of the rule or terminal that it begins
    is_rule: bool = False
    column: int = 0  # where bodies of its definition begin


def formatted(text: str) -> str:
    """The text in the form of the schemas that ship; formatted again, it is the same."""
    if _CONTINUED.search(text) is not None or not _is_readable(text):
        return text
    lines = [_line(line) for line in text.removeprefix("\ufeff").splitlines()]
    for standing, group in groupby(lines, key=lambda line: bool(line.words or line.comment)):
        if standing:
            _align(list(group))
    written = [_written(line) for line in lines]
    kept = [w for n, w in enumerate(written) if w or (n and written[n - 1])]
    return "\n".join(kept).strip("\n") + "\n" if any(kept) else ""


def _is_readable(text: str) -> bool:
    try:
        read(text, "")
    except SchemaError:
        return False
    return True


def _line(text: str) -> _Line:
    words = [w if not w.isspace() else " " for w in _WORD.findall(text.strip())]
    comment = words.pop() if words and words[-1].startswith("//") else ""
    line = _Line(
        "".join(words).strip(), comment.rstrip(), len(text.rstrip()) - len(comment.rstrip())
    )
    for pattern in (_DEFINED, _TERMINAL):
        if (match := pattern.fullmatch(line.words)) is not None:
            line.name, line.words = match[1] + ":", match[2] or " "
            line.is_rule = pattern is _DEFINED
    return line


def _align(lines: list[_Line]) -> None:
    """Gives lines that stand together the column of their bodies."""
    widths = [len(line.name) for line in lines if line.is_rule and len(line.name) <= _WIDEST]
    common, column = max(widths, default=0) + 1, 0
    for line in lines:
        if line.name:
            column = max(common if line.is_rule else 0, len(line.name) + 1)
        line.column = column


def _written(line: _Line) -> str:
    if line.name:
        code = line.name.ljust(line.column) + line.words
    elif line.words.startswith("|") and line.column:
        code = " " * (line.column - 2) + line.words
    else:
        code = line.words
    code = code.rstrip()
    if not code or not line.comment:
        return code or line.comment
    return f"{code}  ".ljust(line.comment_column) + line.comment
