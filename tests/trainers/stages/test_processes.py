"""Two or three processes give the figures of one, also as `accelerate launch` starts them."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.cli.commands import ROOT, environment, started
from tests.forked import ranks
from tests.trainers.stages.tiny import Tiny

LAUNCH = ROOT / "configs" / "accelerate" / "cpu.yaml"
OWN = ("seconds", "speed", "mismatch")  # times differ, and so does rounding


def ran(arguments: list[str], *processes: dict[str, str]) -> str:
    """What a command says in so many processes, each with these variables."""
    with ExitStack() as running:
        every = [running.enter_context(started(*arguments, cwd=ROOT, env=e)) for e in processes]
        said = [(one.communicate(), one.returncode) for one in every]
    assert [code for _, code in said] == [0] * len(said), said
    return "".join(out.decode() for (out, _), _ in said)


def launched(arguments: list[str]) -> str:
    """As `ran`, by `accelerate launch` with the configuration that ships."""
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(LAUNCH), "-m", "nprdsl"]
    done = subprocess.run(
        [sys.executable, *launcher, *arguments], cwd=ROOT, env=environment({}),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def metrics(folder: Path) -> list[dict[str, float]]:
    """What a run leaves."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(OWN)} for line in lines]


@pytest.mark.parametrize(("stage", "count"), [("sft", 2), ("zero", 3), ("papo", 3)])
def test_processes_give_the_figures_of_one(
    stage: str, count: int, tiny: Tiny, tmp_path: Path
) -> None:
    """Three share two problems, so one of them has no rows."""
    assert yaml.safe_load(LAUNCH.read_text())["num_processes"] == 2
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    command = ["train", stage, "--config"]
    ran([*command, str(tiny.config(stage, alone))], {})
    arguments = [*command, str(tiny.config(stage, shared))]
    said = launched(arguments) if stage == "sft" else ran(arguments, *ranks(count))
    assert said.count("model  ") == 1  # one process speaks
    one, two = metrics(alone), metrics(shared)
    assert len(one) == len(two) >= 4
    for first, second in zip(one, two, strict=True):
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert np.isclose(value, second[name], rtol=1e-4, atol=1e-5), name
    assert one != two  # to rounding: several processes add in another order
