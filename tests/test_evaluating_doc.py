"""docs/evaluating.md: its Python prints what stands there, its commands and suites exist."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nprdsl.cli.main import cli
from tests.documents import DOCS, Block, Printed, blocks, remade, run_python

pytest.importorskip("torch")
pytest.importorskip("math_verify")

DOCUMENT = DOCS / "evaluating.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")


def run(block: Block, names: dict[str, object]) -> Printed:
    printed = run_python(block, names)
    assert not printed.codes, printed.text
    return printed


def test_output_is_real(
    golden: Callable[[str | Path, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pytest tests/test_evaluating_doc.py --update-golden` writes the outputs anew."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    golden(DOCUMENT, remade(TEXT, lambda block: run(block, names)))
    assert {block.language for block in blocks(TEXT)} == {"python", "console"}


def test_options_exist() -> None:
    known = {name for option in cli.commands["eval"].params for name in option.opts}
    named = set(re.findall(r"--[a-z][a-z-]+", TEXT))
    assert len(named) > 12 and named - known == set()


def test_suites_exist() -> None:
    from nprdsl.trainers.evaluate import suites

    (table,) = re.findall(r"## Suites\n\n(.*?)\n\n", TEXT, re.S)
    first_cells = [row.split("|")[1] for row in table.splitlines()[2:]]
    listed = {name for cell in first_cells for name in re.findall(r"`([a-z0-9-]+)`", cell)}
    assert listed == {*suites.GENERATED, *suites.SHIPPED, *suites.ELSEWHERE}
    for name in (*suites.GENERATED, *suites.SHIPPED):
        assert suites.named(name).problems


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT)
    assert links and [link for link in links if not (DOCS / link).exists()] == []
