"""docs/training.md: its files, keys, presets and commands exist."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nprdsl.cli.main import cli
from tests.cli.commands import invoke
from tests.documents import DOCS, Block, Printed, remade

pytest.importorskip("torch")
pytest.importorskip("math_verify")

from pydantic import BaseModel

from nprdsl.trainers import config as configs
from nprdsl.trainers.rewards.presets import PRESETS

ROOT = DOCS.parent
TEXT = (DOCS / "training.md").read_text(encoding="utf-8")
STAGES = (configs.SftConfig, configs.ZeroConfig, configs.PapoConfig, configs.SampleConfig)


def keys() -> set[str]:
    """All keys of all stages, sections and their keys."""
    found: set[str] = set()
    todo: list[type[BaseModel]] = list(STAGES)
    while todo:
        for name, field in todo.pop().model_fields.items():
            found.add(field.alias or name)
            kinds = (field.annotation, *getattr(field.annotation, "__args__", ()))
            todo += [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
    return found


def test_files_exist() -> None:
    named = re.findall(r"\bconfigs/[\w/-]+\.(?:toml|yaml)", TEXT)
    assert len(set(named)) >= 7
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_keys_exist() -> None:
    table = re.search(r"\| section \| of \| keys \|\n(.*?)\n\n", TEXT, re.S)
    assert table is not None
    rows = [line.split("|") for line in table[1].splitlines()[1:]]
    named = [name for row in rows for name in re.findall(r"`([a-z_]+)`", row[1] + row[3])]
    others = {"parallel", "causal", "written", "sampled", "free", "local"} | {
        "dense", "blocks", "segments", "adamw", "muon", "datasets"
    }  # fmt: skip
    assert len(named) > 40
    assert set(named) - others - keys() == set()


def test_plans_are_what_is_printed(
    golden: Callable[[str | Path, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pytest tests/test_training_doc.py --update-golden` writes them anew."""
    monkeypatch.chdir(ROOT)
    ran = list[str]()

    def run(block: Block) -> Printed | None:
        if not block.body.startswith("nprdsl train --plan"):
            return None
        result = invoke(*block.body.split()[1:])
        assert (result.exit_code, result.stderr) == (0, "")
        ran.append(block.body)
        return Printed(result.stdout.rstrip("\n"))

    golden(DOCS / "training.md", remade(TEXT, run))
    assert len(ran) == 2


def test_presets_and_commands_exist() -> None:
    for name in ("zero", "papo", "threadweaver", "parallel_r1"):
        assert f"`{name}`" in TEXT and name in PRESETS
    options = {name for option in cli.commands["train"].params for name in option.opts}
    assert {
        "--config",
        "--set",
        "--json",
        "--restart",
        "--plan",
        "--gpus",
        "--memory",
        "--tflops",
    } <= options
    assert all(name in TEXT for name in ("--set", "--json", "--restart"))
