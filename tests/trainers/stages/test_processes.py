"""Two or three processes give the figures of one, also as `accelerate launch` starts them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate.commands.launch import main
from safetensors.torch import load_file

from tests.cli.commands import ROOT, environment
from tests.forked import command, forked, ranks
from tests.trainers.stages import variables
from tests.trainers.stages.sharded import sharded
from tests.trainers.stages.tiny import Tiny

LAUNCH = ROOT / "configs" / "accelerate" / "cpu.yaml"
SHARD = LAUNCH.with_name("fsdp2.yaml")
OWN = ("seconds", "speed", "mismatch")  # times differ, and so does rounding


def ran(
    arguments: list[str], *processes: dict[str, str], work: Callable[..., object] = command
) -> str:
    """What a command says in so many processes, each with these variables."""
    with ExitStack() as running:
        every = [
            running.enter_context(forked(work, *arguments, cwd=ROOT, env=environment(env)))
            for env in processes
        ]
        said = [(one.communicate(), one.returncode) for one in every]
    assert [code for _, code in said] == [0] * len(said), said
    return "".join(out.decode() for (out, _), _ in said)


def launch(*arguments: str) -> None:
    """`accelerate launch` with these arguments."""
    sys.argv = ["accelerate launch", *arguments]
    main()


def launched(*arguments: str, file: Path) -> str:
    """What processes say that `accelerate launch` starts with a configuration that ships."""
    return ran(["--config_file", str(file), *arguments], {}, work=launch)


@pytest.fixture(scope="module")
def sharing() -> dict[str, str]:
    """What `accelerate launch` tells processes that are to share out weights."""
    told = ["-m", variables.__name__]
    said = launched("--num_processes", "2", "--mixed_precision", "no", *told, file=SHARD)
    first, second = (json.loads(line) for line in said.splitlines())
    names = [name for name in first if name.startswith(("ACCELERATE_", "FSDP_"))]
    assert [first[name] for name in names] == [second[name] for name in names]
    assert first["RANK"] != second["RANK"]
    return {name: first[name] for name in names}


def metrics(folder: Path) -> list[dict[str, float]]:
    """What a run leaves."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(OWN)} for line in lines]


def same_figures(alone: Path, shared: Path) -> None:
    one, two = metrics(alone), metrics(shared)
    assert len(one) == len(two) >= 4
    for first, second in zip(one, two, strict=True):
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert np.isclose(value, second[name], rtol=1e-4, atol=1e-5), name
    assert one != two  # to rounding: several processes add in another order


@pytest.mark.parametrize(("stage", "count"), [("sft", 2), ("zero", 3), ("papo", 3)])
def test_processes_give_the_figures_of_one(
    stage: str, count: int, tiny: Tiny, tmp_path: Path
) -> None:
    """Three share two problems, so one of them has no rows."""
    assert yaml.safe_load(LAUNCH.read_text())["num_processes"] == 2
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    begin = ["train", stage, "--config"]
    ran([*begin, str(tiny.config(stage, alone))], {})
    arguments = [*begin, str(tiny.config(stage, shared))]
    if stage == "sft":
        said = launched("-m", "nprdsl", *arguments, file=LAUNCH)
    else:
        said = ran(arguments, *ranks(count))
    assert said.count("model  ") == 1  # one process speaks
    same_figures(alone, shared)


@pytest.mark.parametrize("stage", ["sft", "zero", "papo"])
def test_processes_that_share_out_the_weights_give_the_figures_of_one(
    stage: str, sharing: dict[str, str], tiny: Tiny, tmp_path: Path
) -> None:
    """As configs/accelerate/fsdp2.yaml asks for it, with layers checkpointed. Each samples with a
    whole copy of the weights; held-out problems are shared out, too."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    asked = {
        "evaluation__data__source": str(tiny.problems), "evaluation__every": 2,
        "evaluation__samples": 2, "evaluation__temperature": 1.0, "evaluation__max_tokens": 60,
    }  # fmt: skip
    begin = ["train", stage, "--config"]
    ran([*begin, str(tiny.config(stage, alone, **asked))], {})
    arguments = [*begin, str(tiny.config(stage, shared, **asked))]
    said = ran(arguments, *(env | sharing for env in ranks(3)), work=sharded)
    assert said.count("model  ") == 1
    same_figures(alone, shared)
    assert any("eval/tokens" in row for row in metrics(shared))
    saved = [load_file(f / "model" / "model.safetensors") for f in (alone, shared)]
    assert saved[0].keys() == saved[1].keys()
    assert all(torch.allclose(w, saved[1][name], atol=1e-4) for name, w in saved[0].items())
