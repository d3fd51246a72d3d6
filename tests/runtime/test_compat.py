"""Functions of SGLang looked up in its source: where they stand, and what of them changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nprdsl.runtime.sglang import compat
from nprdsl.runtime.sglang.compat import HookState, SourceTree, compared, main

BASE = """
class Base:
    async def inherited(self, a, *, b: int = 3):
        return a
"""
PART = """
from sglang.base import Base as Root
from sglang.other import moved
if True:
    def conditional(x):
        pass
class Part(Root):
    @staticmethod
    def own(a, b=1):  # a remark
        return a
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    package = tmp_path / "sglang"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "base.py").write_text(BASE)
    (package / "part.py").write_text(PART)
    (package / "other.py").write_text("def moved():\n    return 1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "signature"),
    [
        ("part.Part.own", "def(a, b=1)"),
        ("part.Part.inherited", "async def(self, a, *, b: int=3)"),
        ("part.moved", "def()"),
        ("part.conditional", "def(x)"),
    ],
)
def test_a_function_is_found_where_it_is_defined(folder: Path, name: str, signature: str) -> None:
    found = SourceTree(folder).function(f"sglang.{name}")
    assert found is not None and found.signature == signature


@pytest.mark.parametrize(
    "name", ["part.Part.no", "part.no", "no.no", "part.Part", "part.Part.own.x"]
)
def test_what_is_no_function_is_missing(folder: Path, name: str) -> None:
    assert SourceTree(folder).function(f"sglang.{name}") is None


def test_a_version_is_held_against_the_tested_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [
        f"sglang.part.{name}" for name in ("Part.own", "Part.inherited", "moved", "conditional")
    ]
    tree = SourceTree(folder)
    table = folder / "table.json"
    entries = {}
    for name in names:
        found = tree.function(name)
        assert found is not None
        entries[name] = {"signature": found.signature, "source": found.source}
    table.write_text(json.dumps(entries))
    monkeypatch.setattr(compat, "TABLE", table)
    assert set(compared("1", folder).states.values()) == {HookState.SAME}
    part = PART.replace("return a", "return b").replace("conditional(x)", "conditional(x, y)")
    (folder / "sglang" / "part.py").write_text(part.replace("import moved", "import gone"))
    states = compared("2", folder).states
    assert [states[name] for name in names] == [
        HookState.CHANGED,
        HookState.SAME,
        HookState.MISSING,
        HookState.SIGNATURE,
    ]
    assert main(["2", "--folder", str(folder)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "missing: sglang.part.moved",
        "other signature: sglang.part.conditional",
        "other source: sglang.part.Part.own",
        "| 2 | 3 of 4 | 2 | 1 | no |",
    ]
