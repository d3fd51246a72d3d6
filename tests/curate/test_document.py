"""docs/curating.md: commands succeed and print what stands there, against a scripted model."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import curator
from tests.cli.commands import invoke
from tests.curate.oracle import MATH, math_chains, math_oracle
from tests.curate.server import scripted
from tests.documents import DOCS, Block, Printed, blocks, remade, run_python

DOCUMENT = DOCS / "curating.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
ENDPOINT = "http://127.0.0.1:30000"
(EXAMPLE,) = [row for row in math_chains() if row["id"] == "number_theory/1055"]


def run(block: Block, url: str) -> Printed | None:
    match block.language:
        case "sh":
            return Printed(command(block.body.strip().replace(ENDPOINT, url)))
        case "python":
            names: dict[str, object] = {
                "PROMPT": EXAMPLE["prompt"],
                "THOUGHT": EXAMPLE["solution"],
            }
            local = Block(block.info, block.body.replace(ENDPOINT, url), block.line)
            return run_python(local, names)
        case "json":
            assert [*json.loads(block.body)] == ["id", "prompt", "trace", "schema", "curated"]
    return None


def command(line: str) -> str:
    if line == "python -m benchmarks.curator":
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            curator.main()
        return printed.getvalue().rstrip("\n")
    program, *arguments = line.split()
    assert program == "nprdsl"
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.rstrip("\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The document with what its examples really print, in one folder."""
    folder = tmp_path_factory.mktemp("curating")
    shutil.copy(MATH / "chains.jsonl", folder)
    with pytest.MonkeyPatch.context() as patch, scripted(math_oracle()) as server:
        patch.chdir(folder)
        return remade(TEXT, lambda block: run(block, server.url))


def test_output_is_real(made: str, golden: Callable[[str | Path, str], None]) -> None:
    """`pytest tests/curate/test_document.py --update-golden` writes the outputs anew."""
    golden(DOCUMENT, made)


def test_only_blocks_that_are_tested() -> None:
    assert {block.language for block in blocks(TEXT)} == {"sh", "console", "json", "python"}


def test_every_number_in_the_prose_is_that_of_the_output(made: str) -> None:
    assert "ten chains                         8         9" in made
