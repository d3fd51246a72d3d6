"""Time and memory of giving a server new weights: a random model of 0.5 B on this CPU.

    .venv-sglang/bin/python -m benchmarks.weights_update [--tp-size N] [--repeats N]

The trainer's weights are fp32, as in training; they travel as bf16. `seconds` are from `put` to the
server's answer, the median; beside it those of writing the files alone. Memory is the most that
came on top of what was there before: of the trainer, of all processes of the server, and of files
in shared memory.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch
from rich.console import Console
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from nprdsl.runtime import SGLangEngine
from nprdsl.runtime.bundled import ARITH, model_folder
from nprdsl.runtime.sglang import cpu
from nprdsl.runtime.sglang.client.weight_files import BUCKET, written
from nprdsl.runtime.sglang.launch import Server, command

MB = 10**6
SHAPE = Qwen2Config(
    vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
    num_attention_heads=14, num_key_value_heads=2, max_position_embeddings=2048,
    tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)  # fmt: skip


def make_model(folder: Path) -> None:
    """A random model of the shape of Qwen2.5-0.5B, in bf16, with the tokenizer of `arith`."""
    torch.manual_seed(3)
    Qwen2ForCausalLM(SHAPE).to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model_folder(ARITH)).save_pretrained(folder)


class Peaks:
    """The most memory of several kinds, in bytes, above what there was at first."""

    def __init__(self, kinds: dict[str, Callable[[], int]]) -> None:
        self._kinds = kinds
        self._before = {name: measure() for name, measure in kinds.items()}
        self.most = dict.fromkeys(kinds, 0)

    def look(self) -> None:
        for name, measure in self._kinds.items():
            self.most[name] = max(self.most[name], measure() - self._before[name])


@contextmanager
def watched(kinds: dict[str, Callable[[], int]]) -> Iterator[Peaks]:
    peaks, over = Peaks(kinds), threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            peaks.look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def own_memory(pids: list[int]) -> int:
    """Bytes of these processes that belong to no file."""
    held = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            held += sum(1024 * int(line.split()[1]) for line in lines if "RssAnon" in line)
    return held


def files() -> int:
    """Bytes of weights in shared memory."""
    held = 0
    for file in Path("/dev/shm").glob("nprdsl-weights-*/*"):
        with contextlib.suppress(OSError):
            held += file.stat().st_size
    return held


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tp-size", type=int, default=1)
    parser.add_argument("--port", type=int, default=31_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", type=Path, help="a folder that is made once and kept")
    asked = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = asked.model or Path(temporary)
        if not (folder / "config.json").is_file():
            make_model(folder)
        cores = sorted(os.sched_getaffinity(0))
        if asked.tp_size > 1 and not cpu.has_cuda():
            bound = (str(cores[rank % len(cores)]) for rank in range(asked.tp_size))
            os.environ["SGLANG_CPU_OMP_THREADS_BIND"] = "|".join(bound)
        options = ["--tp-size", str(asked.tp_size), "--port", str(asked.port)]
        server = Server(command(str(folder), options, cuda=cpu.has_cuda()))
        try:
            server.ready(lambda: None)
            measure(server.command.url, folder, asked.repeats, below(os.getpid()))
        finally:
            server.stop()


def below(pid: int) -> list[int]:
    """The processes that a process started, and those that they did."""
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def measure(url: str, folder: Path, repeats: int, processes: list[int]) -> None:
    """Of the server at `url`, which has the model of the folder, and runs in these processes."""
    engine = SGLangEngine(url)
    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    named = {n: t for n, t in model.state_dict().items() if n != "lm_head.weight"}
    size = sum(tensor.numel() for tensor in named.values())
    kinds = {
        "trainer": lambda: own_memory([os.getpid()]),
        "server": lambda: own_memory(processes),
        "files": files,
    }
    engine.weights.put(named.items())  # what is made once
    taken, wrote, console = [], [], Console()
    console.print(f"{size / MB:,.0f} M weights, {2 * size / MB:,.0f} MB as bf16")
    with watched(kinds) as peaks:
        for _ in range(repeats):
            began = time.perf_counter()
            engine.weights.put(named.items())
            taken.append(time.perf_counter() - began)
    told = ", ".join(f"{name} {most / MB:,.0f} MB" for name, most in peaks.most.items())
    console.print(f"seconds {statistics.median(taken):.2f}; most memory on top: {told}")
    for _ in range(repeats):
        began = time.perf_counter()
        with written(named.items(), None, torch.bfloat16, BUCKET):
            wrote.append(time.perf_counter() - began)
    console.print(f"files alone: seconds {statistics.median(wrote):.2f}")
    engine.close()


if __name__ == "__main__":
    main()
