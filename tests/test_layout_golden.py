"""The layout of 120 traces, nested ones too, equals tests/golden/layout.json.gz in every entry."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nprdsl

GOLDEN: dict[str, Any] = json.loads(
    gzip.decompress((Path(__file__).parent / "golden" / "layout.json.gz").read_bytes())
)
STYLES = [("npr", "tight"), ("npr", "newline"), ("multiverse", "flat"), ("multiverse", "nested")]


def unpack(rows: Sequence[str]) -> np.ndarray:
    size = len(rows)
    bits = [format(int(row, 16), f"0{size}b") for row in rows]
    return np.array([[bit == "1" for bit in row] for row in bits])


def test_the_file_holds_120_cases() -> None:
    assert len(GOLDEN["cases"]) == 120
    assert {(case["schema"], case["style"]) for case in GOLDEN["cases"]} == set(STYLES)


@pytest.mark.parametrize(("name", "style"), STYLES)
def test_layout_equals_golden(name: str, style: str) -> None:
    tokens = {int(token): text for token, text in GOLDEN["tokens"].items()}
    vocabulary = nprdsl.Vocabulary(tokens=tokens, special=GOLDEN["special"], eos=GOLDEN["eos"])
    bound = nprdsl.load(name).bind(vocabulary)
    cases = [case for case in GOLDEN["cases"] if (case["schema"], case["style"]) == (name, style)]
    for case in cases:
        layout = bound.parse(case["input_ids"], prompt=case["prompt_tokens"]).layout
        assert layout.position.tolist() == case["position_ids"]
        assert np.array_equal(layout.visible(), unpack(case["visible_rows_hex"]))
