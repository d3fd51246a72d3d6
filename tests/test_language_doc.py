"""docs/language.md: schemas load, Python runs, commands succeed and print what stands there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from nprdsl.cli.main import cli
from nprdsl.schema import load
from tests.documents import DOCS, Block, Printed, blocks, remade, run_python

DOCUMENT = DOCS / "language.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")


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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The document with what its examples really print, in one folder and one namespace."""
    names: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("language"))
        return remade(TEXT, lambda block: run(block, names))


def test_output_is_real(made: str, golden: Callable[[str | Path, str], None]) -> None:
    """`pytest tests/test_language_doc.py --update-golden` writes the outputs anew."""
    golden(DOCUMENT, made)


def test_only_blocks_that_are_tested() -> None:
    kinds = {block.language for block in blocks(TEXT)}
    assert kinds == {"lark", "python", "sh", "console"}
