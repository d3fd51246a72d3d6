"""docs/errors.md: every error is there, and every example in it shows the error that it is for."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nprdsl.grammar.diagnostics import DiagnosticCode
from nprdsl.structure.violations import ViolationCode
from tests.documents import DOCS, Block, Printed, blocks, remade, run_python, run_schema, run_trace

ROOT = DOCS.parent
DOCUMENT = DOCS / "errors.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
HEADINGS = re.compile(r"^### `(?P<name>[^`]+)`$", re.M)


def entries() -> dict[str, str]:
    """The text of each error's entry, by code or by the name of the exception."""
    parts = HEADINGS.split(TEXT)
    return {
        name: text.split("\n## ")[0] for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def run(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Printed | None:
    match block.language:
        case "lark":
            return run_schema(block.body, folder)
        case "text":
            return run_trace(block.body, block.title)
        case "python":
            monkeypatch.chdir(folder)
            return run_python(block, {})
        case _:
            return None


def test_every_code_has_an_entry_in_its_order() -> None:
    codes = [*DiagnosticCode, *ViolationCode]
    assert [name for name in entries() if name in set(codes)] == codes


@pytest.mark.parametrize("name", entries())
def test_examples_show_the_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = [run(block, tmp_path, monkeypatch) for block in blocks(entries()[name])]
    shown = [p for p in printed if p is not None]
    assert shown, "no example"
    assert [p.codes[:1] for p in shown] == [(name,)] * len(shown)


def test_output_is_real(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Callable[[str | Path, str], None]
) -> None:
    """`pytest tests/test_errors_doc.py --update-golden` writes the outputs anew."""
    golden(DOCUMENT, remade(TEXT, lambda block: run(block, tmp_path, monkeypatch)))


def test_every_exception_is_named() -> None:
    missing = [name for name in exceptions() if f"`{name}`" not in TEXT]
    assert not missing, f"docs/errors.md does not name {', '.join(missing)}"


def exceptions() -> list[str]:
    """The public classes of the package whose first base is an exception."""
    return [
        node.name
        for folder in ("nprdsl", "runtime", "trainers")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        if node.bases and ast.unparse(node.bases[0]).endswith(("Error", "Exception"))
    ]
