"""One step of PAPO with a server on this CPU: a random model of 0.5 B, its rollouts by
`nprdsl serve`, its weights by the trainer's own way.

    .venv-sglang/bin/python -m benchmarks.papo_step [--tp-size N]

Two problems of four samples, in fp32 on both sides. Rewards are drawn, so that there is a gradient
although a random model is never right. Printed are the seconds of each part (weights to all ranks,
rollouts, update), by how much log-probabilities of server and trainer differ, and the most memory
of the trainer and of all processes of the server.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from subprocess import Popen
from tempfile import TemporaryDirectory

import psutil
from rich.console import Console

from benchmarks.weights_update import MB, below, make_model, own_memory, watched
from nprdsl.runtime.sglang import cpu
from nprdsl.runtime.sglang.launch import Server, command

CONFIGURATION = """
schema = "arith"
reward = "random"
steps = 1
[model]
path = "{folder}/model"
dtype = "fp32"
[data]
source = "{folder}/problems.jsonl"
[rollout]
prompts = 2
samples = 4
max_tokens = 60
[engine]
address = "{url}"
[optimizer]
learning_rate = 1e-6
[run]
output = "{folder}/run"
precision = "no"
room = 512
tensorboard = false
"""
SHOWN = ("seconds/", "mismatch/", "gradient_norm", "rollout/tokens")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tp-size", type=int, default=1)
    parser.add_argument("--port", type=int, default=31_000)
    asked = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_model(folder / "model")
        rows = [{"prompt": f"{n}+{n}?", "answer": str(2 * n)} for n in (17, 25)]
        (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        cores = sorted(os.sched_getaffinity(0))
        bound = (str(cores[rank % len(cores)]) for rank in range(asked.tp_size))
        os.environ["SGLANG_CPU_OMP_THREADS_BIND"] = "|".join(bound)
        options = ["--tp-size", str(asked.tp_size), "--port", str(asked.port)]
        options += ["--dtype", "float32", "--mem-fraction-static", "0.4"]
        server = Server(command(str(folder / "model"), options, cuda=cpu.has_cuda()))
        try:
            server.ready(lambda: None)
            step(folder, server.command.url, below(os.getpid()))
        finally:
            server.stop()


def step(folder: Path, url: str, served: list[int]) -> None:
    """Trains in a process of its own, whose memory is its own."""
    file = folder / "papo.toml"
    file.write_text(CONFIGURATION.format(folder=folder, url=url))
    arguments = [sys.executable, "-m", "nprdsl", "train", "papo", "--config", str(file)]
    kinds = {"server": lambda: own_memory(served)}
    with Popen(arguments) as trainer:
        kinds["trainer"] = lambda: own_memory([trainer.pid, *_below(trainer.pid)])
        with watched(kinds) as peaks:
            code = trainer.wait()
    if code:
        raise SystemExit(code)
    (line,) = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    console = Console()
    for name, value in json.loads(line).items():
        if name.startswith(SHOWN):
            console.print(f"{name} {value:.3g}")
    for name, most in peaks.most.items():
        console.print(f"most memory on top, {name} {most / MB:,.0f} MB")


def _below(pid: int) -> list[int]:
    try:
        return below(pid)
    except psutil.NoSuchProcess:
        return []


if __name__ == "__main__":
    main()
