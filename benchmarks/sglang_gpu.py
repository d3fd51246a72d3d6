"""The SGLang runtime on a machine with CUDA: is it right there, and what do branches gain?

    python -m benchmarks.sglang_gpu [MODEL] [--backends flashinfer fa3] [--branches 1 2 4 8]
                                    [--batches 1 4 16 64] [--tokens 256] [--json FILE]

MODEL is a folder or a name on the hub; without it a random model of 0.5 B parameters is made. CUDA
graphs are on. For each attention backend, on a server of its own:

correctness   log-probabilities of every sampled token of traces with 1 to 8 branches, beside those
              of one dense forward of `transformers` over the same ids with the layout's mask and
              positions; fails where a median differs by more than `--tolerance`, which has to hold
              what bf16 rounds, or where the control, a causal mask, does not differ by more
speed         tokens per second and mean seconds to an answer, for each number of branches and each
              batch, of forking requests and of plain ones of the same server that write as many
              tokens one after another; in turn, medians

Ends with status 1 where a check failed. Non-goals: a CPU (see `benchmarks.sglang_cpu`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.sglang_runs import Runs, Shape, Size, Taken, forking, make_model, prompts, schema
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.runtime.sglang.protocol import TraceReport
from nprdsl.tokens.vocabulary import Vocabulary
from nprdsl.trace.trace import TokenTrace

BACKENDS = ("flashinfer", "fa3")
MODEL = Size(hidden=1536, layers=16)
CHECKED = (1, 2, 3, 8)  # branches
CHECKED_TOKENS = 48


@dataclass(frozen=True, slots=True)
class Difference:
    """Of log-probabilities of sampled tokens from those of a dense forward, in nats; `control` is
    the median for a plain causal mask and positions that count all."""

    backend: str
    branches: int
    tokens: int
    median: float
    greatest: float
    control: float

    def fault(self, tolerance: float) -> str:
        """What is wrong; "" if nothing is. One branch after the prompt is causal anyway."""
        if self.median > tolerance:
            return f"the median difference is {self.median:.4f}, more than {tolerance}"
        if self.branches > 1 and self.control <= 2 * self.median:
            return f"a causal mask differs by {self.control:.4f} only: nothing was tested"
        return ""


@dataclass(frozen=True, slots=True)
class Speed:
    """Medians of forking requests, and of plain ones with as many tokens."""

    backend: str
    branches: int
    batch: int
    tokens_per_s: float
    plain_tokens_per_s: float
    answer_s: float
    plain_answer_s: float

    @property
    def throughput_ratio(self) -> float:
        return self.tokens_per_s / self.plain_tokens_per_s

    @property
    def answer_ratio(self) -> float:
        """How much sooner an answer is there."""
        return self.plain_answer_s / self.answer_s


# -- correctness -----------------------------------------------------------------------------------


class Oracle:
    """A dense forward of the same weights, in eager attention with a mask of floats."""

    def __init__(self, model: str, dtype: torch.dtype, device: str) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(
            model, dtype=dtype, attn_implementation="eager"
        )
        self._model.to(device).eval()
        self._device = device

    def logprobs(
        self, ids: Sequence[int], positions: np.ndarray[Any, Any], seen: np.ndarray[Any, Any]
    ) -> torch.Tensor:
        """Float32 `[entries, vocabulary]`; `seen` bool `[entries, entries]`."""
        lowest = torch.finfo(self._model.dtype).min
        mask = torch.zeros(seen.shape, dtype=self._model.dtype, device=self._device)
        mask.masked_fill_(~torch.tensor(seen, device=self._device), lowest)
        with torch.inference_mode():
            output = self._model(
                torch.tensor([list(ids)], device=self._device),
                attention_mask=mask[None, None],
                position_ids=torch.tensor(positions[None].astype(np.int64), device=self._device),
                use_cache=False,
            )
        return torch.log_softmax(output.logits[0].float(), dim=-1).cpu()


def differences(
    oracle: Oracle, trace: TokenTrace, report: TraceReport, *, causal: bool
) -> list[float]:
    """Of every sampled token. With `causal` the oracle is asked the wrong question."""
    layout = trace.layout
    ids = np.array(trace.ids)[layout.token]
    seen, positions = layout.visible(), layout.position
    if causal:
        told = oracle.logprobs(ids.tolist(), np.arange(len(ids)), np.tri(len(ids), dtype=np.bool_))
    else:
        told = oracle.logprobs(ids.tolist(), positions, seen)
    found = []
    for entry in range(layout.prompt, len(ids)):
        ours = report.logprobs[layout.token[entry] - layout.prompt]
        if ours is not None and layout.sampled[entry]:
            before = int(np.flatnonzero(seen[entry, :entry])[-1])
            found.append(abs(ours - float(told[before, ids[entry]])))
    return found


def correctness(
    backend: str, runs: Runs, oracle: Oracle, vocabulary: Vocabulary, branches: Sequence[int]
) -> list[Difference]:
    bound: BoundSchema = schema(CHECKED_TOKENS).bind(vocabulary)
    found = []
    for count in branches:
        right: list[float] = []
        control: list[float] = []
        shape = Shape(count, CHECKED_TOKENS, batch=4)
        for seed, prompt in enumerate(prompts(shape, 26, count)):
            report = runs.report(prompt, forking(shape, seed=seed))
            trace = bound.parse([*prompt, *report.ids], prompt=len(prompt))
            right += differences(oracle, trace, report, causal=False)
            control += differences(oracle, trace, report, causal=True)
        found.append(
            Difference(
                backend, count, len(right), statistics.median(right), max(right),
                statistics.median(control),
            )
        )  # fmt: skip
    return found


# -- speed -----------------------------------------------------------------------------------------


def speed(backend: str, runs: Runs, shape: Shape, repeats: int) -> Speed:
    """Forking and plain requests in turn; the first turn warms up, graphs included."""
    length = runs.fork(shape).tokens // shape.batch
    forked: list[Taken] = []
    plain: list[Taken] = []
    runs.plain(shape, length)
    for turn in range(1, repeats + 1):
        forked.append(runs.fork(shape, seed=turn))
        plain.append(runs.plain(shape, length, seed=turn))
    return Speed(
        backend=backend,
        branches=shape.branches,
        batch=shape.batch,
        tokens_per_s=statistics.median(run.tokens_per_s for run in forked),
        plain_tokens_per_s=statistics.median(run.tokens_per_s for run in plain),
        answer_s=statistics.median(run.answer_s for run in forked),
        plain_answer_s=statistics.median(run.answer_s for run in plain),
    )


# -- what is printed -------------------------------------------------------------------------------


def show(
    console: Console, right: Sequence[Difference], fast: Sequence[Speed], tolerance: float
) -> None:
    table = Table("backend", "branches", "tokens", "median", "greatest", "causal", "fault")
    for d in right:
        numbers = (f"{value:.5f}" for value in (d.median, d.greatest, d.control))
        table.add_row(d.backend, str(d.branches), str(d.tokens), *numbers, d.fault(tolerance))
    console.print(table)
    table = Table("backend", "branches", "batch", "tokens/s", "plain", "", "answer", "plain", "")
    for s in fast:
        table.add_row(
            s.backend,
            str(s.branches),
            str(s.batch),
            f"{s.tokens_per_s:.0f}",
            f"{s.plain_tokens_per_s:.0f}",
            f"{s.throughput_ratio:.2f} x",
            f"{s.answer_s:.3f} s",
            f"{s.plain_answer_s:.3f} s",
            f"{s.answer_ratio:.2f} x",
        )
    console.print(table)


def _counts(parser: argparse.ArgumentParser, name: str, default: Sequence[int], most: int) -> None:
    def count(text: str) -> int:
        value = int(text)
        if not 1 <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not between 1 and {most}")
        return value

    parser.add_argument(f"--{name}", type=count, nargs="+", default=list(default), metavar="N")


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sglang_gpu")
    parser.add_argument("model", nargs="?", help="a folder, or a name on the hub")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    _counts(parser, "branches", (1, 2, 4, 8), 64)
    _counts(parser, "batches", (1, 4, 16, 64), 512)
    parser.add_argument("--tokens", type=int, default=256, help="letters of a branch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--tolerance", type=float, help="nats; 0.05 in bf16, 0.001 in float32")
    parser.add_argument("--tp", type=int, default=1, help="GPUs of a server")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(given)
    for name in ("tokens", "repeats", "tp"):
        if getattr(chosen, name) < 1:
            parser.error(f"--{name} is {getattr(chosen, name)}, it must be 1 or more")
    if chosen.tolerance is None:
        chosen.tolerance = 0.05 if chosen.dtype == "bfloat16" else 0.001
    if chosen.tolerance <= 0:
        parser.error(f"--tolerance is {chosen.tolerance}, it must be above 0")
    return chosen


def measure(
    model: str, chosen: argparse.Namespace, device: str = "cuda", **options: Any
) -> tuple[list[Difference], list[Speed]]:
    """All backends, one server after another."""
    vocabulary = Vocabulary.from_tokenizer(AutoTokenizer.from_pretrained(model))
    oracle = Oracle(model, getattr(torch, chosen.dtype), device)
    right: list[Difference] = []
    fast: list[Speed] = []
    for backend in chosen.backends:
        settings = {"attention_backend": backend, "dtype": chosen.dtype, "tp_size": chosen.tp}
        settings["device"] = device
        settings["mem_fraction_static"] = 0.7  # the oracle stands beside it
        runs = Runs(Path(model), **{**settings, **options})
        try:
            right += correctness(backend, runs, oracle, vocabulary, CHECKED)
            for branches in chosen.branches:
                for batch in chosen.batches:
                    shape = Shape(branches, chosen.tokens, batch)
                    fast.append(speed(backend, runs, shape, chosen.repeats))
        finally:
            runs.stop()
    return right, fast


def main() -> None:
    chosen = arguments()
    if not torch.cuda.is_available():
        sys.exit("this benchmark needs CUDA; on a CPU run python -m benchmarks.sglang_cpu")
    with TemporaryDirectory() as folder:
        model = chosen.model
        if model is None:
            model = str(make_model(Path(folder), MODEL, getattr(torch, chosen.dtype)))
        right, fast = measure(model, chosen)
    show(Console(), right, fast, chosen.tolerance)
    if chosen.json is not None:
        found = {"correctness": [*map(asdict, right)], "speed": [*map(asdict, fast)]}
        chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    faults = [fault for d in right if (fault := d.fault(chosen.tolerance))]
    sys.exit("; ".join(faults) if faults else 0)


if __name__ == "__main__":
    main()
