"""Faults as people see them: the place underlined, whatever the line is like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode, SchemaError, Span
from nprdsl.grammar.resolve import read_grammar
from nprdsl.pictures.messages import (
    render_diagnostic,
    render_schema_error,
    render_trace_error,
    render_violation,
)
from nprdsl.structure.violations import TraceError, Violation, ViolationCode

TRACE = """<guideline>
<plan>1: first</plan>
<plan>2: second</plan>
</guideline>
<step>
1: done</step>
<step>
3: done</step>
"""


def violation(line: int, column: int, suggestion: str = "") -> Violation:
    code, message = ViolationCode.LABEL_MISMATCH, "`3` differs from its item's `2`"
    return Violation(code, message, line, column, "step", 0, suggestion)


def underlined(report: str) -> str:
    """What the first underline of `report` marks."""
    rows = report.split("\n")
    marks = next(i for i, row in enumerate(rows) if set(row.strip(" |")) == {"^"})
    first, last = rows[marks].index("^"), rows[marks].rindex("^")
    return rows[marks - 1][first : last + 1]


def test_violations_of_a_trace(golden: Callable[[str, str], None]) -> None:
    empty = Violation(ViolationCode.EMPTY_TEXT, "TEXT is blank", 7, 1, "step", 0)
    error = TraceError([violation(8, 1, "write `2`: branches follow the items in order"), empty])
    golden("rendering/trace.txt", render_trace_error(error, TRACE, file="trace.txt"))


def test_all_faults_of_a_schema(golden: Callable[[str, str], None], tmp_path: Path) -> None:
    """The schema need not be a file; a file that it imports is read again."""
    (tmp_path / "parts.lark").write_text('note: "<note>" WROD\nWORD: /[a-z]+/\n')
    text = '%import .parts (note)\nstart: blok note\nblock: "<a>" ["<b>"] "<b>"\n'
    with pytest.raises(SchemaError) as caught:
        read_grammar(text, file=str(tmp_path / "typed-in"), name="x", types={})
    golden("rendering/schema.txt", render_schema_error(caught.value))


def test_a_tag_is_underlined_whole() -> None:
    assert underlined(render_violation(violation(2, 1), TRACE)) == "<plan>"
    assert underlined(render_violation(violation(2, 7), TRACE)) == "1"


@pytest.mark.parametrize("before", ["", "x" * 500, "\t\t"])
def test_long_lines_are_cut_around_the_place(before: str) -> None:
    report = render_violation(violation(1, len(before) + 1), before + "<here>" + "y" * 500)
    assert underlined(report) == "<here>"
    assert max(len(row) for row in report.split("\n")) < 110


def test_wide_characters_take_two_columns() -> None:
    report = render_violation(violation(1, 3), "日本<here>")
    assert report.split("\n")[-1].index("^") == len("1 | ") + 4


@pytest.mark.parametrize("line", [1, 9, 40])
def test_a_place_behind_the_text_needs_no_line(line: int) -> None:
    assert "label-mismatch" in render_violation(violation(line, 1), "")
    assert "label-mismatch" in render_violation(violation(line, 7), "one line")


def test_a_span_over_lines_is_marked_to_the_end_of_the_first() -> None:
    span = Span("f.lark", 1, 8, 2, 3)
    diagnostic = Diagnostic(DiagnosticCode.UNDECIDED_CHOICE, span, "two ways")
    report = render_diagnostic(diagnostic, {"f.lark": "start: a b\n  | c\n"})
    assert report.split("\n")[-1] == "  |        ^^^…"


def test_a_file_that_is_not_at_hand_is_named_only() -> None:
    diagnostic = Diagnostic(DiagnosticCode.SYNTAX, Span("gone.lark", 3, 1, 3, 2), "broken")
    assert render_diagnostic(diagnostic, {}) == "error[syntax]: broken\n --> gone.lark:3:1"
