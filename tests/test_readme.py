"""The first page is true: its example prints what its comments say, its grammar is what ships."""

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import nprdsl
from nprdsl.cli.main import cli
from tests.documents import blocks, run_python

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_prints_its_comments() -> None:
    pytest.importorskip("torch")
    (example,) = [block for block in blocks(README) if block.language == "python"]
    comments = re.findall(r"^# (.*)$", example.body, re.M)
    assert run_python(example, {}).text.splitlines() == comments


def test_the_picture_is_that_of_the_example(tmp_path: Path) -> None:
    """`nprdsl show TRACE --schema arith --tokenizer runtime/models/arith --svg FILE` draws it."""
    pytest.importorskip("torch")
    (example,) = [block for block in blocks(README) if block.language == "python"]
    names: dict[str, Any] = {}
    run_python(example, names)
    trace, picture = tmp_path / "trace.txt", tmp_path / "trace.svg"
    trace.write_text(names["result"].text, encoding="utf-8")
    options = ["--schema", "arith", "--tokenizer", str(ROOT / "runtime/models/arith")]
    shown = CliRunner().invoke(cli, ["show", str(trace), *options, "--svg", str(picture)])
    assert shown.exit_code == 0, shown.output
    drawn = picture.read_text(encoding="utf-8")
    assert drawn == (ROOT / "docs/trace.svg").read_text(encoding="utf-8")
    title = re.search(r"<title>Trace of (\d+) tokens, critical path (\d+),", drawn)
    assert title is not None
    assert f"![{title[1]} tokens, the longest path {title[2]}:" in README


def test_the_grammar_is_the_shipped_one() -> None:
    shipped = (ROOT / "grammars" / "npr.lark").read_text(encoding="utf-8")
    shown = re.findall(r"^    ([a-z]+: .*)$", README, re.M)
    assert len(shown) == 7
    assert all(line in shipped for line in shown)


def test_every_schema_and_linked_file_is_there() -> None:
    assert "npr" in nprdsl.shipped()
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", README)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_no_figure_is_left_open() -> None:
    assert "FIGURES" not in README
