"""Two processes, as `accelerate launch` starts them, give the losses of one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.cli.commands import ROOT, environment
from tests.trainers.stages.tiny import Tiny

LAUNCH = ROOT / "configs" / "accelerate" / "cpu.yaml"
# Times differ; which process met the greatest mismatch does too.
OWN = ("seconds", "mismatch")


def ran(command: list[str], folder: Path) -> list[dict[str, float]]:
    """The metrics that a command leaves."""
    done = subprocess.run(
        command, cwd=ROOT, env=environment({}), capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("model  ") == 1  # one process speaks
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(OWN)} for line in lines]


@pytest.mark.parametrize("stage", ["sft", "papo"])
def test_two_processes_give_the_losses_of_one(stage: str, tiny: Tiny, tmp_path: Path) -> None:
    assert yaml.safe_load(LAUNCH.read_text())["num_processes"] == 2
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    tail = ["-m", "nprdsl", "train", stage, "--config"]
    one = ran([sys.executable, *tail, str(tiny.config(stage, alone))], alone)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(LAUNCH)]
    two = ran([*launch, *tail, str(tiny.config(stage, shared))], shared)
    assert len(one) == len(two) >= 4
    for first, second in zip(one, two, strict=True):
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert np.isclose(value, second[name], rtol=1e-4, atol=1e-5), name
    assert one != two  # to rounding: two processes add in another order
