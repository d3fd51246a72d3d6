"""Pages for newcomers: schemas load, Python runs, commands succeed and print what stands there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from nprdsl.cli.main import cli
from nprdsl.schema import load
from tests.documents import DOCS, Block, Printed, blocks, remade, run_python


def run(block: Block, names: dict[str, object]) -> Printed | None:
    match block.language:
        case "lark":
            file = Path(block.title or "example.lark")
            file.write_text(block.body, encoding="utf-8")
            load(file)
        case "python":
            printed = run_python(block, names)
            assert not printed.codes, printed.text
            return printed
        case "sh":
            return Printed("\n".join(command(line) for line in block.body.splitlines()))
    return None


def command(line: str) -> str:
    program, *arguments = line.split()
    assert program == "nprdsl"
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    return result.output.strip("\n")


@pytest.mark.parametrize("page", ["language.md", "libraries.md", "semantics.md", "tutorial.md"])
def test_output_is_real(
    page: str,
    tmp_path: Path,
    golden: Callable[[str | Path, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`pytest tests/test_pages.py --update-golden` writes the outputs anew. A page has one folder
    and one namespace."""
    names: dict[str, object] = {}
    text = (DOCS / page).read_text(encoding="utf-8")
    if "LocalEngine" in text:
        pytest.importorskip("torch")
    if "custom_generate" in text:  # transformers copies such code into a folder of its own
        pytest.importorskip("outlines", reason="pip install outlines")
        hf = "transformers.dynamic_module_utils.HF_MODULES_CACHE"
        monkeypatch.setattr(hf, str(tmp_path / "modules"))
        monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    golden(DOCS / page, remade(text, lambda block: run(block, names)))
    assert {block.language for block in blocks(text)} >= {"lark", "python", "console"}
