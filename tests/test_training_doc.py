"""docs/training.md: its files, keys, presets and commands exist."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nprdsl.cli.main import cli
from tests.cli.commands import invoke
from tests.documents import DOCS, Block, Printed, blocks, remade, run_python

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


def test_trainers_of_trl_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is written there, but on few and short traces."""
    pytest.importorskip("trl", minversion="1.16")
    from datasets import Dataset

    from nprdsl import Limits
    from tests.trainers.trl.steps import OTHER, QUESTION, TRACE, llama, tokenizer

    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {
        "examples": [(QUESTION, TRACE), (QUESTION, OTHER)],
        "problems": Dataset.from_dict({"prompt": [QUESTION]}),
        "reward": lambda completions, trace_text, trace_answer, **_: list(map(len, trace_text)),
        "tokenizer": tokenizer(),
    }
    steps = []
    for block in blocks(TEXT):
        if block.language != "python" or "from trl import" not in block.body:
            continue
        names["model"] = llama()
        on_cpu = block.body.replace('Config("run", ', 'Config("run", use_cpu=True, ')
        assert run_python(replace(block, body=on_cpu), names) == Printed("")
        trainer = names["trainer"]
        trainer.args.max_steps = 1
        if "rollout_func" in block.body:
            trainer.rollout_func.limits = Limits(max_tokens=24)
        trainer.train()
        steps.append(trainer.state.global_step)
    assert steps == [1, 1]


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
