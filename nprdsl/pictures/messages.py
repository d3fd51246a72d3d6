"""Error messages for people: diagnostics of a schema and violations of a trace as plain text.

The form is that of rustc and Elm: the code and the rule that was broken, the place, the line
with the place underlined, other places that matter, the way out. No colour; widths count
terminal columns.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from nprdsl.grammar.diagnostics import Diagnostic, SchemaError, Span
from nprdsl.grammar.tag_shapes import TAG_SHAPE
from nprdsl.structure.violations import TraceError, Violation

WIDTH: Final = 100  # columns of source that are shown; a longer line is cut around the place


def render_schema_error(error: SchemaError) -> str:
    """Every diagnostic of `error`, one after another, and their number."""
    files = {d.span.file for d in error.diagnostics}
    files |= {span.file for d in error.diagnostics for span, _ in d.related}
    sources = {file: _source(file, error.source) for file in files}
    return _counted([render_diagnostic(d, sources) for d in error.diagnostics])


def render_diagnostic(diagnostic: Diagnostic, sources: Mapping[str, str]) -> str:
    """One diagnostic; `sources` holds the text of every file that it names."""
    spans = [(diagnostic.span, ""), *diagnostic.related]
    gutter = len(str(max(span.line for span, _ in spans)))
    lines = [f"error[{diagnostic.code}]: {diagnostic.message}"]
    for span, note in spans:
        where = f"{Path(span.file).name}:{span.line}:{span.column}"
        lines.append(f"{' ' * gutter}--> {where}" + (f": {note}" if note else ""))
        lines += _excerpt(sources.get(span.file, ""), span, gutter)
    if diagnostic.suggestion:
        lines.append(f"{' ' * gutter} = help: {diagnostic.suggestion}")
    return "\n".join(lines)


def render_trace_error(error: TraceError, text: str, *, file: str = "trace") -> str:
    """Every violation of `error` in the trace `text`, and their number."""
    return _counted([render_violation(v, text, file=file) for v in error.violations])


def render_violation(violation: Violation, text: str, *, file: str = "trace") -> str:
    """One violation of the trace `text`; its tag is underlined where it stands at a tag."""
    line, column = violation.line, violation.column
    source = text.split("\n")
    tag = TAG_SHAPE.match(source[line - 1], column - 1) if line <= len(source) else None
    end = tag.end() + 1 if tag else column + 1
    gutter = len(str(line))
    where = f"{file}:{line}:{column}"
    lines = [f"error[{violation.code}]: {violation.message}"]
    lines.append(f"{' ' * gutter}--> {where}, in `{violation.rule}`")
    lines += _excerpt(text, Span(file, line, column, line, end), gutter)
    if violation.suggestion:
        lines.append(f"{' ' * gutter} = help: {violation.suggestion}")
    return "\n".join(lines)


def _counted(reports: list[str]) -> str:
    count = "1 error" if len(reports) == 1 else f"{len(reports)} errors"
    return "\n\n".join([*reports, count]) + "\n"


def _source(file: str, text: str) -> str:
    """The text of a file that was imported is read again; the schema's own is `text`."""
    path = Path(file)
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else text


def _excerpt(source: str, span: Span, gutter: int) -> list[str]:
    """The first line of `span`, underlined; a span over several lines ends with `…`."""
    lines = source.split("\n")
    if not source or span.line > len(lines):
        return []
    line = lines[span.line - 1].rstrip("\r")
    start = span.column - 1
    several = span.end_line > span.line
    end = len(line) if several else max(span.end_column - 1, start + 1)
    shift = max(0, min(start - WIDTH // 3, len(line) - WIDTH))
    shown = line[shift : shift + WIDTH]
    before, after = "…" if shift else "", "…" if shift + WIDTH < len(line) else ""
    end = max(start + 1, min(end, shift + WIDTH))
    indent = _columns(before + line[shift:start])
    marks = "^" * max(1, _columns(line[start:end]))
    bar = f"{' ' * gutter} |"
    return [
        bar,
        f"{span.line:>{gutter}} | {_visible(before + shown + after)}".rstrip(),
        f"{bar} {' ' * indent}{marks}{'…' if several else ''}",
    ]


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() else " " if c == "\t" else "�" for c in text)


def _columns(text: str) -> int:
    """Terminal columns: wide characters take two, combining marks none."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) != 0 for c in text)
