"""A published model is the trained one, rounded to bf16."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

import nprdsl
from nprdsl.trainers.curriculum.small_model import publish, write_beginner


def test_a_published_model_is_the_trained_one(tmp_path: Path) -> None:
    write_beginner(tmp_path / "model", nprdsl.load("arith").tags, 0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("kept", encoding="utf-8")
    publish(tmp_path / "model", tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text(encoding="utf-8") == "kept"
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("model", "out"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name].bfloat16(), other[name]) for name in one)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
