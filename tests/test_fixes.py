"""Fixes of diagnostics: the edit takes its fault away."""

from __future__ import annotations

import pytest

from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode, SchemaError
from nprdsl.grammar.fixes import applied
from nprdsl.grammar.resolve import read_grammar
from tests.schema_chunks import chunks


def faults(source: str) -> tuple[Diagnostic, ...]:
    try:
        read_grammar(source, file="x.lark", name="x", types={}, imports={})
    except SchemaError as error:
        return error.diagnostics
    return ()


CHUNKS = [(str(chunk), chunk.source) for chunk in chunks() if "imported" not in chunk.source]
FIXED = [
    (f"{name}-{d.code}-{d.span.line}:{d.span.column}", source, d)
    for name, source in CHUNKS
    for d in faults(source)
    if d.fix is not None
]


@pytest.mark.parametrize(("source", "fault"), [f[1:] for f in FIXED], ids=[f[0] for f in FIXED])
def test_the_edit_takes_its_fault_away(source: str, fault: Diagnostic) -> None:
    assert fault.fix is not None
    text = applied(source, fault.fix)
    left = [d.message for d in faults(text) if d.code == fault.code]
    assert left.count(fault.message) < [d.message for d in faults(source)].count(fault.message)


def test_many_kinds_of_faults_have_one() -> None:
    assert {d.code for _, _, d in FIXED} >= {
        DiagnosticCode.SYNTAX,
        DiagnosticCode.UNDEFINED_RULE,
        DiagnosticCode.UNDEFINED_TERMINAL,
        DiagnosticCode.UNUSED_RULE,
        DiagnosticCode.UNUSED_TERMINAL,
        DiagnosticCode.UNSUPPORTED,
    }


@pytest.mark.parametrize(
    ("source", "fixed"),
    [
        ("start: 'a b' \"<x>\"\n", 'start: "a b" "<x>"\n'),
        ('start: <x> "y" <z>\n', 'start: "<x>" "y" <z>\n'),
        ('start ::= "<x>"\n', 'start : "<x>"\n'),
        ('start = "<x>"\n', 'start : "<x>"\n'),
        ('start: "<x>";\n', 'start: "<x>"\n'),
        ('start: "<x>")\n', 'start: "<x>"\n'),
        ('start: "<x>" bod "<y>"\nbody: "<z>"', 'start: "<x>" body "<y>"\nbody: "<z>"'),
        ('start: "<x>" GAOL', 'start: "<x>" GAOL\n%declare GAOL\n'),
        ('start: "<x>"\n%declare A TEXT\n', 'start: "<x>"\n%declare TEXT\n'),
        ('start: "<x>"\nold: "<y>"\n   | "<z>"\n', 'start: "<x>"\n'),
        ('start.2: "<x>"\n', 'start: "<x>"\n'),
    ],
)
def test_the_edit_is_what_an_author_would_write(source: str, fixed: str) -> None:
    fixes = [fault.fix for fault in faults(source) if fault.fix is not None]
    assert applied(source, fixes[0]) == fixed
