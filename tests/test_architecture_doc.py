"""The pages for developers name code that exists, and every word of the glossary once."""

from __future__ import annotations

import ast
import re
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

from tests.documents import DOCS

ROOT = DOCS.parent
GLOSSARY = (DOCS / "glossary.md").read_text(encoding="utf-8")
ARCHITECTURE = (DOCS / "architecture.md").read_text(encoding="utf-8")
LINK = re.compile(r"\[`(?P<name>[\w.]+)`\]\((?P<path>\.\./[^)#]+\.py)\)")
PAGES = sorted(DOCS.glob("*.md"))


def names_in(path: Path) -> set[str]:
    """What a module defines, methods and fields included."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    defined = {n.name for n in nodes if isinstance(n, (ast.ClassDef, ast.FunctionDef))}
    stored = (n for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    return defined | {n.id for n in stored}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_linked_files_exist(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (DOCS / link).exists()] == []


def test_linked_names_are_defined_where_the_link_leads() -> None:
    links = list(LINK.finditer(ARCHITECTURE))
    assert len(links) > 20
    missing = [
        link[0]
        for link in links
        if link["name"].split(".")[-1] not in names_in((DOCS / link["path"]).resolve())
    ]
    assert missing == []


def glossary_rows() -> list[tuple[str, str]]:
    """Word and code of every row."""
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| (`nprdsl[^|]*) \|$", GLOSSARY, re.M)
    assert len(rows) > 50
    return rows


def test_every_word_is_explained_once() -> None:
    words = Counter(word for row, _ in glossary_rows() for word in row.split(", "))
    assert [word for word, count in words.items() if count > 1] == []


@pytest.mark.parametrize(
    "name", sorted({n for _, c in glossary_rows() for n in re.findall("`(.+?)`", c)})
)
def test_the_glossary_names_code_that_exists(name: str) -> None:
    if name.startswith("nprdsl.runtime.local"):
        pytest.importorskip("torch")
    owner, _, attribute = name.rpartition(".")
    try:
        import_module(name)
    except ModuleNotFoundError:
        assert attribute in vars(import_module(owner))
