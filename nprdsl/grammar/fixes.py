"""Edits that carry out a suggestion: made where a fault is found, applied by editors.

A `Fix` is made only where nobody has to think about it: a misspelt name, a line that is missing, a
declaration that nothing uses, a sign that cannot stand.
"""

from __future__ import annotations

from dataclasses import replace

from nprdsl.grammar.declarations import Declare, Definition, SourceFile, inside
from nprdsl.grammar.diagnostics import Fix, Span


def applied(text: str, fix: Fix) -> str:
    """The text with the edit made."""
    span, lines = fix.span, text.split("\n")
    first, last = lines[span.line - 1], lines[span.end_line - 1]
    written = first[: span.column - 1] + fix.text + last[span.end_column - 1 :]
    return "\n".join([*lines[: span.line - 1], written, *lines[span.end_line :]])


def respelt(span: Span, name: str, right: str) -> Fix:
    """Another name in place of the one that a span begins with."""
    end = span.column + len(name)
    return Fix(replace(span, end_line=span.line, end_column=end), right)


def first_line(file: str, line: str) -> Fix:
    """A line in front of all others."""
    return Fix(Span(file, 1, 1, 1, 1), f"{line}\n")


def last_line(source: SourceFile, line: str) -> Fix:
    """A line behind all others."""
    lines = source.text.split("\n")
    number, column = len(lines), len(lines[-1]) + 1
    before = "\n" if lines[-1] else ""
    return Fix(Span(source.file, number, column, number, column), f"{before}{line}\n")


def removed(source: SourceFile, declaration: Definition | Declare) -> Fix:
    """Without a declaration: its lines, or its name where others stand on the line."""
    lines, span = source.text.split("\n"), declaration.span
    if isinstance(declaration, Definition):
        end = max(part.span.end_line for part in inside(declaration.body))
        return _without_lines(source, span.line, max(end, span.end_line))
    line = lines[span.line - 1]
    if (line[: span.column - 1] + line[span.end_column - 1 :]).split() == ["%declare"]:
        return _without_lines(source, span.line, span.line)
    column = len(line[: span.column - 1].rstrip()) + 1
    return Fix(replace(span, column=column), "")


def _without_lines(source: SourceFile, first: int, last: int) -> Fix:
    lines = source.text.split("\n")
    if last < len(lines):
        return Fix(Span(source.file, first, 1, last + 1, 1), "")
    return Fix(Span(source.file, first, 1, last, len(lines[-1]) + 1), "")
