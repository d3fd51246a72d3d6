"""docs/smol.md: its Python prints what stands there, and its links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.documents import DOCS, remade, run_python

pytest.importorskip("transformers")

DOCUMENT = DOCS / "smol.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")


def test_output_is_real(golden: Callable[[str | Path, str], None]) -> None:
    """`pytest tests/trainers/smol/test_smol_doc.py --update-golden` writes the output anew."""
    names: dict[str, object] = {}
    shown = remade(TEXT, lambda one: run_python(one, names) if one.language == "python" else None)
    assert "Error:" not in shown
    golden(DOCUMENT, shown)


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT)
    assert links and [link for link in links if not (DOCS / link).exists()] == []
