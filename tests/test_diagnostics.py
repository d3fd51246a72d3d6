"""Every fault of a schema is found where it is, all of a file at once; and rendered for people."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nprdsl.grammar.diagnostics import DiagnosticCode, SchemaError, did_you_mean, summary
from nprdsl.grammar.resolve import read_grammar
from nprdsl.pictures.messages import render_diagnostic
from tests.schema_chunks import Chunk, chunks, compare

CHUNKS = list(chunks())
FOUND_ON_BINDING = {
    DiagnosticCode.UNSPELLABLE_TAG,
    DiagnosticCode.END_TOKEN_TAG,
}
FOUND_WITH_TYPES = {DiagnosticCode.BAD_TERMINAL_TYPE}
FOUND_BESIDE = {DiagnosticCode.BAD_EXAMPLE}


def faults(chunk: Chunk) -> SchemaError | None:
    try:
        read_grammar(chunk.source, file=str(chunk.path), name="chunk", types={})
    except SchemaError as error:
        return error
    return None


@pytest.mark.parametrize("chunk", CHUNKS, ids=str)
def test_faults_are_found_on_their_lines(chunk: Chunk) -> None:
    error = faults(chunk)
    found = error.diagnostics if error is not None else ()
    compare(chunk, [(d.span.line, summary(d)) for d in found])


def test_every_code_is_tested() -> None:
    errors = [error for chunk in CHUNKS if (error := faults(chunk)) is not None]
    seen = {d.code for error in errors for d in error.diagnostics}
    assert set(DiagnosticCode) - seen == FOUND_ON_BINDING | FOUND_WITH_TYPES | FOUND_BESIDE


def test_every_diagnostic_says_the_way_out_in_house_style() -> None:
    for chunk in CHUNKS:
        error = faults(chunk)
        for d in error.diagnostics if error is not None else ():
            assert d.suggestion, summary(d)
            assert d.message[0].islower() or d.message[0] == "`", d.message
            assert not d.message.endswith("."), d.message


ELSEWHERE = FOUND_ON_BINDING | FOUND_WITH_TYPES | FOUND_BESIDE


@pytest.mark.parametrize("code", sorted(set(DiagnosticCode) - ELSEWHERE))
def test_rendered_form(code: DiagnosticCode, golden: Callable[[str, str], None]) -> None:
    """The first fault of each code, as a person sees it."""
    for chunk in CHUNKS:
        error = faults(chunk)
        mine = [d for d in error.diagnostics if d.code == code] if error is not None else []
        if mine:
            sources = {str(chunk.path): chunk.source}
            golden(f"rendering/{code}.txt", render_diagnostic(mine[0], sources) + "\n")
            return
    raise AssertionError(f"no chunk has a fault `{code}`")


def test_did_you_mean_names_the_nearest() -> None:
    assert did_you_mean("blok", ["block", "takeaway"]) == "did you mean `block`?"
    assert did_you_mean("zzz", ["block"]) == ""
